"""What becomes of what fails: what waiting does not mend is not tried for ever, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import nats.errors
import pytest
from backhaul_channels import load_adapters
from backhaul_common import batches, logs
from backhaul_common.disposition import MAX_TRIES, Disposition, disposition
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.names import DEAD_LETTERS_COLLECTION
from backhaul_common.tenants import Tenant
from backhaul_normalizer import consumer as consumer_module
from backhaul_normalizer.committing import Portions, commit_all, publish_all
from backhaul_normalizer.model import Committed, Fact, Outgoing, Rejection
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.service import NormalizerUseCases
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_testing import make
from normalizer_rig import RigFactory
from pymongo.errors import AutoReconnect, DocumentTooLarge
from structlog.testing import capture_logs


class Directory:
    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant

    def get(self, tenant_id: str) -> Tenant | None:
        return self.tenant if tenant_id == self.tenant.id else None

    async def require(self, tenant_id: str) -> Tenant:
        assert tenant_id == self.tenant.id
        return self.tenant

    def listen(self, listener: Any) -> None: ...


@dataclass
class Store:
    """Refuses what holds ``poison``, and everything while ``closed`` is an error."""

    poison: bytes = b"poison"
    closed: Exception | None = None
    facts: list[Fact] = field(default_factory=list)
    filed: list[Rejection] = field(default_factory=list)
    commits: int = 0

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        self.commits += 1
        if self.closed is not None:
            raise self.closed
        if any(self.poison in fact.payload for fact in facts) or any(
            self.poison in one.callback or self.poison in one.reason.encode() for one in rejections
        ):
            raise DocumentTooLarge("refused")
        self.facts += facts
        self.filed += rejections
        return Committed(list(facts))

    async def takes_writes(self) -> None:
        if self.closed is not None:
            raise BackhaulError(Code.UNAVAILABLE, "MongoDB refuses every write.") from self.closed

    async def ping(self) -> None: ...


async def at_once(events: Sequence[Outgoing]) -> None:
    raise AssertionError("it is little enough to wait for the rest of its batch")


@dataclass
class Reading:
    normalizer: Normalizer
    tenant: Tenant

    def of(self, *sids: str) -> tuple[list[Fact], list[Rejection]]:
        """The facts of status callbacks, and the rejections of those whose sid begins with ``bad``."""
        facts: list[Fact] = []
        rejections: list[Rejection] = []
        for seq, sid in enumerate(sids):
            body = f"unreadable {sid}" if sid.startswith("bad") else make.twilio(sid, "sent")
            for one in self.normalizer.read(make.callback(self.tenant, body), seq, "path-acme"):
                (facts if isinstance(one, Fact) else rejections).append(one)  # type: ignore[arg-type]  # either list takes its own
        return facts, rejections

    def reject(self, fact: Fact, reason: str) -> list[Rejection]:
        callback = make.callback(self.tenant, make.twilio(fact.event.message_id, "sent"))
        return list(self.normalizer.reject(callback, [(0, callback.body, reason)], 7, "path-acme"))


@pytest.fixture
def reading() -> Reading:
    tenant = make.tenant("acme")
    return Reading(Normalizer(load_adapters(), Directory(tenant)), tenant)  # type: ignore[arg-type]  # what it uses of it


@pytest.mark.parametrize(
    "sids",
    [
        ["SMpoison"],
        ["badpoison"],
        ["SM1", "SM2", "SMpoison", "SM3", "bad1", "badpoison", "bad2"],
        ["SMpoison", "SMpoisontoo", "badpoison", "badpoisontoo"],
        [*(f"SM{n}" for n in range(40)), "SMpoison", *(f"bad{n}" for n in range(9)), "badpoison"],
    ],
)
async def test_what_the_store_refuses_is_set_aside_and_all_else_is_kept(reading: Reading, sids: list[str]) -> None:
    store = Store()
    facts, rejections = reading.of(*sids)
    with capture_logs() as lines:
        committed = await commit_all(store, facts, rejections, reading.reject, at_once, Portions())
    good = [fact for fact in facts if "poison" not in fact.event.message_id]
    assert {fact.id for fact in committed.new} == {fact.id for fact in good} == {fact.id for fact in store.facts}
    assert len(store.facts) == len(good)
    # Every bad one is filed, the poisonous ones without the bytes that the store refuses.
    poisonous = sum("poison" in sid for sid in sids)
    assert len(store.filed) == len(rejections) + len(facts) - len(good)
    bare = [one for one in store.filed if "could not be stored with its bytes" in one.reason]
    assert len(bare) == poisonous
    for one in bare:
        callback = Callback.FromString(one.callback)
        assert callback.id
        assert callback.tenant_id == "acme"
        assert not callback.body
    assert [line["event"] for line in lines].count("dead_letter_without_bytes") == poisonous


async def test_what_not_even_without_its_bytes_can_be_filed_is_said_and_left_out(reading: Reading) -> None:
    store = Store()
    facts, rejections = reading.of("SM1", "bad1")
    # The reason, which stays, is what the store refuses in this one.
    store.poison = b"with its bytes"
    real = store.commit

    async def commit(*parts: Any) -> Committed:
        if parts[1] and store.poison not in parts[1][0].reason.encode():
            raise DocumentTooLarge("its bytes")
        return await real(*parts)

    store.commit = commit  # type: ignore[method-assign, assignment]  # this store refuses both
    with capture_logs() as lines:
        committed = await commit_all(store, facts, rejections, reading.reject, at_once, Portions())
    assert len(committed.new) == 1
    (line,) = [line for line in lines if line["event"] == "dead_letter_not_stored"]
    assert (line["tenant"], line["stream_seq"], line["log_level"]) == ("acme", 1, "error")


async def test_a_store_that_refuses_everything_makes_no_dead_letters_and_is_waited_for(reading: Reading) -> None:
    store = Store(closed=DocumentTooLarge("as if it refused all"))
    facts, rejections = reading.of(*(f"SM{n}" for n in range(100)), "bad1")
    with pytest.raises(BackhaulError) as caught:
        await commit_all(store, facts, rejections, reading.reject, at_once, Portions())
    assert disposition(caught.value) is Disposition.AWAY
    assert store.commits == 1
    store.closed = AutoReconnect("gone")
    with pytest.raises(AutoReconnect):
        await commit_all(store, facts, rejections, reading.reject, at_once, Portions())
    assert not store.filed


@pytest.mark.parametrize(("events", "refused"), [(100, False), (5000, True)])
def test_a_long_query_is_not_kept_with_each_of_very_many_events(reading: Reading, events: int, refused: bool) -> None:
    body = make.sendgrid(*({"event": "open", "timestamp": number} for number in range(1, events + 1)))
    query = "&".join(f"a{number}" for number in range(1500))
    callback = make.callback(reading.tenant, body, channel="sendgrid", query=query)
    found = list(reading.normalizer.read(callback, 1, "path-acme"))
    if refused:
        (letter,) = found
        assert isinstance(letter, Rejection)
        assert "URL" in letter.reason
        assert Callback.FromString(letter.callback).body == body.encode()
    else:
        assert [type(one) for one in found] == [Fact] * events


async def test_an_event_that_cannot_be_published_does_not_keep_the_others() -> None:
    published: dict[str, bool] = {}

    class Publisher:
        async def publish(self, events: Sequence[Outgoing], traceparent: str, *, again: bool = False) -> None:
            if any(event.id == "huge" for event in events):
                raise nats.errors.MaxPayloadError
            published.update((event.id, again) for event in events)

    events = [Outgoing(name, 1, "path-acme", "twilio", "sent", b"", "acme.1") for name in ("1", "2", "huge", "3")]
    with capture_logs() as lines:
        await publish_all(Publisher(), events, "")
    # Some of them may have been stored before the one was refused.
    assert published == {"1": True, "2": True, "3": True}
    assert [(line["event"], line["log_level"]) for line in lines] == [("event_not_published", "error")]

    class Away:
        async def publish(self, events: Sequence[Outgoing], traceparent: str, *, again: bool = False) -> None:
            raise unavailable("JetStream")

    with pytest.raises(BackhaulError):
        await publish_all(Away(), events, "")


async def test_a_message_that_always_fails_is_given_up_and_takes_no_other_along(
    rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in what comes after reading, met by one callback."""
    monkeypatch.setattr(batches, "pause_s", lambda _: 0.05)
    monkeypatch.setattr(logs, "configure", lambda *_, **__: None)  # It would end the capturing of lines.
    real = publish_all

    async def defective(publisher: Any, events: Sequence[Outgoing], traceparent: str, *, again: bool = False) -> None:
        if any(b"SMbug" in event.payload for event in events):
            raise AttributeError("a defect")
        await real(publisher, events, traceparent, again=again)

    monkeypatch.setattr(consumer_module, "publish_all", defective)
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        for sid in ("SM1", "SMbug", "SM2"):
            await rig.publish(acme, make.callback(acme, make.twilio(sid, "sent")))
        with capture_logs() as lines:
            async with rig.another():
                await rig.drained()
        assert sorted(event.message_id for event in await rig.published()) == ["SM1", "SM2"]
        (letter,) = await rig.rows(DEAD_LETTERS_COLLECTION)
        assert letter["reason"] == "It could not be processed: AttributeError."
        assert Callback.FromString(letter["callback"]).body.decode() == make.twilio("SMbug", "sent")
    given_up = [line for line in lines if line["event"] == "message_given_up"]
    assert [(line["stream_seq"], line["tries"], line["path"], line["filed"]) for line in given_up] == [
        (2, MAX_TRIES, acme.queue_path, True)
    ]
    assert len([line for line in lines if line["event"] == "batch_failed"]) == MAX_TRIES


async def test_what_has_no_bytes_cannot_be_replayed() -> None:
    tenant = make.tenant("acme")

    class Letters:
        async def dead_letter(self, registration: str, dead_letter_id: str) -> Any:
            return {"_id": dead_letter_id, "state": "open", "callback": Callback(id="c").SerializeToString()}

    use_cases = NormalizerUseCases(Directory(tenant), Letters(), None, {}, None)  # type: ignore[arg-type]  # nothing else is asked
    with pytest.raises(BackhaulError, match="could not be kept") as caught:
        await use_cases.replay("acme", "d1")
    assert caught.value.code is Code.FAILED_PRECONDITION
