"""Signatures: the official library verifies v1, ``cryptography`` v1a, and nothing that is wrong passes."""

from __future__ import annotations

import base64
import hmac
import time
from dataclasses import replace

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_notifier.signing import (
    MAX_GRACE_S,
    SecretKind,
    SigningKey,
    active,
    new_key,
    parse_key,
    rotated,
    signed_headers,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

ID = "msg_0123456789abcdef0123456789abcdef"
BODY = '{"type":"message.delivered","text":"Ça va, 😀?"}'.encode()
NOW_S = 1_795_700_000
NOW_US = NOW_S * 1_000_000 + 999_999
DAY_S = 86_400


def shared(byte: bytes = b"k", at_us: int = 0, *, expires_at_us: int = 0) -> SigningKey:
    return SigningKey(SecretKind.HMAC, byte * 32, at_us, expires_at_us)


def pair(byte: bytes = b"p", at_us: int = 0, *, expires_at_us: int = 0) -> SigningKey:
    return SigningKey(SecretKind.ED25519, byte * 32, at_us, expires_at_us)


def encoded(prefix: str, size: int) -> str:
    return prefix + base64.b64encode(bytes(range(size))).decode("ascii")


def test_the_official_library_verifies_what_is_signed_beside_ed25519() -> None:
    """It looks at the real clock, so this is signed with it."""
    keys = [new_key(SecretKind.ED25519, 2), new_key(SecretKind.HMAC, 1)]
    headers = signed_headers(ID, BODY, keys, time.time_ns() // 1000)
    assert headers["webhook-signature"].startswith("v1a,")
    assert Webhook(keys[1].text).verify(BODY, headers)["type"] == "message.delivered"
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(keys[1].text).verify(BODY + b" ", headers)


def test_cryptography_verifies_v1a() -> None:
    key = new_key(SecretKind.ED25519, 0)
    headers = signed_headers(ID, BODY, [shared(), key], NOW_US)
    signature = headers["webhook-signature"].split(" ")[1].removeprefix("v1a,")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public_text.removeprefix("whpk_")))
    public.verify(base64.b64decode(signature), b"%b.%d.%b" % (ID.encode(), NOW_S, BODY))


def test_the_example_of_the_specification_has_its_own_signature() -> None:
    """The vector of the official libraries' tests."""
    key = parse_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 0)
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', [key], 1_614_265_330_000_000)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_every_active_key_signs_the_newest_first() -> None:
    keys = [shared(b"a", 1), pair(b"b", 3), shared(b"c", 2), pair(b"d", 4, expires_at_us=NOW_US)]
    header = signed_headers(ID, BODY, keys, NOW_US)["webhook-signature"]
    assert [part.split(",")[0] for part in header.split(" ")] == ["v1a", "v1", "v1"]
    alone = [signed_headers(ID, BODY, [key], NOW_US)["webhook-signature"] for key in active(keys, NOW_US)]
    assert header.split(" ") == alone


def test_a_call_without_a_body_is_signed_as_an_empty_one() -> None:
    made = hmac.digest(b"k" * 32, f"{ID}.{NOW_S}.".encode(), "sha256")
    signed = signed_headers(ID, b"", [shared()], NOW_US)["webhook-signature"]
    assert signed == f"v1,{base64.b64encode(made).decode()}"


@pytest.mark.parametrize("webhook_id", ["", "msg.1", "msg 1", "msg\n1", "mśg", "m" * 129])
def test_an_id_that_could_move_the_full_stops_signs_nothing(webhook_id: str) -> None:
    with pytest.raises(ValueError, match="cannot be the id"):
        signed_headers(webhook_id, BODY, [shared()], NOW_US)


@pytest.mark.parametrize("keys", [[], [shared(expires_at_us=NOW_US)], [pair(expires_at_us=1)]])
def test_nothing_is_sent_unsigned(keys: list[SigningKey]) -> None:
    with pytest.raises(ValueError, match="no key is active"):
        signed_headers(ID, BODY, keys, NOW_US)


def test_keys_are_written_and_read() -> None:
    for kind in SecretKind:
        key = new_key(kind, NOW_US)
        assert parse_key(key.text, NOW_US) == key
        assert len(key.secret) == 32
        assert new_key(kind, NOW_US) != key
    assert not shared().public_text


def test_a_key_shows_its_secret_to_nobody_who_prints_it() -> None:
    for key in (shared(), pair()):
        assert key.text not in f"{key!r} {key}"
        assert repr(key.secret) not in repr(key)


def test_a_pair_of_64_bytes_is_the_private_key_in_its_first_half() -> None:
    private = Ed25519PrivateKey.generate()
    both = private.private_bytes_raw() + private.public_key().public_bytes_raw()
    assert parse_key("whsk_" + base64.b64encode(both).decode(), 0).secret == private.private_bytes_raw()
    mixed = private.private_bytes_raw() + bytes(32)
    with pytest.raises(BackhaulError, match="not of one pair"):
        parse_key("whsk_" + base64.b64encode(mixed).decode(), 0)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_secrets_of_24_to_64_bytes_are_good(size: int) -> None:
    assert len(parse_key(encoded("whsec_", size), 0).secret) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with whsec_"),
        ("secret", "begins with whsec_"),
        ("WHSEC_" + "A" * 44, "begins with whsec_"),
        (shared().text.removeprefix("whsec_"), "begins with whsec_"),
        (pair().public_text, "begins with whsec_"),
        ("whsec_", "has 0 bytes"),
        (encoded("whsec_", 1), "has 1 bytes"),
        (encoded("whsec_", 23), "has 23 bytes"),
        (encoded("whsec_", 65), "has 65 bytes"),
        (encoded("whsec_", 32).rstrip("="), "no base64"),
        (encoded("whsec_", 32) + "=", "no base64"),
        (encoded("whsec_", 30) + "\n", "no base64"),
        ("whsec_" + "-_" * 16, "no base64"),
        ("whsec_" + "A" * 43 + "=", ""),
        ("whsec_" + "A" * 42 + "B=", "no base64"),
        ("whsec_ä" + "A" * 43, "no base64"),
        ("whsk_", "this has 0"),
        (encoded("whsk_", 31), "this has 31"),
        (encoded("whsk_", 63), "this has 63"),
    ],
)
def test_what_is_no_secret_is_refused_in_words(text: str, says: str) -> None:
    if not says:
        assert parse_key(text, 0).secret == bytes(32)
        return
    with pytest.raises(BackhaulError, match=says) as refused:
        parse_key(text, 0, field="definition.secret")
    assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "definition.secret")
    assert refused.value.fix


def test_a_rotation_leaves_the_one_before_its_grace_and_no_more() -> None:
    old, other = shared(b"a", 1), pair(b"b", 2)
    new = shared(b"c", NOW_US)
    keys = rotated([old, other], new, DAY_S, NOW_US)
    assert keys == (new, other, replace(old, expires_at_us=NOW_US + DAY_S * 1_000_000))
    assert active(keys, NOW_US + DAY_S * 1_000_000 - 1) == list(keys)
    assert active(keys, NOW_US + DAY_S * 1_000_000) == [new, other]


def test_a_second_rotation_prolongs_nobody() -> None:
    first = rotated([shared(b"a", 1)], shared(b"b", NOW_US), 60, NOW_US)
    later = NOW_US + 30_000_000
    second = rotated(first, shared(b"c", later), DAY_S, later)
    assert [(key.secret[:1], key.expires_at_us) for key in second] == [
        (b"c", 0),
        (b"b", later + DAY_S * 1_000_000),
        (b"a", NOW_US + 60_000_000),
    ]
    after = NOW_US + 61_000_000
    assert b"a" not in [key.secret[:1] for key in rotated(second, pair(b"d", after), 0, after)]


def test_without_a_grace_the_one_before_is_gone_at_once() -> None:
    assert rotated([shared(b"a", 1)], shared(b"b", NOW_US), 0, NOW_US) == (shared(b"b", NOW_US),)


@pytest.mark.parametrize("grace_s", [-1, MAX_GRACE_S + 1])
def test_a_grace_has_bounds(grace_s: int) -> None:
    with pytest.raises(BackhaulError, match="grace") as refused:
        rotated([shared()], shared(b"b"), grace_s, NOW_US)
    assert refused.value.field == "grace_s"


@settings(max_examples=50)
@given(st.binary(max_size=200), st.integers(0, 2**31), st.sampled_from([shared(), pair()]))
def test_a_signature_is_of_nothing_that_differs(body: bytes, at_s: int, key: SigningKey) -> None:
    def signed(id_: str, at: int, content: bytes) -> str:
        return signed_headers(id_, content, [key], at * 1_000_000)["webhook-signature"]

    made = signed(ID, at_s, body)
    assert signed(ID, at_s, body) == made
    assert made not in {signed(ID + "0", at_s, body), signed(ID, at_s + 1, body), signed(ID, at_s, body + b"\n")}
