"""What a preview tells is what comes of the callback, and nothing comes of the preview."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from backhaul_channels import Ignored, load_adapters
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import DEAD_LETTERS_COLLECTION, EVENTS_COLLECTION, MESSAGES_COLLECTION, TENANTS_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_normalizer import preview
from backhaul_normalizer.normalize import MAX_REJECTED, Normalizer
from backhaul_normalizer.preview import MAX_PREVIEWED, Previews
from backhaul_proto.callback.v1.callback_pb2 import VERIFICATION_OBSERVED_INVALID, Callback
from backhaul_proto.event.v1.event_pb2 import TIME_BASIS_ARRIVAL, Event
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig


def mail(number: int, event: str = "delivered", **more: Any) -> dict[str, Any]:
    return {
        "event": event,
        "email": f"{number}@example.com",
        "timestamp": 1_760_000_000 + number,
        "sg_event_id": f"event-{number}",
        "sg_message_id": f"mail{number}.recvd-1",
        **more,
    }


UNREADABLE = {"event": "delivered"}
"""It names neither a mail nor a person."""


async def previewed(rig: Rig, callback: Callback, channel: str = "") -> pb.PreviewCallbackResponse:
    request = pb.PreviewCallbackRequest(
        tenant_id="acme", channel=channel or callback.channel, callback=Callback(
            method=callback.method,
            url=callback.url,
            headers=callback.headers,
            body=callback.body,
            received_at_us=callback.received_at_us,
            verification=callback.verification,
        ),
    )  # fmt: skip
    answer = await rig.stub.PreviewCallback(request)
    assert isinstance(answer, pb.PreviewCallbackResponse)
    return answer


def lasting(event: Event) -> Event:
    """``event`` without what each request has of its own."""
    kept = Event()
    kept.CopyFrom(event)
    for field in ("callback_id", "traceparent", "received_at_us"):
        kept.ClearField(field)
    if kept.occurred_at_basis == TIME_BASIS_ARRIVAL:
        kept.ClearField("occurred_at_us")
    return kept


CALLBACKS = [
    ("twilio", make.twilio("SM1", "delivered", To="whatsapp:+15005550009"), "communicationId=spring&category=x"),
    ("twilio", make.twilio("SM2", "failed", ErrorCode="30006"), "campaign=a&campaign=b"),
    ("twilio", make.twilio("SM3", "a word of tomorrow"), ""),
    ("twilio", make.twilio("SM4", "received", SmsStatus="received", Body="STOP", OptOutType="STOP"), ""),
    ("sendgrid", make.sendgrid(mail(1), mail(2, "bounce", status="5.1.1", reason="no such user"), mail(3, "open")), ""),
    ("sendgrid", make.sendgrid(mail(4), UNREADABLE, mail(5, "unsubscribe")), "communicationId=spring"),
    ("sendgrid", "not json at all", ""),
]


async def test_what_is_previewed_is_what_comes_of_it(rig: Rig) -> None:
    acme = make.tenant("acme", sendgrid={"communication_keys": ["communicationId"]})
    await rig.register(acme)
    callbacks = [
        make.callback(acme, body, channel=channel, query=query, verification=VERIFICATION_OBSERVED_INVALID)
        for channel, body, query in CALLBACKS
    ]
    answers = [await previewed(rig, callback) for callback in callbacks]
    assert not any(answer.truncated for answer in answers)
    for collection in (EVENTS_COLLECTION, MESSAGES_COLLECTION, DEAD_LETTERS_COLLECTION):
        assert await rig.rows(collection) == []
    assert await rig.published() == []

    for callback in callbacks:
        await rig.publish(acme, callback)
    await rig.drained()
    parts = [part for answer in answers for part in answer.parts]
    shown = {part.event.id: lasting(part.event) for part in parts if part.HasField("event")}
    events = (await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme"))).events
    assert shown == {event.id: lasting(event) for event in events}
    assert len(shown) == 9
    letters = (await rig.stub.ListDeadLetters(pb.ListDeadLettersRequest(tenant_id="acme"))).dead_letters
    assert sorted(one.reason for one in letters) == sorted(part.dead_letter for part in parts if part.dead_letter)
    assert len(letters) == 2


async def test_parts_stand_in_the_order_of_the_body(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)

    def words(answer: pb.PreviewCallbackResponse) -> list[str]:
        return [part.event.message_id[:5] or str(part.WhichOneof("outcome")) for part in answer.parts]

    few = [UNREADABLE, mail(1), {}, UNREADABLE, mail(2), mail(3), UNREADABLE]
    answer = await previewed(rig, make.callback(acme, make.sendgrid(*few), channel="sendgrid"))
    letter = "dead_letter"
    assert words(answer) == [letter, "mail1", letter, letter, "mail2", "mail3", letter]
    # What would be one dead letter for them all comes first.
    many = [mail(1), *([UNREADABLE] * (MAX_REJECTED + 1))]
    answer = await previewed(rig, make.callback(acme, make.sendgrid(*many), channel="sendgrid"))
    assert words(answer) == [letter, "mail1"]


async def test_no_more_than_a_thousand_parts_and_a_page_of_bytes_are_told(rig: Rig) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    exact = [mail(n) for n in range(MAX_PREVIEWED)]
    for events, truncated in ((exact, False), ([*exact, mail(-1)], True), ([*exact, UNREADABLE], True)):
        answer = await previewed(rig, make.callback(acme, make.sendgrid(*events), channel="sendgrid"))
        assert ([part.event.message_id[4:-8] for part in answer.parts], answer.truncated) == (
            [str(n) for n in range(MAX_PREVIEWED)],
            truncated,
        )
    large = [mail(n, custom="x" * 300_000) for n in range(20)]
    answer = await previewed(rig, make.callback(acme, make.sendgrid(*large), channel="sendgrid"))
    assert answer.truncated
    assert 5 < len(answer.parts) < 15
    assert answer.ByteSize() < 5 << 20


async def test_a_channel_is_the_tenants_own_and_may_be_a_moment_old(rig: Rig) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    body = make.callback(globex, make.twilio("SM1", "sent"))
    (part,) = (await previewed(rig, body)).parts
    assert (part.event.tenant_id, part.event.registration) == ("acme", "acme.1")
    with pytest.raises(BackhaulError) as missing:
        await previewed(rig, body, "third")
    assert (missing.value.code, missing.value.field) == (Code.NOT_FOUND, "channel")
    # Stored, and nobody has said so.
    third = acme.channels["twilio"].model_copy(update={"key": "third", "label": "Third"})
    changed = acme.model_copy(update={"channels": {**acme.channels, "third": third}})
    await rig.database[TENANTS_COLLECTION].replace_one({"_id": "acme"}, changed.to_document())
    (part,) = (await previewed(rig, body, "Third")).parts
    assert (part.event.channel, part.event.provider) == ("third", "twilio")


class _Directory:
    def __init__(self, *tenants: Tenant) -> None:
        self._tenants = {tenant.id: tenant for tenant in tenants}

    def get(self, tenant_id: str) -> Tenant:
        return self._tenants[tenant_id]

    async def require(self, tenant_id: str) -> Tenant:
        return self._tenants[tenant_id]

    def listen(self, _: Any) -> None:
        pass


async def test_a_large_callback_leaves_the_loop_to_others_and_tenants_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preview, "MAX_PREVIEW_S", 60)  # However busy the machine is.
    tenants = {name: make.tenant(name) for name in ("acme", "globex")}
    directory: Any = _Directory(*tenants.values())
    previews = Previews(directory, Normalizer(load_adapters(), directory))
    large = Callback(body=json.dumps([mail(n) for n in range(3000)]).encode())
    looks, order = 0, []

    async def look_around() -> None:
        nonlocal looks
        while True:
            await asyncio.sleep(0)
            looks += 1

    async def preview_of(tenant_id: str) -> None:
        assert await previews.of(tenant_id, "sendgrid", large)
        order.append((tenant_id, looks))

    looking = asyncio.create_task(look_around())
    await asyncio.gather(*(preview_of(tenant_id) for tenant_id in ("acme", "acme", "acme", "globex")))
    looking.cancel()
    assert [tenant_id for tenant_id, _ in order] == ["acme", "acme", "globex", "acme"]
    # Some hundredths of a second of work, in turns of five thousandths.
    assert order[0][1] >= 5


async def test_others_have_the_loop_for_as_long_as_parts_that_nothing_interrupts() -> None:
    class Slow:
        def read(self, *_: Any) -> Iterator[Ignored]:
            until_s = time.perf_counter() + 0.05
            while time.perf_counter() < until_s:
                pass
            yield Ignored("typing")

    directory: Any = _Directory(make.tenant("acme"))
    slow: Any = Slow()
    previews, looks = Previews(directory, slow), 0

    async def look_around() -> None:
        nonlocal looks
        while True:
            await asyncio.sleep(0.001)
            looks += 1

    looking = asyncio.create_task(look_around())
    await asyncio.gather(*(previews.of("acme", "sendgrid", Callback()) for _ in range(6)))
    looking.cancel()
    # A batch of the consumer's, which commits, publishes and acknowledges, needs the loop some twenty times.
    assert looks >= 6 * 10


@pytest.mark.timed
async def test_one_that_takes_too_long_ends_and_one_that_nobody_waits_for_any_more_leaves_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acme = make.tenant("acme")
    directory: Any = _Directory(acme)
    previews = Previews(directory, Normalizer(load_adapters(), directory))
    large = Callback(body=json.dumps([mail(n) for n in range(5000)]).encode())
    small = Callback(body=json.dumps([mail(1)]).encode())
    monkeypatch.setattr(preview, "MAX_PREVIEW_S", 0.03)
    with pytest.raises(BackhaulError) as slow:
        await previews.of("acme", "sendgrid", large)
    assert (slow.value.code, slow.value.field) == (Code.DEADLINE_EXCEEDED, "body")
    monkeypatch.setattr(preview, "MAX_PREVIEW_S", 20)
    gone = asyncio.create_task(previews.of("acme", "sendgrid", large))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    began = time.monotonic()
    parts, more = await previews.of("acme", "sendgrid", small)
    assert (len(parts), more) == (1, False)
    assert time.monotonic() - began < 10
