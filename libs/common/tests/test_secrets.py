"""Secrets at rest and credentials."""

from __future__ import annotations

import base64

import pytest
from backhaul_common.secrets import (
    CredentialKind,
    SecretBox,
    digest,
    matches,
    new_credential,
    parse_credential,
)
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

KEY = Fernet.generate_key().decode()
BOX = SecretBox([KEY])


@given(st.text())
def test_what_is_encrypted_comes_back(plain: str) -> None:
    token = BOX.encrypt(plain)
    assert BOX.decrypt(token) == plain
    assert len(plain) < 4 or plain not in token


def test_equal_secrets_do_not_look_equal() -> None:
    assert BOX.encrypt("same") != BOX.encrypt("same")


def test_what_was_encrypted_for_one_purpose_is_nothing_for_another() -> None:
    other = Fernet.generate_key().decode()
    for token, boxes in (
        (BOX.encrypt("x"), [BOX.of("a"), BOX.of("b")]),
        (BOX.of("a").encrypt("x"), [BOX, BOX.of("b"), SecretBox([other]).of("a")]),
    ):
        for box in boxes:
            with pytest.raises(ValueError, match="no key of the ring"):
                box.decrypt(token)
    # It follows the ring.
    assert SecretBox([other, KEY]).of("a").decrypt(BOX.of("a").encrypt("x")) == "x"


def test_keys_rotate() -> None:
    new = Fernet.generate_key().decode()
    both = SecretBox([new, KEY])
    assert both.decrypt(BOX.encrypt("old")) == "old"
    # The first key encrypts: once all is written anew, the old one can go.
    assert SecretBox([new]).decrypt(both.encrypt("fresh")) == "fresh"
    with pytest.raises(ValueError, match="no key of the ring"):
        BOX.decrypt(both.encrypt("fresh"))


def test_tampering_is_noticed() -> None:
    raw = bytearray(base64.urlsafe_b64decode(BOX.encrypt("secret")))
    for position in (0, 5, 12, 30, len(raw) - 1):
        changed = bytearray(raw)
        changed[position] ^= 1
        with pytest.raises(ValueError, match="no key of the ring"):
            BOX.decrypt(base64.urlsafe_b64encode(changed).decode())


@pytest.mark.parametrize("token", ["", "gAAAA", "plain text", "ü", "\ud800"])
def test_what_is_no_token_is_a_value_error(token: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # which text depends on how far the token was read
        BOX.decrypt(token)


@pytest.mark.parametrize("keys", [[], [""], ["short"], [KEY, "short"], ["ü" * 32], [KEY[:-4]]])
def test_a_ring_without_good_keys_is_refused(keys: list[str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the library's words for a bad key are its own
        SecretBox(keys)


def test_a_refused_key_is_not_quoted() -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        SecretBox(["almost-a-key"])
    assert "almost-a-key" not in str(caught.value)


@pytest.mark.parametrize("kind", ["api", "ingest"])
def test_credentials(kind: CredentialKind) -> None:
    credential_id, text, stored = new_credential(kind)
    parsed = parse_credential(text)
    assert parsed is not None
    assert parsed[:2] == (kind, credential_id)
    secret = parsed[2]
    assert matches(secret, stored)
    assert not matches(secret[:-1] + ("0" if secret[-1] != "0" else "1"), stored)
    assert not matches("", stored)
    assert not matches(secret, "")
    assert secret not in stored
    assert digest(secret) == stored
    assert new_credential(kind)[1] != text


GOOD = "bhk_0123456789ab_" + "0123456789abcdef" * 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[:-1],
        GOOD + "0",
        GOOD + "\n",
        " " + GOOD,
        GOOD.upper(),
        GOOD.replace("bhk", "bhx", 1),
        GOOD.replace("_", "-"),
        "bhk__" + GOOD[4:],
        GOOD[:-1] + "٣",
        GOOD[:-1] + "\ud800",
    ],
)
def test_what_cannot_be_a_credential(text: str) -> None:
    assert parse_credential(text) is None


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    assert parse_credential(text) is None


def test_what_an_older_key_encrypted_is_renewed_once() -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    token = SecretBox([old]).encrypt("s3cret")
    renewed = SecretBox([new, old]).renewed(token)
    assert SecretBox([new]).decrypt(renewed) == "s3cret"
    assert SecretBox([new, old]).renewed(renewed) == renewed
    with pytest.raises(ValueError, match="no key"):
        SecretBox([new]).renewed(token)
