"""Two tenants share an API key of SendGrid: it is asked within its budget for both, whoever dies meanwhile, and each is
told of its own mails and of no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_client import BackhaulError
from backhaul_testing.apis.sendgrid import ACTIVITY, SendGridApi, SendGridUser
from backhaul_testing.apis.sendgrid_rows import Mail
from backhaul_testing.apis.sendgrid_scenario import SendGridScenario
from backhaul_testing.waiting import until
from backhaul_testing.wire import Wire
from faults.truth import Asking, processed
from simulators.people import Tenant

if TYPE_CHECKING:
    from backhaul_client.reconciliationmodels import RunReport

pytestmark = pytest.mark.faults

CHANNEL = "SendGrid"
A_MINUTE = 6
"""Requests to the Email Activity that SendGrid allows an API key."""

LOST = 5
"""Mails of each tenant of whose delivery no callback tells; of two of them there is no callback at all."""


@dataclass
class Sharer:
    """A tenant that sends by a subuser of its own."""

    tenant: Tenant
    user: SendGridUser
    scenario: SendGridScenario
    mails: list[Mail] = field(default_factory=list)

    @property
    def client(self) -> Any:
        """What the tenant asks about reconciliation."""
        return self.tenant.client.reconciliation

    async def send(self, at: datetime) -> None:
        """Mails come to their ends, and SendGrid tells of some of it."""
        name = self.user.name
        for place in range(LOST):
            withhold = True if place < 2 else ("delivered",)
            self.mails.append(self.scenario.mail(f"lost-{place}@{name}.test", at=at, withhold=withhold))
        self.mails.append(self.scenario.mail(f"told@{name}.test", at=at))
        self.mails.append(self.scenario.mail(f"nobody@{name}.test", "bounce", at=at))
        async with Wire() as wire:
            await self.scenario.post(wire.once)

    async def states(self) -> dict[str, str | None]:
        """The state of each message of the tenant's, by its id."""
        return {row.message_id: row.fulfilment_state for row in await self.tenant.messages()}

    def wanted(self) -> dict[str, str | None]:
        """What they must come to be: of its own mails, and of no others."""
        return {mail.msg_id: "Undelivered" if mail.to.startswith("nobody") else "Delivered" for mail in self.mails}

    async def begin(self, since: datetime) -> str:
        """A run over all since then is asked for, as soon as the reconciler knows the channel."""

        async def begun() -> str | None:
            try:
                report: RunReport = await self.client.begin(CHANNEL, from_=since)
            except BackhaulError:
                return None
            return report.id

        return await until("a run that begins", begun, within_s=30, pause_s=0.2)


async def sharers(asking: Asking, api: SendGridApi, key: str, users: Sequence[SendGridUser]) -> list[Sharer]:
    """A tenant for each of ``users``, whose channel is asked with ``key`` on their behalf."""
    found, at = [], api.clock.now() - timedelta(minutes=10)
    for user in users:
        tenant = await asking.town.platform.register()
        sharer = Sharer(tenant, user, SendGridScenario(user, tenant.address(CHANNEL), signer=tenant.sendgrid))
        await sharer.send(at)
        found.append(sharer)
    await processed(asking.stack)
    for sharer in found:
        await asking.town.platform.client.put_channel(
            sharer.tenant.id, CHANNEL, pull_credentials={"api_key": key, "subuser": sharer.user.name}
        )
    return found


@pytest.mark.timeout(400)
async def test_a_key_that_two_tenants_share_is_asked_six_times_a_minute_whoever_dies(
    asking: Asking, simulated_sendgrid: SendGridApi
) -> None:
    api = simulated_sendgrid
    main = api.user("sharing")
    key = main.key()
    name = key.split(".")[1]
    users = [main.subuser(f"below-{place}") for place in range(2)]
    began = api.clock.now()
    both = await sharers(asking, api, key, users)

    async def holder() -> str | None:
        """The copy that asks, once it has asked some."""
        return await asking.holder() if api.requests.count(route=ACTIVITY, key=name) >= 3 else None

    # With what is scheduled it is more than a minute allows: each run lists, and asks which were dropped.
    for sharer in both:
        await sharer.begin(began - timedelta(hours=1))
    victim = await until("the copy that asks, in the middle", holder, within_s=60)
    await asking.stack.kill(victim)

    async def all_known() -> bool:
        known = [await sharer.states() == sharer.wanted() for sharer in both]
        return all(known) and api.requests.count(route=ACTIVITY, key=name) > A_MINUTE

    await until("the other copy has asked for the rest, and all is known", all_known, within_s=240, pause_s=0.5)
    assert api.requests.most_within(60, route=ACTIVITY, key=name) <= A_MINUTE
    assert api.requests.count(key=name, status=429) == 0
    # It takes no copy's time from the next test.
    for sharer in both:
        await asking.town.platform.client.put_channel(
            sharer.tenant.id, CHANNEL, settings={"reconcile": {"enabled": False}}
        )
