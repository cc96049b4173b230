"""How often error codes are reported: exact, and read from an index alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest
from backhaul_channels import Adapter, ErrorClass, ErrorMeaning, EventKind
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import derived_id
from backhaul_common.names import ENTRIES_COLLECTION
from backhaul_normalizer import reads
from backhaul_normalizer.buckets import ref_of
from backhaul_normalizer.entries import entry
from backhaul_normalizer.service import NormalizerUseCases
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.event.v1 import event_pb2
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from normalizer_rig import Rig, RigFactory
from tellings import batch_of, told

HOUR_US = 3_600_000_000


def failed(number: int, code: str, *, of: str = "acme.1", channel: str = "twilio", at: int = 0) -> Document:
    """The entry of an event with an error code."""
    at_us = at or 1_000 + number
    fact = told(key=str(number), kind=EventKind.FAILED, error_code=code, channel=channel, arrived=at_us)
    fact.origin.registration = of
    ref = ref_of(fact, bytes(12), 0)._replace(id=bytes.fromhex(derived_id(of, str(number))))
    return entry(fact, "", ref, alone=False)


async def insert(rig: Rig, entries: Iterable[Document]) -> None:
    await rig.database[ENTRIES_COLLECTION].insert_many(list(entries))


async def counted(rig: Rig, **asked: Any) -> list[tuple[str, str, int, int]]:
    answer = await rig.stub.CountErrors(pb.CountErrorsRequest(tenant_id="acme", **asked))
    return [(one.channel, one.error_code, one.count, one.last_received_at_us) for one in answer.errors]


async def test_each_event_counts_once_for_its_channel_and_code(rig: Rig) -> None:
    acme, globex = make.tenant("acme"), make.tenant("globex")
    await rig.register(acme, globex)
    for tenant in (acme, globex):
        for number in range(3):
            callback = make.callback(tenant, make.twilio(f"SM{number}", "failed", ErrorCode="30006"))
            # Told twice, it has happened once.
            await rig.publish(tenant, callback, callback)
    await rig.publish(acme, make.callback(acme, make.twilio("SM9", "undelivered", ErrorCode="30003")))
    await rig.publish(acme, make.callback(acme, make.twilio("SM8", "delivered")))
    await rig.drained()
    answer = await rig.stub.CountErrors(pb.CountErrorsRequest(tenant_id="acme"))
    assert [(one.channel, one.provider, one.error_code, one.count) for one in answer.errors] == [
        ("twilio", "twilio", "30006", 3),
        ("twilio", "twilio", "30003", 1),
    ]
    (newest,) = (await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme", error_code="30003"))).events
    assert answer.errors[1].last_received_at_us == newest.received_at_us


async def test_what_only_tells_another_event_once_more_is_not_counted(rig: Rig) -> None:
    await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
    bounced: dict[str, Any] = {"kind": EventKind.BOUNCED, "error_code": "511"}
    facts = [told(key="1", name="M1", aliases=["A1"], arrived=1_001, **bounced)]
    # Under another name of the message it happened once more, later.
    facts.append(told(key="2", name="A1", arrived=1_002, **bounced))
    await MongoEventStore(rig.client, rig.database).commit(batch_of(facts), [])
    entries = await rig.rows(ENTRIES_COLLECTION)
    assert [one.get("duplicate_of") for one in entries if one["_id"].hex() == facts[1].id] == [facts[0].id]
    assert await counted(rig) == [("sendgrid", "511", 1, 1_001)]


async def test_channels_codes_and_spans_part_what_is_counted(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))
    await insert(rig, [failed(n, "30006", at=n * HOUR_US) for n in range(1, 6)])
    await insert(rig, [failed(n, "30006", channel="rcs", at=n * HOUR_US) for n in range(11, 13)])
    await insert(rig, [failed(n, "30003", at=n * HOUR_US) for n in range(21, 24)])
    await insert(rig, [failed(n, "30006", of="globex.1") for n in range(31, 40)])
    by_hour = [("twilio", "30006", 5, 5), ("twilio", "30003", 3, 23), ("rcs", "30006", 2, 12)]
    assert await counted(rig) == [(channel, code, count, last * HOUR_US) for channel, code, count, last in by_hour]
    assert await counted(rig, channel="RCS") == [("rcs", "30006", 2, 12 * HOUR_US)]
    assert await counted(rig, error_code="30003") == [("twilio", "30003", 3, 23 * HOUR_US)]
    assert await counted(rig, from_us=5 * HOUR_US, to_us=12 * HOUR_US) == [
        ("rcs", "30006", 1, 11 * HOUR_US),
        ("twilio", "30006", 1, 5 * HOUR_US),
    ]
    assert await counted(rig, to_us=HOUR_US) == []


async def test_the_most_frequent_thousand_are_told(rig: Rig) -> None:
    await rig.register(make.tenant("acme"))
    many = reads.MAX_ERROR_COUNTS + 5
    await insert(rig, [failed(n, f"{n % many:04}") for n in range(2 * many - 5)])
    found = await counted(rig)
    assert len(found) == reads.MAX_ERROR_COUNTS
    assert all(count == 2 for _, _, count, _ in found)


async def test_counting_reads_no_document(rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [
        told(key=str(n), kind=EventKind.OPENED, name=f"M{n}", error_code=f"4.2.{n % 7}" if n % 2 else "", arrived=n + 1)
        for n in range(600)
    ]
    async with rig_factory(copies=0) as rig:
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        store, asked = MongoEventStore(rig.client, rig.database), []
        await store.prepare()
        await store.commit(batch_of(facts), [])
        aggregated = reads.MongoReads._aggregated

        async def noted(self: reads.MongoReads, pipeline: list[Document], within_s: float) -> list[Document]:
            asked.append(pipeline)
            return await aggregated(self, pipeline, within_s)

        monkeypatch.setattr(reads.MongoReads, "_aggregated", noted)
        store_reads = reads.MongoReads(rig.database)
        for channel, code, span in (
            ("", "", (0, 0)), ("", "", (100, 200)), ("sendgrid", "", (100, 0)), ("sendgrid", "4.2.1", (0, 200)),
        ):  # fmt: skip
            found = await store_reads.errors("acme.1", channel, code, span)
            total = sum(one["count"] for one in found)
            command = {"aggregate": ENTRIES_COLLECTION, "pipeline": asked.pop(), "cursor": {}}
            plan = await rig.database.command({"explain": command, "verbosity": "executionStats"})
            done = (plan["stages"][0]["$cursor"] if "stages" in plan else plan)["executionStats"]
            assert done["totalDocsExamined"] == 0, plan
            # One look beside what is found for each code, where a span has its end.
            assert total
            assert done["totalKeysExamined"] <= total + 3 * 7 + 3, plan


async def test_too_many_to_count_name_the_span_and_what_to_do(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.register(make.tenant("acme"))
    await insert(rig, [failed(n, str(n), at=HOUR_US + n) for n in range(30_000)])
    monkeypatch.setattr(reads, "MAX_READ_S", 0.002)
    with pytest.raises(BackhaulError, match=r"from 1970-01-01T01:00:00Z to now") as slow:
        await reads.MongoReads(rig.database).errors("acme.1", "", "", (HOUR_US, 0))
    assert (slow.value.code, slow.value.field) == (Code.DEADLINE_EXCEEDED, "from")
    assert "Narrow the span" in slow.value.violations[0].fix
    # Whoever asks may name any number.
    for first, last in ((-(2**63), 0), (1, 2**63 - 1), (-(2**62), 2**62)):
        with pytest.raises(BackhaulError, match="are more than can be counted"):
            await reads.MongoReads(rig.database).errors("acme.1", "", "", (first, last))


def test_a_code_means_what_the_channels_present_provider_says() -> None:
    meaning = ErrorMeaning("It is a landline.", ErrorClass.HARD, "https://example.com/30006")

    class Explains:
        def explain(self, code: str) -> ErrorMeaning | None:
            return meaning if code == "30006" else None

    adapters = {"twilio": cast("Adapter[Any]", Explains())}
    nothing: Any = None
    use_cases, tenant = NormalizerUseCases(nothing, nothing, nothing, adapters, nothing), make.tenant("acme")
    assert use_cases.meaning(tenant, "twilio", "30006") == ("twilio", meaning)
    assert use_cases.meaning(tenant, "twilio", "1") == ("twilio", None)
    assert use_cases.meaning(tenant, "sendgrid", "30006") == ("sendgrid", None)  # no adapter of its
    assert use_cases.meaning(tenant, "gone", "30006") == ("", None)


async def test_a_message_shows_what_its_error_means(rig: Rig) -> None:
    acme = make.tenant("acme").model_copy(update={"queue_path": "acme"})
    await rig.register(acme)
    store = MongoEventStore(rig.client, rig.database)
    deferred: dict[str, Any] = {"kind": EventKind.DEFERRED, "error_code": "421", "error_text": "try again"}
    meant: dict[str, Any] = {"error_class": ErrorClass.TRANSIENT, "error_url": "https://example.com/421"}
    facts = [told(key="1", **deferred, **meant), told(key="2", **deferred), told(key="3", kind=EventKind.QUEUED)]
    for one in facts:
        await store.commit([one], [])

    async def shown() -> tuple[str, int, str]:
        (message,) = (await rig.stub.ListMessages(pb.ListMessagesRequest(tenant_id="acme"))).messages
        return message.error_code, message.error_class, message.error_url

    # The one that says more stands, and comes with all that it says.
    assert await shown() == ("421", event_pb2.ERROR_CLASS_TRANSIENT, "https://example.com/421")
    # A further state has no error, and nothing of it is left.
    await store.commit([told(key="4", kind=EventKind.DELIVERED)], [])
    assert await shown() == ("", event_pb2.ERROR_CLASS_UNSPECIFIED, "")
