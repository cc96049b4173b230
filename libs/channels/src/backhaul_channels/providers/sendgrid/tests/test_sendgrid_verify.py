"""Keys and signatures of SendGrid with keys made here."""

from __future__ import annotations

import base64
import json

import pytest
from backhaul_channels import InvalidSecretError, RawCallback
from backhaul_channels.providers.sendgrid import ADAPTER
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from backhaul_channels.providers.sendgrid.verify import SIGNATURE_HEADER, TIMESTAMP_HEADER, SendGridVerifier
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

KEY = ec.generate_private_key(ec.SECP256R1())


def spki(key: PublicKeyTypes) -> str:
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


VERIFIER = SendGridVerifier([spki(KEY.public_key())])


def refusal(timestamp: bytes, body: bytes, signature: bytes) -> str | None:
    headers = [(SIGNATURE_HEADER, base64.b64encode(signature)), (TIMESTAMP_HEADER, timestamp)]
    result = VERIFIER.verify(RawCallback("POST", "https://hooks.example.com/", headers, body))
    return None if result is None else result.code


@given(st.binary(max_size=64), st.integers(0, 10**12), st.data())
def test_a_signed_body_verifies_and_a_changed_one_does_not(body: bytes, moment: int, data: st.DataObject) -> None:
    timestamp = str(moment).encode()
    signature = KEY.sign(timestamp + body, ec.ECDSA(SHA256()))
    assert refusal(timestamp, body, signature) is None
    assert refusal(timestamp, body + b"\r\n", signature) == "signature_invalid"
    assert refusal(b"1" + timestamp, body, signature) == "signature_invalid"
    # A signature is random and 68 to 72 bytes long; what is drawn must not depend on it.
    at = data.draw(st.integers(0, 67)) % len(signature)
    other = data.draw(st.integers(1, 255))
    changed = signature[:at] + bytes([signature[at] ^ other]) + signature[at + 1 :]
    assert refusal(timestamp, body, changed) == "signature_invalid"


def test_the_body_cannot_begin_in_the_timestamp() -> None:
    signature = KEY.sign(b'1600112502[{"a":1}]', ec.ECDSA(SHA256()))
    assert refusal(b"1600112502", b'[{"a":1}]', signature) is None
    assert refusal(b"1600112502[", b'{"a":1}]', signature) == "timestamp_invalid"


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_a_key_of_another_kind_is_no_secret(key: PublicKeyTypes) -> None:
    with pytest.raises(InvalidSecretError, match="P-256"):
        SendGridVerifier([spki(key)])


@pytest.mark.parametrize("secret", ["x", "AAAA", "SG.api-key", "-----BEGIN PUBLIC KEY-----", "é", "MFkw" * 20])
def test_what_is_no_key_is_no_secret(secret: str) -> None:
    with pytest.raises(InvalidSecretError, match="no public key"):
        SendGridVerifier([secret])


CLIENT = '{"client_id": "sendgrid", "client_secret": "0123456789abcdef"}'
CHANNEL, NOW_US = "1/sendgrid", 1_790_000_000_000_000


def judged(secrets: list[str], *headers: tuple[bytes, bytes], audience: str = CHANNEL) -> str | None:
    callback = RawCallback("POST", "https://hooks.example.com/", headers, b"[]", NOW_US, audience)
    refusal = ADAPTER.verifier(secrets, SendGridSettings()).verify(callback)
    return None if refusal is None else refusal.code


def test_every_kind_of_secret_is_a_proof_that_must_hold() -> None:
    form = b"grant_type=client_credentials&client_id=sendgrid&client_secret=0123456789abcdef"
    asking = RawCallback("POST", "https://hooks.example.com/", [], form, NOW_US, CHANNEL)
    answer = ADAPTER.issue_token(asking, [spki(KEY.public_key()), CLIENT], SendGridSettings())
    assert answer is not None
    token = (b"authorization", b"Bearer " + json.loads(answer.body)["access_token"].encode())
    signature = base64.b64encode(KEY.sign(b"1[]", ec.ECDSA(SHA256())))
    signed = ((TIMESTAMP_HEADER, b"1"), (SIGNATURE_HEADER, signature))
    key = spki(KEY.public_key())
    assert judged([key, CLIENT], token, *signed) is None
    assert judged([CLIENT, key], token, *signed) is None
    assert judged([CLIENT, key], token) == "signature_missing"
    assert judged([CLIENT, key], *signed) == "token_missing"
    assert judged([CLIENT, key], token, *signed, audience="2/sendgrid") == "token_invalid"
    assert judged([CLIENT], token) is None
    assert judged([CLIENT], *signed) == "token_missing"
    assert judged([key], *signed) is None
    assert judged([key], token) == "signature_missing"
    assert judged(["", " "], token, *signed) == "secret_missing"


def test_a_channel_without_a_client_issues_no_tokens() -> None:
    asking = RawCallback("POST", "https://hooks.example.com/", [], b"grant_type=client_credentials")
    for secrets in ([], [""], [spki(KEY.public_key())]):
        assert ADAPTER.issue_token(asking, secrets, SendGridSettings()) is None


@pytest.mark.parametrize(
    "secret", ['{"client_id": "s3cret"}', "{s3cret", '{"client_id": "a", "client_secret": "s3cret"}']
)
def test_what_is_no_client_is_no_secret(secret: str) -> None:
    with pytest.raises(InvalidSecretError, match="client_id, client_secret") as refused:
        ADAPTER.verifier([secret], SendGridSettings())
    assert "s3cret" not in str(refused.value)
