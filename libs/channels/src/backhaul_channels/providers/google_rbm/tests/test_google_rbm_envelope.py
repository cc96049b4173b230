"""What is signed is what is read, whatever stands around it; and no envelope costs more than its length."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from contextlib import suppress
from hmac import digest
from typing import Any

import pytest
from backhaul_channels import MalformedError, NormalizedEvent, RawCallback
from backhaul_channels.adapter import Context
from backhaul_channels.providers.google_rbm import ADAPTER
from backhaul_channels.providers.google_rbm.envelope import signed_bytes
from backhaul_channels.settings import ConversationSettings
from hypothesis import given
from hypothesis import strategies as st

TOKEN = "SJENCPGJESMGUFPY"
SETTINGS = ConversationSettings()
EVENT = b'{"senderPhoneNumber": "+15005550013", "eventType": "READ", "eventId": "E1", "messageId": "M1"}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def callback(body: bytes, signed: bytes) -> RawCallback:
    signature = b64encode(digest(TOKEN.encode(), signed, "sha512"))
    return RawCallback("POST", "https://callbacks.example.com/", [(b"x-goog-signature", signature)], body)


def accepted(body: bytes, signed: bytes) -> bool:
    return ADAPTER.verifier([TOKEN], SETTINGS).verify(callback(body, signed)) is None


def around(data: Any, **others: Any) -> bytes:
    return json.dumps({**others, "message": {**others, "data": data}}).encode()


@given(data=st.binary(), others=st.dictionaries(st.sampled_from(["attributes", "messageId", "x"]), json_values))
def test_any_bytes_come_out_of_an_envelope_as_they_went_in(data: bytes, others: dict[str, Any]) -> None:
    body = around(b64encode(data).decode(), **others)
    assert signed_bytes(body) == data
    assert accepted(body, data)
    assert not accepted(body, data + b" ")


@given(
    body=st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | json_values.map(around)
    | st.text(max_size=40).map(around)
    | st.lists(
        st.sampled_from([b'"data":"e30="', b'"data":{}', b'"data":7', b'"a":[{}]', b'"message":1']), max_size=4
    ).map(lambda fields: b'{"message":{' + b",".join(fields) + b"}}")
)
def test_what_is_accepted_is_what_is_read(body: bytes) -> None:
    """Whoever splits a body reads the very bytes that were signed, and no others of the same body."""
    try:
        signed = signed_bytes(body)
    except MalformedError:
        assert not accepted(body, b"")
        return
    assert accepted(body, signed)
    with suppress(MalformedError):
        for part in ADAPTER.split(callback(body, signed), SETTINGS):
            assert part in signed


@pytest.mark.parametrize(
    "body",
    [
        b'{"message":' * 100_000,
        b'{"message":{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"message":{"attributes":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"message":{"data":"' + b64encode(b"[" * 100_000) + b'"}}',
        b'{"message":{"data":"' + b64encode(b'{"eventType":' * 100_000) + b'"}}',
        b'{"message":{"data":"' + b64encode(b64encode(EVENT * 10_000)) + b'"}}',
    ],
    ids=["messages", "data", "attributes", "bare", "array inside", "objects inside", "base64 inside"],
)
def test_depth_ends_in_a_dead_letter_or_a_refusal(body: bytes) -> None:
    assert not accepted(body, b"")
    try:
        parts = ADAPTER.split(callback(body, b""), SETTINGS)
    except MalformedError:
        return
    for part in parts:
        with pytest.raises(MalformedError):
            ADAPTER.normalize(part, Context(SETTINGS))


@pytest.mark.slow
def test_a_body_costs_what_its_length_does() -> None:
    def seconds(size: int) -> float:
        body = around(b64encode(b" " * size + EVENT).decode(), attributes={"a": "x" * size, "b": [[1]] * (size // 8)})
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            (part,) = ADAPTER.split(callback(body, b""), SETTINGS)
            assert isinstance(ADAPTER.normalize(part, Context(SETTINGS)), NormalizedEvent)
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds(800_000) < 40 * seconds(100_000)
