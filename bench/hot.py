"""One communication that all callbacks belong to, and two copies of the normalizer that write its counts."""

from __future__ import annotations

from backhaul_common.names import channel_key
from backhaul_local.service import Service
from copies import another
from installation import Installation
from normalized import Normalized
from normalizing import GROUP
from report import Report

_TENANT = "hot"
_CHANNEL = "Twilio"


async def measure(site: Installation, report: Report, *, rounds: int, events: int) -> None:
    """``two_copies_cost``: one copy and two copies in turn."""
    await site.ensure("gateway")
    await site.register(_TENANT)
    posts = site.traffic.twilio(events, communications=1)
    messages = site.traffic.stored(_TENANT, await site.registration(_TENANT), _CHANNEL, posts, GROUP)
    waiting = [(channel_key(_CHANNEL), one) for one in messages]
    costs: dict[int, list[float]] = {1: [], 2: []}
    for round_ in range(rounds):
        for count, measured in costs.items():
            site.say(f"one communication, round {round_ + 1} of {rounds}, copies of the normalizer: {count}")
            await site.stop("normalizer")
            await site.purge_callbacks()
            await site.forget()
            await site.ensure("normalizer")
            first = site.stack.service("normalizer")
            if count == 1:
                measured.append(await _fed(site, waiting, events, first))
            else:
                async with another(site, "normalizer") as second:
                    measured.append(await _fed(site, waiting, events, first, second))
    await site.stop("normalizer")
    await site.purge_callbacks()
    ratios = [two / one for one, two in zip(costs[1], costs[2], strict=True)]
    note = "of mongod's an event, two copies of the normalizer over one, all events in one communication"
    report.add("two_copies_cost", ratios, "ratio of CPU", aim="≤ 1.2", note=note)
    for count, measured in costs.items():
        report.add(f"two_copies_cost_mongod_us_{count}", measured, "us / event", note=f"copies: {count}")


async def _fed(site: Installation, waiting: list[tuple[str, bytes]], events: int, *copies: Service) -> float:
    """CPU microseconds of mongod an event. The copies run already, so that they share the work from its begin."""
    normalized = Normalized(*copies)
    await site.checkpoint()
    before = site.meter.read()
    await site.prefill(_TENANT, waiting)
    await normalized.until(events)
    used = site.meter.read().since(before)["mongod"] + (await site.checkpoint())["mongod"]
    return used / events * 1e6
