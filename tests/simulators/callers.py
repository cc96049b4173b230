"""Internal services: they ask suppression over gRPC before they contact anybody."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backhaul_client import ForbiddenError, NotFoundError, UnauthenticatedError
from backhaul_client.adminmodels import NewService
from backhaul_client.suppression import ANYTHING, Answer, Item, Sending, SuppressionClient, Tls, Verdict
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import PlatformTeam, Tenant

EVERYTHING = ("check", "read", "add", "lift", "import", "export", "watch")
"""All verbs."""

NOBODY = "+15005559999"
"""An address about which nothing is ever said."""


def suppression_of(stack: Stack) -> str:
    """Where its gRPC server is."""
    return f"127.0.0.1:{stack.port('suppression', 'grpc')}"


def tls_of(stack: Stack) -> Tls:
    """What a caller needs to connect; its certificate is none of a service account's."""
    env = stack.service("suppression").env
    ca, cert, key = (Path(env[f"BACKHAUL_GRPC_TLS_{name}_FILE"]) for name in ("CA", "CERT", "KEY"))
    return Tls(ca_file=ca, cert_file=cert, key_file=key)


class InternalService:
    """One service account. ``client`` shows its first token."""

    def __init__(self, account: NewService, client: SuppressionClient) -> None:
        self.account = account
        self.client = client

    async def known(self) -> None:
        """Return when the copy has heard of the account."""

        async def heard_of() -> bool:
            try:
                await self.client.check_batch("nobody", [NOBODY])
            except UnauthenticatedError:
                return False
            except (ForbiddenError, NotFoundError):
                pass  # There is no such tenant; what is said of it depends on who asks.
            return True

        await until(f"suppression knows {self.account.id}", heard_of)

    async def verdict(self, tenant_id: str, address: str, sending: Sending = ANYTHING) -> str:
        """``allowed``, or the kinds that say no."""
        return in_words(await self.client.check(tenant_id, address, sending))

    async def verdicts(self, tenant_id: str, addresses: Sequence[str], sending: Sending = ANYTHING) -> list[str]:
        """Those of several, in one call."""
        answers = await self.client.check_batch(tenant_id, [Item(address) for address in addresses], sending)
        return [in_words(answer) for answer in answers]

    async def told(self, tenant_id: str, address: str, verdict: str, sending: Sending = ANYTHING) -> None:
        """Return as soon as this is the answer."""

        async def answered() -> bool:
            return await self.verdict(tenant_id, address, sending) == verdict

        await until(f"{address} is {verdict}", answered)

    async def deals_with(self, tenant: Tenant, *message_ids: str) -> None:
        """Return when suppression has dealt with these messages of Twilio, and with all that was posted before."""
        for message_id in message_ids:
            await tenant.event_of("twilio", message_id)
        # It has when it has dealt with what came behind them.
        somebody = f"+1500{secrets.randbelow(10_000_000):07}"
        await tenant.receive(tenant.reply(somebody, "STOP"))
        await self.told(tenant.id, somebody, "stop")


def in_words(answer: Answer) -> str:
    """``allowed``, or the kinds that say no, in the order of the alphabet."""
    if answer.verdict == Verdict.ALLOWED:
        assert not answer.blocking
        return "allowed"
    assert answer.verdict == Verdict.SUPPRESSED, answer
    assert answer.blocking
    return " ".join(sorted(row.kind for row in answer.blocking))


@asynccontextmanager
async def internal_service(
    stack: Stack,
    platform: PlatformTeam,
    *tenants: str,
    verbs: Sequence[str] = EVERYTHING,
    token_expires_at: datetime | None = None,
) -> AsyncIterator[InternalService]:
    """A service account for ``tenants`` (``*``: all), which suppression knows, for the length of the block."""
    account = await platform.client.create_service(
        f"crm-{secrets.token_hex(4)}", name="CRM", tenants=tenants, verbs=verbs, token_expires_at=token_expires_at
    )
    client = SuppressionClient(suppression_of(stack), token=account.token, tls=tls_of(stack), check_timeout_s=10)
    async with client:
        service = InternalService(account, client)
        await service.known()
        yield service
    await platform.client.delete_service(account.id)
