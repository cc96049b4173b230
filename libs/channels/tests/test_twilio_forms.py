"""Form parsing and signatures of Twilio, against independent references."""

from __future__ import annotations

import base64
import hmac
import re
import time
from urllib.parse import parse_qsl, quote_from_bytes

import pytest
from backhaul_channels import InvalidSecretError, RawCallback
from backhaul_channels.engines.forms import parse_form, parse_raw
from backhaul_channels.engines.twilio.form import signed_material
from backhaul_channels.engines.twilio.signature import (
    MAX_FORM_BYTES,
    MAX_FORM_FIELDS,
    SETTINGS_HEADER,
    SIGNATURE_HEADER,
    TwilioVerifier,
)
from backhaul_channels.engines.twilio.spellings import MAX_SPELLINGS, spellings
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


NAME = re.compile(rb"(?!AccountSid\Z)[A-Za-z0-9_.-]+")
LONE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@given(bodies)
@example(b"a=%\r--dropped\n&b=%z")
@example(b"a=1&&b=2&")
@example(b"b&a=1")
@example(b"a=1&b=2&a=0")
@example(b"a=1&a%20=2")
@example(b"a=1&b=%\n&c=%41")
@example(b"a=%%41&b=%4")
@example(b"AccountSidAC")
def test_signed_material_is_that_of_the_reference_or_none(body: bytes) -> None:
    fields = sorted(set(reference_raw(body)))
    material = signed_material(body)
    reference = b"".join(key + value for key, value in fields)
    if material is not None:
        assert material == reference
    # Only a name that Twilio does not write, be it by its escapes, a percent sign that escapes nothing, and what reads
    # like the account that a form begins with are reasons.
    names = [field.partition(b"=")[0] for field in body.split(b"&") if field]
    well_written = all(NAME.fullmatch(name) for name in names) and not LONE_PERCENT.search(body)
    well_written = well_written and not reference.startswith(b"AccountSidAC")
    assert (material is None) == (not well_written)


@pytest.mark.parametrize(
    ("body", "signed"),
    [
        (b"AccountSid=AC" + b"0" * 32, True),
        (b"AccountSid=AC1&B=2", True),
        (b"B=2&B=1&AccountSid=AC1", True),
        (b"AccountSid=AC" + b"0" * 33, False),
        (b"AccountSid=AC0.B2", False),
        (b"AccountSid=", False),
        (b"AccountSid=AC1&AccountSid=x", False),
        (b"B=2&B=1&AccountSid=AC0%20", False),
        (b"AccountSidAC0=B2", False),
        (b"B=2&B=1&AccountSidAC0=B2", False),
        (b"AccountSidOf=anything", True),
        (b"AccountS=idAC0", False),
        (b"AccountS=idAC0&B=1", False),
        (b"AccountS=idAC0&AccountSid=AC1", False),
        (b"B=1&B=2&AccountS=idAC0&AccountSid=AC1", False),
        (b"AccountS=id&AccountSid=AC1", True),
        (b"Body=AccountSidAC0", True),
    ],
)
def test_the_account_takes_in_nothing_else(body: bytes, signed: bool) -> None:
    assert (signed_material(body) is not None) == signed


def encode(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"&".join(f"{quote_from_bytes(key)}={quote_from_bytes(value)}".encode() for key, value in fields)


@given(st.lists(st.tuples(st.from_regex(rb"[A-Za-z][A-Za-z0-9_.-]{0,7}", fullmatch=True), st.binary(max_size=8)),
                max_size=8))  # fmt: skip
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
        (MAX_FORM_FIELDS, 1, None),
        (MAX_FORM_FIELDS + 1, 1, "form_too_large"),
        (1, MAX_FORM_BYTES, "form_too_large"),
    ],
)
def test_a_form_that_cannot_be_twilios_is_not_worth_its_work(fields: int, size: int, refusal: str | None) -> None:
    pairs = [(b"k%d" % number, b"v" * size) for number in range(fields)]
    signed = [(SIGNATURE_HEADER, reference_signature(URL, pairs))]
    result = TwilioVerifier([TOKEN]).verify(RawCallback("POST", URL, signed, encode(pairs)))
    assert (result and result.code) == refusal


def test_a_usual_wrong_signature_costs_little_and_a_hostile_one_is_bounded() -> None:
    url = URL + "".join(f"&p{number}=%20+'%27" for number in range(29))
    credential = base64.b64encode(b"a b:c!").decode()
    form = b"Body=" + b"%C3%A9" * 10_000
    signature = (SIGNATURE_HEADER, b"A" * 27 + b"=")
    callback = RawCallback("POST", url, [signature, (b"authorization", f"Basic {credential}".encode())], form)
    verifier = TwilioVerifier([TOKEN, "another-token"])
    started = time.process_time()
    for _ in range(20):
        refusal = verifier.verify(callback)
        assert refusal is not None
        assert "alphabetical order" in refusal.detail
    # Some 2 ms each; without the bounds, ninety spellings of 23 KB take ten times as long.
    assert time.process_time() - started < 0.5


@pytest.mark.timed
@pytest.mark.parametrize(
    "body",
    [
        b"%ff=" * 16_000,
        b"%41a" * 16_000,
        b"%3D" * 21_000,
        b"&".join(b"k%%ff%d=%%zz" % n for n in range(990)),
        b"Body=" + b"%" * 65_000,
        b"Body=" + b"%4" * 32_000,
    ],
    ids=["names", "letters", "equals", "fields", "signs", "halves"],
)
def test_escapes_that_prove_nothing_are_not_decoded(body: bytes) -> None:
    callback = RawCallback("POST", URL, [(SIGNATURE_HEADER, b"A" * 27 + b"=")], body[:MAX_FORM_BYTES])
    verifier = TwilioVerifier([TOKEN])
    took = []
    for _ in range(50):
        started = time.process_time()
        refusal = verifier.verify(callback)
        took.append(time.process_time() - started)
        assert refusal is not None
        assert refusal.code == "form_invalid"
    # A tenth of a millisecond to one; decoding them took 3 to 6. The least, as a busy machine takes longer at times.
    assert min(took) < 0.002


def test_spellings_are_few_and_others() -> None:
    url = "HTTPS://u:p@ss@Hooks.example.com:8443/x?a='%27&b=%20&c=+"
    found = list(spellings(url, b"Basic " + base64.b64encode(b"a b:")))
    assert url not in found
    assert len(found) == len(set(found)) == MAX_SPELLINGS


@pytest.mark.parametrize("query", ["", "?", "?a", "?&", "?&&&", "?" + "a=1&" * 5000, "?" + "a" * 5000, "?b=1&a=2&b=0"])
def test_spellings_of_odd_queries(query: str) -> None:
    found = list(spellings("https://hooks.example.com/x" + query))
    assert len(found) <= MAX_SPELLINGS
    assert all(sorted(found_query) == sorted(query) for found_query in (s.partition("/x")[2] for s in found))


@pytest.mark.parametrize("url", ["", "no url", "://", "https://", "https://[::1", "https://[::1]:x/", "x://@:@:/?'"])
def test_spellings_of_nonsense(url: str) -> None:
    assert len(list(spellings(url, b"Basic Og=="))) <= MAX_SPELLINGS


@given(st.text(), st.text())
def test_no_user_ends_the_authority(user: str, password: str) -> None:
    credential = b"Basic " + base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogatepass"))
    for spelling in spellings("https://hooks.example.com/x?a=1", credential):
        authority = spelling.removeprefix("https://").partition("/")[0]
        assert authority.rpartition("@")[2] in {"hooks.example.com", "hooks.example.com:443"}
        assert not set(authority.rpartition("@")[0]) & set("/?#@[]\\ \n\t")


def test_the_official_package_and_this_one_sign_alike_under_a_shared_key() -> None:
    # The signature is that of RequestValidator("secret").compute_signature in twilio-python 9.13.0.
    headers = [
        (SIGNATURE_HEADER, b"vcbKeFgMPYVlBSD3ofGYAlcyU3IPQdI8Dz6nLEFYWNw="),
        (b"x-twilio-webhooks-signature-settings", b" algorithm = hmac_sha256 , key=webhooks_sharedkey_1"),
    ]
    verifier = TwilioVerifier(["webhooks_sharedkey_1:secret", "webhooks_sharedkey_1:newer"])
    assert verifier.verify(RawCallback("POST", URL, headers, b"A=1&B=2")) is None


@pytest.mark.parametrize("secret", ["webhooks_sharedkey_1", "webhooks_sharedkey_1:", "webhooks_sharedkey_:x"])
def test_the_id_of_a_shared_key_is_no_secret(secret: str) -> None:
    with pytest.raises(InvalidSecretError, match="a colon"):
        TwilioVerifier([secret])


def test_a_refused_shared_key_is_named() -> None:
    headers = [(SIGNATURE_HEADER, b"x"), (SETTINGS_HEADER, b"key=webhooks_sharedkey_7,algorithm=HMAC_SHA256")]
    refusal = TwilioVerifier([TOKEN]).verify(RawCallback("POST", URL, headers, b"A=1"))
    assert refusal is not None
    assert "the shared key webhooks_sharedkey_7, which the channel does not have" in refusal.detail


def test_of_two_signatures_the_first_counts() -> None:
    good = reference_signature(URL, [(b"A", b"1")])
    for values, refusal in (((good, b"bad"), None), ((b"bad", good), "signature_invalid")):
        callback = RawCallback("POST", URL, [(SIGNATURE_HEADER, value) for value in values], b"A=1")
        result = TwilioVerifier([TOKEN]).verify(callback)
        assert (result and result.code) == refusal


ACCOUNT = "AC0123456789abcdef0123456789abcdef"
# A text that reads as the fields of a delivery, followed by a name that takes in the rest.
SPOKEN = "hi MessageSidSM999MessageStatusdeliveredTo+15005550010ZZ"


@pytest.mark.parametrize("ending", ["spring", "Alpha", "A", "AccountSid"])
@pytest.mark.parametrize("in_front", [False, True], ids=["at the end", "before the label"])
def test_a_signed_text_means_nothing_but_itself(ending: str, in_front: bool) -> None:
    """Whoever has one signed request, with a text of its own choice, moves the seam between address and form."""
    url = f"https://hooks.example.com/api/postevents?channelLabel=Twilio&b={ending}"
    form = {
        "AccountSid": ACCOUNT, "ApiVersion": "2010-04-01", "Body": SPOKEN, "From": "+15005550001",
        "MessageSid": "SM1", "SmsStatus": "received", "To": "+15005550002",
    }  # fmt: skip
    fields = [(name.encode(), value.encode()) for name, value in form.items()]
    signature = reference_signature(url, fields)
    verifier = TwilioVerifier([TOKEN])

    def accepted(address: str, body: bytes) -> bool:
        return verifier.verify(RawCallback("POST", address, [(SIGNATURE_HEADER, signature)], body)) is None

    assert accepted(url, encode(fields))
    text = "".join(name + value for name, value in sorted(form.items()))
    signed = url + text
    spoken = signed.index("MessageSidSM999")
    tail = signed[signed.index("ZZ") + 2 :]
    for seam in range(len(url) - len(ending), spoken - 1):
        address = signed[:seam]
        if in_front:
            path, _, query = address.partition("?")
            label, _, rest = query.partition("&")
            address = f"{path}?{rest}&{label}"
        for name in {signed[seam : seam + 1], signed[seam : seam + 8], signed[seam : seam + 10]}:
            forged = [
                (name, signed[seam + len(name) : spoken]), ("MessageSid", "SM999"), ("MessageStatus", "delivered"),
                ("To", "+15005550010"), ("ZZ", tail),
            ]  # fmt: skip
            body = encode([(key.encode(), value.encode()) for key, value in forged])
            assert not accepted(address, body), (address, body)
