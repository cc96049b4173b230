"""What a batch of callbacks comes to, on real NATS and MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backhaul_common.names import (
    EVENTS_COLLECTION,
    MESSAGES_COLLECTION,
    TENANTS_COLLECTION,
)
from backhaul_normalizer.committing import COMMIT_EVENTS
from backhaul_normalizer.model import Committed, Fact, Rejection
from backhaul_testing import make
from consumer_rig import FailingStore
from normalizer_rig import RigFactory


async def test_a_callback_full_of_tiny_events_takes_several_transactions(
    rig_factory: RigFactory, consuming: Any
) -> None:
    sizes: list[int] = []

    class CountingStore(FailingStore):
        async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
            sizes.append(len(facts))
            return await super().commit(facts, rejections)

    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        count = 2 * COMMIT_EVENTS + 1
        events = [{"event": "open", "timestamp": 1_790_000_000 + n, "sg_event_id": f"e{n}"} for n in range(count)]
        await rig.publish(acme, make.callback(acme, make.sendgrid(*events), channel="sendgrid"))
        async with consuming(rig, wrap_store=CountingStore):
            await rig.drained()
        assert len(await rig.rows(EVENTS_COLLECTION)) == count
        assert len(await rig.published()) == count
        assert max(sizes) <= COMMIT_EVENTS


async def test_a_duplicate_tells_what_the_first_did_not(rig_factory: RigFactory, consuming: Any) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        plain = make.callback(acme, make.twilio("SM1", "sent"))
        named = make.callback(acme, make.twilio("SM1", "sent"), query="communicationId=spring")
        async with consuming(rig):
            for one in (plain, named, plain):
                await rig.publish(acme, one)
                await rig.drained()
            # The same in one batch.
            await rig.publish(
                acme,
                make.callback(acme, make.twilio("SM2", "sent")),
                make.callback(acme, make.twilio("SM2", "sent"), query="communicationId=spring"),
            )
            await rig.drained()
        assert [row["communication_id"] for row in await rig.rows(MESSAGES_COLLECTION)] == ["spring"] * 2
        (communication,) = await rig.communications()
        assert communication["messages"] == 2
        assert communication["fulfilment"] == {"Sent": 2}
        assert communication["events"] == {"sent": 2}


async def test_two_copies_share_the_work_and_count_once(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=2, normalizer_batch_bytes=16 * 1024, normalizer_pull_messages=4) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        # All on one communication, and each message's events spread over several batches: as much conflict as can be.
        for status in ("queued", "sent", "delivered", "sent"):
            for start in range(0, 200, 20):
                await rig.publish(
                    acme,
                    *(
                        make.callback(acme, make.twilio(f"SM{n}", status), query="communicationId=c")
                        for n in range(start, start + 20)
                    ),
                )
        await rig.drained(timeout_s=60)
        (row,) = await rig.communications()
        assert row["messages"] == 200
        assert {name: count for name, count in row["fulfilment"].items() if count} == {"Delivered": 200}
        assert row["events"] == {"queued": 200, "sent": 200, "delivered": 200}


async def test_a_channel_that_this_copy_has_not_heard_of_is_looked_up(rig_factory: RigFactory, consuming: Any) -> None:
    """How a callback is read is a setting of its channel, and the word of a new one may be lost on its way."""
    tenant = make.tenant("acme", sendgrid={"message_id_from": ["order"]})
    twilio_alone = {"twilio": tenant.channels["twilio"]}
    async with rig_factory(copies=0) as rig:
        await rig.register(tenant.model_copy(update={"channels": twilio_alone}))
        async with consuming(rig):
            await rig.database[TENANTS_COLLECTION].replace_one(
                {"_id": "acme"}, tenant.model_copy(update={"revision": 2}).to_document()
            )
            mail = make.sendgrid(
                {"event": "open", "email": "a@example.com", "timestamp": 1, "sg_event_id": "1", "order": "7"}
            )
            await rig.publish(tenant, make.callback(tenant, mail, channel="sendgrid"))
            await rig.drained()
        (message,) = await rig.rows(MESSAGES_COLLECTION)
        assert message["message_id"] == "7:a@example.com"


async def test_a_callback_is_read_by_settings_as_new_as_its_gateway_knew(
    rig_factory: RigFactory, consuming: Any
) -> None:
    """Whoever got an answer to a change of settings may send at once, whatever the word of it takes to come here."""
    before = make.tenant("acme")
    after = make.tenant("acme", twilio={"communication_keys": ["category"]}).model_copy(update={"revision": 2})
    async with rig_factory(copies=0) as rig:
        await rig.register(before)
        async with consuming(rig):
            await rig.database[TENANTS_COLLECTION].replace_one({"_id": "acme"}, after.to_document())
            told = {"query": "category=news"}
            body = make.twilio("SM1", "delivered")
            await rig.publish(after, make.callback(after, body, **told, tenant_revision=after.revision))
            await rig.drained()
        (message,) = await rig.rows(MESSAGES_COLLECTION)
        assert message["communication_id"] == "news"
