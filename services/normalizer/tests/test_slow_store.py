"""A store that commits little in the time that a transaction has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backhaul_common.errors import unavailable
from backhaul_normalizer.committing import COMMIT_EVENTS, MAX_LESS, Portions
from backhaul_normalizer.model import Committed, Fact, Rejection
from backhaul_testing import make
from consumer_rig import OtherStore
from normalizer_rig import RigFactory
from tellings import told

IN_TIME = 100


class SlowStore(OtherStore):
    """Commits, but for what is more than it can do in time."""

    async def commit(self, facts: Sequence[Fact], rejections: Sequence[Rejection]) -> Committed:
        if len(facts) > IN_TIME:
            raise unavailable("MongoDB")
        return await super().commit(facts, rejections)


async def test_one_large_callback_is_committed_however_slow_the_store_is(
    rig_factory: RigFactory, consuming: Any
) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        events = [{"event": "open", "sg_event_id": str(n), "sg_message_id": f"m{n}.filter"} for n in range(500)]
        mails = [{**event, "email": "a@example.com", "timestamp": 1_764_100_000} for event in events]
        await rig.publish(acme, make.callback(acme, make.sendgrid(*mails), channel="sendgrid"))
        async with consuming(rig, wrap_store=SlowStore):
            await rig.drained(timeout_s=30)
        assert await rig.events_of("acme.1") == 500
        published = [event.id for event in await rig.published()]
        assert len(published) == len(set(published)) == 500


def test_portions_are_as_large_again_as_soon_as_the_store_is_quick() -> None:
    facts, portions = [told(key=str(n)) for n in range(COMMIT_EVENTS)], Portions()
    assert [len(part) for part in portions.of(facts)] == [COMMIT_EVENTS]
    for _ in range(10):
        portions.failed()
    assert len(portions.of(facts)[0]) == COMMIT_EVENTS // MAX_LESS
    for _ in range(6):
        portions.done()
    assert [len(part) for part in portions.of(facts)] == [COMMIT_EVENTS]
    assert portions.of([]) == [[]]
