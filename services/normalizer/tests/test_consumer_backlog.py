"""More callbacks than are buffered: whose turn it is, and what is parked."""

from __future__ import annotations

import asyncio

from backhaul_testing import make
from normalizer_rig import RigFactory


async def test_a_backlog_of_one_tenant_does_not_delay_another(rig_factory: RigFactory) -> None:
    # A buffer that holds one message: all the others of the backlog are parked, and read again.
    async with rig_factory(copies=0, normalizer_tenant_bytes=16 * 1024, normalizer_batch_bytes=64 * 1024) as rig:
        acme, globex = make.tenant("acme"), make.tenant("globex")
        await rig.register(acme, globex)
        for start in range(0, 10_000, 50):
            callbacks = [make.callback(acme, make.twilio(f"SM{n}", "sent")) for n in range(start, start + 50)]
            await rig.publish(acme, *callbacks)
        await rig.publish(globex, make.callback(globex, make.twilio("SM1", "sent")))
        async with rig.another():
            async with asyncio.timeout(60):
                while not await rig.events_of("globex.1"):
                    await asyncio.sleep(0.01)  # MongoDB has no event for it that costs less than asking.
            ahead = await rig.events_of("acme.1")
            assert ahead < 5_000  # Globex came last, and was served while most of Acme's backlog was not.
            await rig.drained(timeout_s=60)
        assert await rig.events_of("acme.1") == 10_000
        assert len(await rig.published()) == 10_001


async def test_what_is_parked_survives_the_end_of_who_parked_it(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0, normalizer_tenant_bytes=1024, normalizer_ack_wait_s=1) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        for start in range(0, 2_000, 10):
            await rig.publish(
                acme, *(make.callback(acme, make.twilio(f"SM{n}", "sent")) for n in range(start, start + 10))
            )
        async with rig.another():
            async with asyncio.timeout(60):
                while not await rig.events_of("acme.1"):
                    await asyncio.sleep(0.01)  # As above.
        assert await rig.events_of("acme.1") < 2_000
        async with rig.another():
            await rig.drained(timeout_s=60)
        assert await rig.events_of("acme.1") == 2_000
        # Whoever is stopped between commit and publish leaves it to the next, who may group the events otherwise.
        published = await rig.published()
        assert len({event.id for event in published}) == 2_000
        assert {event.revision for event in published} == {0}
