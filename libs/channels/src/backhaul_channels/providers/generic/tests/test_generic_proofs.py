"""How requests of a generic channel prove themselves, beside the cases: combinations, secrets, and what is refused."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_channels import InvalidSecretError, Proof, RawCallback
from backhaul_channels.engines.standard_webhooks import MAX_SIGNATURES
from backhaul_channels.providers.generic import ADAPTER
from backhaul_channels.providers.generic.settings import GenericSettings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

AT_S = 1_795_658_400
KEY = bytes(range(32))
WHSEC = "whsec_" + base64.b64encode(KEY).decode()
ANN = json.dumps({"username": "ann", "password": "secret-word"})
ANNS = (b"authorization", b"Basic " + base64.b64encode(b"ann:secret-word"))
BODY = b'{"id": 1}'


def settings(**proof: Any) -> GenericSettings:
    return GenericSettings.model_validate({"proof": proof})


HMAC = settings(type="hmac", signature_header="X-Signature")
BASIC = settings(type="basic")
CREDENTIAL = settings(type="credential")


def judged(chosen: GenericSettings, secrets: list[str], *headers: tuple[bytes, bytes], body: bytes = BODY) -> str:
    callback = RawCallback("POST", "https://callbacks.example.com/", headers, body, AT_S * 1_000_000)
    refusal = ADAPTER.verifier(secrets, chosen).verify(callback)
    return refusal.code if refusal else ""


def standard(*signatures: bytes, named: bytes = b"msg_1", at: bytes = b"%d" % AT_S) -> list[tuple[bytes, bytes]]:
    signature = b" ".join(signatures)
    return [(b"webhook-id", named), (b"webhook-timestamp", at), (b"webhook-signature", signature)]


def signed(key: bytes, named: bytes = b"msg_1", at: bytes = b"%d" % AT_S, body: bytes = BODY) -> bytes:
    return b"v1," + base64.b64encode(hmac.digest(key, b"%b.%b.%b" % (named, at, body), "sha256"))


def test_any_of_several_signatures_proves() -> None:
    other = signed(b"another key of no channel")
    for signatures in ((signed(KEY), other), (other, signed(KEY)), (b"v1a,abc", other, signed(KEY)), (other, b"v1")):
        expected = "" if signed(KEY) in signatures else "signature_invalid"
        assert judged(GenericSettings(), [WHSEC], *standard(*signatures)) == expected
    assert judged(GenericSettings(), [WHSEC], *standard(*[other] * 5_000)) == "signature_invalid"


def test_no_part_can_take_in_the_beginning_of_the_next() -> None:
    """What is signed holds all that is posted, but parted elsewhere."""
    authentic = signed(KEY, body=b"17.18")
    assert judged(GenericSettings(), [WHSEC], *standard(authentic), body=b"17.18") == ""
    moved = standard(authentic, named=b"msg_1.%d" % AT_S, at=b"17")
    assert judged(GenericSettings(), [WHSEC], *moved, body=b"18") == "signature_invalid"


@pytest.mark.parametrize(
    ("template", "value", "body"),
    [
        # The mark stands at two places, of which each would do.
        ("{header:X-Nonce}--{body}", b"abc-", b"x=1"),
        ("{body}--{header:X-Nonce}", b"-abc", b"x=1"),
        ("{header:X-Nonce}.{body}", b"abc.d", b"x=1"),
    ],
)
def test_no_header_can_share_a_mark_with_its_neighbour(template: str, value: bytes, body: bytes) -> None:
    chosen = settings(type="hmac", signature_header="X-Signature", signed=template)
    text = template.encode().replace(b"{body}", body).replace(b"{header:X-Nonce}", value)
    signature = (b"x-signature", hmac.digest(b"key", text, "sha256").hex().encode())
    assert judged(chosen, ["key"], signature, (b"x-nonce", value), body=body) == "signature_invalid"
    # A value that shares nothing is fine.
    text = template.encode().replace(b"{body}", body).replace(b"{header:X-Nonce}", b"a-b")
    signature = (b"x-signature", hmac.digest(b"key", text, "sha256").hex().encode())
    assert judged(chosen, ["key"], signature, (b"x-nonce", b"a-b"), body=body) == ""


def test_a_time_that_touches_the_body_takes_in_nothing_of_it() -> None:
    touching = "{timestamp}{body}"
    chosen = settings(type="hmac", signature_header="X-Signature", timestamp_header="X-Time", signed=touching)
    date = datetime.fromtimestamp(AT_S, UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").encode()
    signature = (b"x-signature", hmac.digest(b"key", date + b' {"id":1} ' + BODY, "sha256").hex().encode())
    assert judged(chosen, ["key"], signature, (b"x-time", date + b' {"id":1} ')) == "signature_invalid"
    signature = (b"x-signature", hmac.digest(b"key", date + BODY, "sha256").hex().encode())
    assert judged(chosen, ["key"], signature, (b"x-time", date)) == ""


def test_a_header_full_of_signatures_costs_little() -> None:
    few = [signed(b"another key of no channel")] * (MAX_SIGNATURES - 1)
    assert judged(GenericSettings(), [WHSEC], *standard(*few, signed(KEY))) == ""
    assert judged(GenericSettings(), [WHSEC], *standard(*few, few[0], signed(KEY))) == "signature_invalid"


def test_a_signature_in_hex_is_read_in_either_case() -> None:
    digest = hmac.digest(b"key", BODY, "sha256").hex().encode()
    assert judged(HMAC, ["key"], (b"x-signature", digest)) == ""
    assert judged(HMAC, ["key"], (b"x-signature", digest.upper())) == ""
    assert judged(HMAC, ["key"], (b"x-signature", digest[:-1])) == "signature_invalid"


def test_every_proof_that_is_configured_must_hold() -> None:
    signature = (b"x-signature", hmac.digest(b"key", BODY, "sha256").hex().encode())
    assert judged(HMAC, ["key", ANN], signature, ANNS) == ""
    assert judged(HMAC, ["key", ANN], signature) == "credentials_missing"
    assert judged(HMAC, ["key", ANN], ANNS) == "signature_missing"
    assert judged(HMAC, [ANN], signature, ANNS) == "secret_missing"


def test_a_name_and_a_password() -> None:
    for chosen in (BASIC, CREDENTIAL):
        assert judged(chosen, [ANN], ANNS) == ""
        assert judged(chosen, [ANN]) == "credentials_missing"
        assert judged(chosen, []) == "secret_missing"


def test_the_settings_say_what_is_proof_and_which_headers_are_not_kept() -> None:
    assert ADAPTER.proof_of(CREDENTIAL) is Proof.CREDENTIAL
    for chosen, headers in (
        (HMAC, {b"x-signature"}),
        (GenericSettings(), {b"webhook-signature"}),
        (settings(type="standard_webhooks", headers="svix"), {b"svix-signature"}),
        (BASIC, set()),
    ):
        assert ADAPTER.proof_of(chosen) is Proof.SIGNATURE
        assert ADAPTER.signature_headers_of(chosen) == headers


@pytest.mark.parametrize(
    ("chosen", "secret"),
    [
        (GenericSettings(), "whsec_b@d value!"),
        (GenericSettings(), "whsec_c2hvcnQ="),
        (GenericSettings(), "whsec_"),
        (GenericSettings(), "whsec_" + "A" * 1_000),
        (HMAC, "two words"),
        (HMAC, "über"),
        (settings(type="hmac", signature_header="X", secret_encoding="base64"), "%%%"),
        (settings(type="hmac", signature_header="X", secret_encoding="hex"), "xyz"),
        (HMAC, '{"username": "ann"}'),
        (BASIC, "text-secret"),
        (CREDENTIAL, "text-secret"),
    ],
)
def test_a_secret_that_cannot_be_one_is_refused_and_not_repeated(chosen: GenericSettings, secret: str) -> None:
    with pytest.raises(InvalidSecretError) as caught:
        ADAPTER.verifier([secret], chosen)
    assert (secret.removeprefix("whsec_") or "no secret at all") not in str(caught.value)


@pytest.mark.parametrize(
    ("proof", "where", "complaint"),
    [
        ({"type": "hmac"}, ("proof", "hmac", "signature_header"), "required"),
        ({"type": "hmac", "signature_header": "X Y"}, ("proof", "hmac", "signature_header"), "match pattern"),
        ({"type": "hmac", "signature_header": "X", "algorithm": "md5"}, ("proof", "hmac", "algorithm"), "sha256"),
        ({"type": "hmac", "signature_header": "X", "tolerance_s": 60}, ("proof", "hmac"), "timestamp_header"),
        (
            {"type": "hmac", "signature_header": "X", "timestamp_header": "T", "signed": "{body}"},
            ("proof", "hmac"),
            "not signed",
        ),
        ({"type": "hmac", "signature_header": "X", "signed": "{timestamp}.{body}"}, ("proof", "hmac"), "go together"),
        ({"type": "hmac", "signature_header": "X", "signed": "{url}{body}"}, ("proof", "hmac"), "Braces"),
        ({"type": "hmac", "signature_header": "X", "signed": "all"}, ("proof", "hmac"), "{body}"),
        ({"type": "hmac", "signature_header": "X", "signed": "{body}.{body}"}, ("proof", "hmac"), "once"),
        ({"type": "hmac", "signature_header": "X", "signed": "{header:N}{body}"}, ("proof", "hmac"), "marks"),
        (
            {
                "type": "hmac",
                "signature_header": "X",
                "signed": "{header:A}.{header:B}.{header:C}.{header:D}.{header:E}.{body}",
            },
            ("proof", "hmac"),
            "At most 4",
        ),
        ({"type": "hmac", "signature_header": "X", "tolerance_s": 0}, ("proof", "hmac", "tolerance_s"), "greater than"),
        ({"type": "standard_webhooks", "headers": "Svix "}, ("proof", "standard_webhooks", "headers"), "pattern"),
        ({"type": "standard_webhooks", "tolerance_s": 604_801}, ("proof", "standard_webhooks", "tolerance_s"), "less"),
        ({"type": "basic", "header": "X"}, ("proof", "basic", "header"), "Extra inputs"),
        ({"type": "jwt"}, ("proof",), "expected tags"),
        ({}, ("proof",), "type"),
    ],
)
def test_a_proof_that_proves_nothing_is_refused(proof: dict[str, Any], where: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**proof)
    (error,) = caught.value.errors()
    assert error["loc"] == where
    assert complaint in error["msg"]


names = st.sampled_from([b"x-signature", b"x-time", b"x-nonce", b"webhook-id", b"webhook-timestamp", b"authorization"])


@given(
    headers=st.lists(st.tuples(names, st.binary(max_size=40)), max_size=6),
    body=st.binary(max_size=20),
    received_at_us=st.integers(-(2**63), 2**63),
)
def test_no_request_raises_or_is_believed(headers: list[tuple[bytes, bytes]], body: bytes, received_at_us: int) -> None:
    template = "{header:X-Nonce}.{timestamp}.{body}"
    timed = settings(type="hmac", signature_header="X-Signature", timestamp_header="X-Time", signed=template)
    callback = RawCallback("POST", "", headers, body, received_at_us)
    for chosen, secrets in ((timed, ["key"]), (GenericSettings(), [WHSEC]), (BASIC, [ANN]), (HMAC, ["key", ANN])):
        assert ADAPTER.verifier(secrets, chosen).verify(callback) is not None
