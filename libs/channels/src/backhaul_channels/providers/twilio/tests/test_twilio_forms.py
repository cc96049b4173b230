"""Form parsing and signatures of Twilio, against independent references."""

from __future__ import annotations

import base64
import hmac
import time
from urllib.parse import parse_qsl, quote_from_bytes

import pytest
from backhaul_channels import RawCallback
from backhaul_channels.providers.twilio.form import parse_form, parse_raw, signed_material
from backhaul_channels.providers.twilio.verify import (
    MOST_FORM_BYTES,
    MOST_FORM_FIELDS,
    SIGNATURE_HEADER,
    TwilioVerifier,
    url_variants,
)
from hypothesis import example, given
from hypothesis import strategies as st

URL = "https://hooks.example.com/api/postevents?channelLabel=Twilio&offerId=7"
TOKEN = "12345"

# Pieces that forms are made of, and those on which parsers disagree.
pieces = st.sampled_from(
    [b"a", b"B", b"&", b"=", b"%", b"+", b" ", b";", b"#", b"\n", b"\r", b"\t", b"\0", b"%00", b"%20", b"%2B", b"%26",
     b"%3D", b"%3d", b"%25", b"%C3%A9", b"%c3", b"%ff", b"%zz", b"%2", b"\xc3\xa9", b"\xff", b"1", b"true"]
)  # fmt: skip
bodies = st.lists(pieces, max_size=12).map(b"".join) | st.binary()


def reference_raw(body: bytes) -> list[tuple[bytes, bytes]]:
    # Latin-1 maps every byte to one character and back, so that the standard parser works on bytes.
    fields = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    return [(key.encode("latin-1"), value.encode("latin-1")) for key, value in fields]


def reference_signature(url: str, fields: list[tuple[bytes, bytes]]) -> bytes:
    message = url.encode()
    for key in sorted({key for key, _ in fields}):
        for value in sorted({value for name, value in fields if name == key}):
            message += key + value
    return base64.b64encode(hmac.digest(TOKEN.encode(), message, "sha1"))


def refused(body: bytes, signature: bytes) -> bool:
    callback = RawCallback("POST", URL, [(b"x-twilio-signature", signature)], body)
    return TwilioVerifier([TOKEN]).verify(callback) is not None


@given(bodies)
@example(b"a%3Db=c")
@example(b"a=%ff&b=1")
@example(b"a=\xff&b=1")
def test_forms_are_parsed_as_the_standard_library_parses_them(body: bytes) -> None:
    assert parse_raw(body) == reference_raw(body)
    expected = {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in reference_raw(body)}
    assert parse_form(body) == expected


@given(bodies)
def test_signed_material_is_the_same_on_the_fast_and_the_slow_way(body: bytes) -> None:
    fields = sorted(set(reference_raw(body)))
    assert signed_material(body) == b"".join(key + value for key, value in fields)


def encode(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"&".join(f"{quote_from_bytes(key)}={quote_from_bytes(value)}".encode() for key, value in fields)


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.binary(max_size=8)), max_size=8))
def test_a_form_signed_by_the_reference_verifies(fields: list[tuple[bytes, bytes]]) -> None:
    assert not refused(encode(fields), reference_signature(URL, fields))


@given(
    st.lists(st.tuples(st.from_regex(rb"[A-Z][a-z]{1,6}", fullmatch=True), st.binary(min_size=1, max_size=8)),
             min_size=1, max_size=8, unique_by=lambda field: field[0]),
    st.data(),
)  # fmt: skip
def test_a_change_of_any_byte_is_refused(fields: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    signature = reference_signature(URL, fields)
    index = data.draw(st.integers(0, len(fields) - 1))
    key, value = fields[index]
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != value[at]))
    changed = [*fields]
    changed[index] = (key, value[:at] + bytes([other]) + value[at + 1 :])
    assert refused(encode(changed), signature)


@pytest.mark.parametrize(
    "body",
    [
        b"&".join(b"k%d=v" % number for number in range(10_000)),
        b"&".join(b"same=%d" % number for number in range(10_000)),
        b"&" * 700_000,
        b"%3D" * 230_000,
        b"%ff=" * 170_000,
        b"a=" + b"%C3%A9" * 120_000,
    ],
    ids=["keys", "values", "separators", "equals", "not-utf8", "accents"],
)
def test_the_work_grows_with_the_body_and_no_faster(body: bytes) -> None:
    # 700 KB take some tens of milliseconds; the bound only tells linear from quadratic, on any machine.
    started = time.process_time()
    signed_material(body)
    parse_form(body)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("fields", "size", "refusal"),
    [
        (MOST_FORM_FIELDS, 1, None),
        (MOST_FORM_FIELDS + 1, 1, "form_too_large"),
        (1, MOST_FORM_BYTES, "form_too_large"),
    ],
)
def test_a_form_that_cannot_be_twilios_is_not_worth_its_work(fields: int, size: int, refusal: str | None) -> None:
    pairs = [(b"k%d" % number, b"v" * size) for number in range(fields)]
    signed = [(SIGNATURE_HEADER, reference_signature(URL, pairs))]
    result = TwilioVerifier([TOKEN]).verify(RawCallback("POST", URL, signed, encode(pairs)))
    assert (result and result.code) == refusal


def test_url_variants_are_few_and_others() -> None:
    url = "HTTPS://u:p@ss@Hooks.example.com:8443/x?a='%27#"
    variants = list(url_variants(url))
    assert url not in variants
    assert 1 < len(variants) <= 18
    assert len(set(variants)) == len(variants)


@pytest.mark.parametrize("url", ["", "no url", "://", "https://", "https://[::1", "https://[::1]:x/", "x://@:@:/?'"])
def test_url_variants_of_nonsense(url: str) -> None:
    assert len(list(url_variants(url))) <= 18
