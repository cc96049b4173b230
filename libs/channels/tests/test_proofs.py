"""Names and passwords, and several proofs at once."""

from __future__ import annotations

from base64 import b64encode

import pytest
from backhaul_channels import InvalidSecretError, RawCallback
from backhaul_channels.engines.proofs import (
    AllOf,
    BasicSecret,
    BasicVerifier,
    any_equal,
    objects_of,
    optional_basic,
    texts_of,
)
from hypothesis import given
from hypothesis import strategies as st

ANN = BasicSecret(username="ann", password="grün:wie Gras")
BEN = BasicSecret(username="ben", password="b")


def showing(authorization: bytes | None) -> RawCallback:
    headers = [] if authorization is None else [(b"authorization", authorization)]
    return RawCallback("POST", "https://callbacks.example.com/", headers, b"")


def basic(text: str) -> bytes:
    return b"Basic " + b64encode(text.encode())


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (basic("ann:grün:wie Gras"), None),
        (basic("ben:b"), None),
        (basic("ben:b").replace(b"Basic", b"bASIC"), None),
        (basic("ann:b"), "credentials_invalid"),
        (basic("ann:"), "credentials_invalid"),
        (b"Basic", "credentials_invalid"),
        (b"Basic ", "credentials_invalid"),
        (b"Bearer abc", "credentials_missing"),
        (None, "credentials_missing"),
    ],
)
def test_any_name_with_its_password_proves(authorization: bytes | None, code: str | None) -> None:
    refusal = BasicVerifier([ANN, BEN]).verify(showing(authorization))
    assert (refusal.code if refusal else None) == code


@given(st.binary())
def test_whatever_is_shown_it_does_not_raise(authorization: bytes) -> None:
    assert BasicVerifier([ANN]).verify(showing(authorization)) is not None


def test_one_of_several_is_found_wherever_it_stands_and_all_are_looked_at() -> None:
    for at in range(3):
        left = iter([b"c"] * at + [b"a"] + [b"c"] * (2 - at))
        assert any_equal(left, b"a")
        assert not list(left)
    assert not any_equal([b"ab", b""], b"a")
    assert not any_equal([], b"")


def test_every_proof_must_hold() -> None:
    both = AllOf([BasicVerifier([ANN, BEN]), BasicVerifier([BEN])])
    assert both.verify(showing(basic("ben:b"))) is None
    assert both.verify(showing(basic("ann:grün:wie Gras"))) is not None


def test_secrets_of_one_part_and_of_several_are_told_apart() -> None:
    secrets = ["text", "", ' {"username": "ben", "password": "b"}']
    assert texts_of(secrets) == ["text"]
    assert objects_of(secrets, BasicSecret) == [BEN]


@pytest.mark.parametrize(
    "secret", ['{"username": "s3cret"}', '{"username": "a", "password": "s3cret", "x": 1}', "{s3cret"]
)
def test_a_secret_that_does_not_fit_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidSecretError) as refused:
        objects_of([secret], BasicSecret)
    assert "username" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_provider_that_signs_nothing_may_be_given_a_name_and_a_password() -> None:
    verifier = optional_basic(["", '{"username": "ben", "password": "b"}'])
    assert verifier is not None
    assert verifier.verify(showing(basic("ben:b"))) is None
    assert verifier.verify(showing(None)) is not None
    assert optional_basic([]) is None
    assert optional_basic([" "]) is None
    with pytest.raises(InvalidSecretError, match="username and password") as caught:
        optional_basic(["a-text-123", '{"username": "ben", "password": "b"}'])
    assert "a-text-123" not in str(caught.value)
