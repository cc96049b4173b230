"""Access tokens: who gets one, and which prove anything."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from typing import Any
from urllib.parse import urlencode

import pytest
from backhaul_channels import Answer, RawCallback
from backhaul_channels.engines.oauth import (
    GRACE_S,
    LIFETIME_S,
    MAX_PARAMETERS,
    MAX_TOKEN_BYTES,
    ClientSecret,
    TokenVerifier,
    token_answer,
)
from conformance_cases import ADAPTERS
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

ONE = ClientSecret(client_id="sendgrid", client_secret="a+b%2F/c==d&e f=".replace(" ", "-"))
OTHER = ClientSecret(client_id="other", client_secret="0123456789abcdef")
URL = "https://callbacks.example.com/in/t/oauth/token"
NOW_S = 1_790_000_000
CHANNEL = "0123/sendgrid"
FORM = b"application/x-www-form-urlencoded"


def basic(client_id: str, secret: str) -> bytes:
    return b"Basic " + b64encode(f"{client_id}:{secret}".encode())


def asked(
    body: bytes | dict[str, str] | None = None,
    authorization: bytes | None = None,
    *,
    content_type: bytes = FORM,
    now_s: float = NOW_S,
    audience: str = CHANNEL,
    clients: tuple[ClientSecret, ...] = (OTHER, ONE),
) -> Answer:
    fields = {"grant_type": "client_credentials"} if body is None else body
    raw = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    headers = [(b"content-type", content_type)]
    if authorization is not None:
        headers.append((b"authorization", authorization))
    return token_answer(RawCallback("POST", URL, headers, raw, int(now_s * 1_000_000), audience), clients)


def issued(**how: Any) -> bytes:
    answer = asked(None, basic(ONE.client_id, ONE.client_secret), **how)
    assert answer.status == 200
    return json.loads(answer.body)["access_token"].encode()  # type: ignore[no-any-return]  # a text of JSON.


def shown(authorization: bytes | None, *, now_s: float = NOW_S, audience: str = CHANNEL) -> RawCallback:
    headers = [] if authorization is None else [(b"authorization", authorization)]
    return RawCallback("POST", "https://callbacks.example.com/", headers, b"[]", int(now_s * 1_000_000), audience)


def judged(authorization: bytes | None, *clients: ClientSecret, **when: Any) -> str | None:
    refusal = TokenVerifier(clients or (ONE,)).verify(shown(authorization, **when))
    return refusal.code if refusal else None


def error_of(answer: Answer) -> tuple[int, str]:
    content = json.loads(answer.body)
    assert answer.content_type == "application/json"
    assert content["error_description"].isascii()
    assert not any(one.client_secret in answer.body.decode() for one in (ONE, OTHER))
    return answer.status, content["error"]


GRANT = {"grant_type": "client_credentials"}
IN_FORM = {"client_id": ONE.client_id, "client_secret": ONE.client_secret}
ENCODED = basic("sendgrid", "a%2Bb%252F%2Fc%3D%3Dd%26e-f%3D")


@pytest.mark.parametrize(
    ("body", "authorization", "content_type"),
    [
        (GRANT, basic(ONE.client_id, ONE.client_secret), FORM),
        (GRANT, ENCODED, FORM),
        (GRANT, ENCODED.replace(b"Basic", b"bASIC "), FORM),
        ({**GRANT, **IN_FORM}, None, FORM),
        ({**GRANT, **IN_FORM, "scope": "events"}, None, FORM + b"; charset=utf-8"),
        ({**GRANT, **IN_FORM}, ENCODED, FORM),
        ({**GRANT, **IN_FORM}, b"Bearer a-proxys", FORM),
        (json.dumps({**GRANT, **IN_FORM, "n": 1}).encode(), None, b"application/json"),
    ],
)
def test_the_right_client_gets_a_token(body: Any, authorization: bytes | None, content_type: bytes) -> None:
    answer = asked(body, authorization, content_type=content_type)
    assert answer.status == 200
    content = json.loads(answer.body)
    token = content.pop("access_token")
    assert content == {"token_type": "Bearer", "expires_in": LIFETIME_S}
    assert judged(f"Bearer {token}".encode()) is None
    assert judged(f"bearer   {token} ".encode(), OTHER, ONE) is None
    # Anybody may read what it says, and nothing of the secret is in it.
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims == {"aud": CHANNEL, "sub": "sendgrid", "iat": NOW_S, "exp": NOW_S + LIFETIME_S + GRACE_S}


@pytest.mark.parametrize(
    ("body", "authorization", "expected"),
    [
        (GRANT, None, (401, "invalid_client")),
        (GRANT, b"Basic", (401, "invalid_client")),
        (GRANT, b"Basic !", (401, "invalid_client")),
        (GRANT, b"Basic " + b64encode(b"\xff:\xff"), (401, "invalid_client")),
        (GRANT, b"Bearer x", (401, "invalid_client")),
        (GRANT, basic("sendgrid", "wrong"), (401, "invalid_client")),
        (GRANT, basic("sendgrid", OTHER.client_secret), (401, "invalid_client")),
        (GRANT, basic("", ONE.client_secret), (401, "invalid_client")),
        ({**GRANT, "client_id": "sendgrid"}, None, (401, "invalid_client")),
        ({**GRANT, **IN_FORM, "client_secret": "wrong"}, None, (401, "invalid_client")),
        # Whatever is shown must be right.
        ({**GRANT, **IN_FORM}, basic("sendgrid", "wrong"), (401, "invalid_client")),
        ({**GRANT, **IN_FORM, "client_secret": "wrong"}, ENCODED, (401, "invalid_client")),
        ({**GRANT, **IN_FORM}, basic(OTHER.client_id, OTHER.client_secret), (401, "invalid_client")),
        (IN_FORM, None, (400, "invalid_request")),
        ({**IN_FORM, "grant_type": "password"}, None, (400, "unsupported_grant_type")),
        (b"grant_type=client_credentials&grant_type=client_credentials", ENCODED, (400, "invalid_request")),
        (b"a=1&" * MAX_PARAMETERS + b"grant_type=client_credentials", ENCODED, (400, "invalid_request")),
        (b"grant_type=\xff", ENCODED, (400, "invalid_request")),
        (b"grant_type=%ff", ENCODED, (400, "invalid_request")),
    ],
)
def test_nobody_else_does(body: Any, authorization: bytes | None, expected: tuple[int, str]) -> None:
    assert error_of(asked(body, authorization)) == expected


def test_no_json_is_no_request() -> None:
    for body in (b"", b"[]", b"{", b"[" * 5000, b'{"a":' * 5000):
        assert error_of(asked(body, ENCODED, content_type=b"application/json")) == (400, "invalid_request")


def test_a_token_is_good_for_its_channel_and_its_secret_alone() -> None:
    token = b"Bearer " + issued()
    assert judged(token) is None
    assert judged(token, OTHER) == "token_invalid"
    assert judged(token, audience="0123/sendgrid-2") == "token_invalid"
    assert judged(token, audience="4567/sendgrid") == "token_invalid"
    assert judged(token, audience="") == "token_invalid"
    # The same id with another secret, and the same secret under another id.
    assert judged(token, ClientSecret(client_id="sendgrid", client_secret="f" * 16)) == "token_invalid"
    assert judged(token, ClientSecret(client_id="sendgrid2", client_secret=ONE.client_secret)) == "token_invalid"
    assert judged(None) == "token_missing"
    assert judged(basic(ONE.client_id, ONE.client_secret)) == "token_missing"
    assert judged(b"Bearer") == "token_invalid"


LAST_S = LIFETIME_S + GRACE_S


@pytest.mark.parametrize(
    ("after_s", "code"),
    [
        (0, None),
        (LAST_S - 0.000001, None),
        (LAST_S, "token_expired"),
        (10 * LAST_S, "token_expired"),
        (-GRACE_S, None),
        (-GRACE_S - 0.000001, "token_invalid"),
        # A request that says nothing of its arrival.
        (-NOW_S, "token_invalid"),
    ],
)
def test_a_token_lasts_as_long_as_it_says(after_s: float, code: str | None) -> None:
    token = b"Bearer " + issued()
    assert judged(token, now_s=NOW_S + after_s) == code


@given(st.data())
def test_a_token_that_was_touched_proves_nothing(data: st.DataObject) -> None:
    token = issued()
    at = data.draw(st.integers(0, len(token) - 1))
    put = data.draw(st.binary(max_size=3))
    touched = token[:at] + put + token[at + data.draw(st.integers(0, 3)) :]
    assert judged(b"Bearer " + touched) == (None if touched.strip() == token else "token_invalid")


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda rest: b"Bearer " + issued()[:37] + rest))
def test_whatever_is_shown_it_does_not_raise(authorization: bytes) -> None:
    assert judged(authorization) in ("token_missing", "token_invalid")
    assert judged(b"Bearer " + authorization) == "token_invalid"


def jwt(payload: bytes) -> bytes:
    """As RFC 7515 makes it."""
    parts = (b'{"alg":"HS256","typ":"JWT"}', payload)
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return signed + b"." + urlsafe_b64encode(hmac.digest(ONE.signing_key(), signed, "sha256")).rstrip(b"=")


PAYLOADS = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["aud", "sub", "iat", "exp", "x"]), inner, max_size=5)
    ),
).map(lambda value: json.dumps(value).encode())


@given(PAYLOADS)
def test_what_the_keys_owner_signs_may_be_anything(payload: bytes) -> None:
    """Whoever has the secret can make tokens without us. Most are none, and none raises."""
    assert judged(b"Bearer " + jwt(payload)) in (None, "token_invalid", "token_expired")


def test_a_token_is_a_jwt_of_the_derived_key() -> None:
    payload = urlsafe_b64decode(issued().split(b".")[1] + b"==")
    assert issued() == jwt(payload)


def test_a_token_that_is_too_long_is_not_looked_at() -> None:
    assert len(issued(audience="x" * 300)) < MAX_TOKEN_BYTES
    token = issued(audience="x" * 2 * MAX_TOKEN_BYTES)
    assert judged(b"Bearer " + token, audience="x" * 2 * MAX_TOKEN_BYTES) == "token_invalid"


@pytest.mark.parametrize(
    "parts",
    [
        {"client_id": "a:b", "client_secret": "0" * 16},
        {"client_id": "", "client_secret": "0" * 16},
        {"client_id": "a", "client_secret": "s3cret"},
        {"client_id": "a", "client_secret": "s3cret with a blank"},
        {"client_id": "a", "client_secret": "s3cret" * 200},
        {"client_id": "a"},
        {"client_id": "a", "client_secret": "0" * 16, "s3cret": "x"},
    ],
)
def test_a_secret_that_cannot_be_sent_or_be_guessed_is_none(parts: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        ClientSecret.model_validate(parts)
    assert "s3cret" not in str(refused.value).replace("\ns3cret\n", "")


ISSUING = [one for one in ADAPTERS.values() if one.secret_model is ClientSecret]
HEADERS = st.lists(
    st.tuples(st.sampled_from([b"authorization", b"content-type", b"x"]), st.binary(max_size=60)), max_size=4
)


@pytest.mark.parametrize("adapter", ISSUING, ids=[one.provider for one in ISSUING])
@given(headers=HEADERS, body=st.binary(max_size=200), url=st.text(max_size=20))
def test_no_request_for_a_token_raises(adapter: Any, headers: list[tuple[bytes, bytes]], body: bytes, url: str) -> None:
    secrets = ["", ONE.model_dump_json()]
    answer = adapter.issue_token(RawCallback("POST", url, headers, body), secrets, adapter.settings_model())
    assert error_of(answer)[0] in (400, 401)
    assert adapter.issue_token(RawCallback("POST", url, headers, body), ["x"], adapter.settings_model()) is None
