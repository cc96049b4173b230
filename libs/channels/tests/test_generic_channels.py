"""The channels of docs/generic-channels.md, as a reader would copy them, take what their providers post."""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backhaul_channels import Context, NormalizedEvent, RawCallback, load_adapters
from backhaul_channels.reading import read_part

PAGE = Path(__file__).parents[3] / "docs" / "generic-channels.md"
# A channel, a payload, and what this becomes.
_CHANNEL = re.compile(
    r"^## ([^:\n]+): .*?<<'END'\n(.*?)^END$.*?^```json\n(.*?)^```$.*?^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
CHANNELS = {name: [json.loads(text) for text in texts] for name, *texts in _CHANNEL.findall(PAGE.read_text("utf-8"))}
BODIES = {name: texts[1].encode() for name, *texts in _CHANNEL.findall(PAGE.read_text("utf-8"))}
AT_S = 1_795_658_401
GENERIC = load_adapters()["generic"]


def as_customer_io(secret: str, body: bytes, at_s: int) -> list[tuple[bytes, bytes]]:
    """https://docs.customer.io/journeys/webhooks-action/#securely-verify-requests"""
    digest = hmac.digest(secret.encode(), b"v0:%d:%b" % (at_s, body), "sha256")
    return [(b"x-cio-timestamp", b"%d" % at_s), (b"x-cio-signature", digest.hex().encode())]


def as_resend(secret: str, body: bytes, at_s: int) -> list[tuple[bytes, bytes]]:
    """https://resend.com/docs/webhooks/verify-webhooks-requests"""
    key = base64.b64decode(secret.partition("_")[2])
    signature = base64.b64encode(hmac.digest(key, b"msg_1.%d.%b" % (at_s, body), "sha256"))
    return [(b"svix-id", b"msg_1"), (b"svix-timestamp", b"%d" % at_s), (b"svix-signature", b"v1," + signature)]


Signs = Callable[[str, bytes, int], list[tuple[bytes, bytes]]]


def test_the_page_has_the_channels_that_are_tried_here() -> None:
    assert [*CHANNELS] == ["Customer.io", "Resend"]


@pytest.mark.parametrize(("name", "signs"), [("Customer.io", as_customer_io), ("Resend", as_resend)])
def test_a_channel_of_the_page_verifies_and_reads_its_providers_payload(name: str, signs: Signs) -> None:
    channel, _, expected = CHANNELS[name]
    body = BODIES[name]
    assert channel["provider"] == GENERIC.provider
    settings = GENERIC.settings_model.model_validate(channel["settings"])
    verifier = GENERIC.verifier(channel["secrets"], settings)

    def judged(headers: list[tuple[bytes, bytes]], arrived_s: int = AT_S) -> str | None:
        refusal = verifier.verify(RawCallback("POST", "https://x/", headers, body, arrived_s * 1_000_000))
        return refusal.code if refusal else None

    headers = signs(channel["secrets"][0], body, AT_S)
    assert judged(headers) is None
    assert judged(headers, AT_S + 700_000) == judged(headers, AT_S - 700_000) == "timestamp_outside"
    assert judged(headers[:-1]) == "signature_missing"
    assert judged(signs(channel["secrets"][0], body + b" ", AT_S)) == "signature_invalid"

    (part,) = GENERIC.split(RawCallback("POST", "", [], body), settings)
    event = read_part(GENERIC, part, Context(settings, received_at_us=AT_S * 1_000_000))
    assert isinstance(event, NormalizedEvent)
    told: dict[str, Any] = json.loads(msgspec.json.encode(event))
    default = json.loads(msgspec.json.encode(NormalizedEvent(event.kind, "", "")))
    assert {field: value for field, value in told.items() if value != default[field] or field == "kind"} == expected


def test_the_page_names_every_setting_and_field() -> None:
    text = PAGE.read_text("utf-8")
    own = {*GENERIC.settings_model.model_fields} - {"parameters", "processing"}
    mapping = GENERIC.settings_model().model_dump()["mapping"]
    assert [name for name in (*own, *mapping) if f"`{name}`" not in text] == []
