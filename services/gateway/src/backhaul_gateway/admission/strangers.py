"""One look into the database before a stranger is refused.

Tenants are known from memory, and news of them takes a moment. A provider that is told 401 or 404 in that moment may
never send the callback again. So whoever does not know a credential or a channel asks the database once, and only so
often that nobody can make a flood of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from backhaul_common.directory import TenantDirectory
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.limits import TokenBucket
from backhaul_common.logs import get_logger
from pydantic import ValidationError

from backhaul_gateway.admission.auth import CredentialIndex
from backhaul_gateway.admission.state import TenantState
from backhaul_gateway.ports import TenantStore

NEGATIVE_S = 1.0
"""How long a look that found nothing spares the next one."""
MAX_REMEMBERED = 4096
TIMEOUT_S = 1.0
AWAY_S = 0.5
"""How long a database that did not answer is not asked again."""


class Lookups:
    """Asks by key: those who ask for one key at the same time share a look."""

    def __init__(
        self, look: Callable[[str], Awaitable[None]], clock: Callable[[], float], *, rate: float, burst: int
    ) -> None:
        """``look`` brings what it finds into memory; ``rate`` and ``burst`` bound all looks together."""
        self._look = look
        self._clock = clock
        self._bucket = TokenBucket(rate, burst, clock)
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._looked: dict[str, float] = {}
        self._away_until = 0.0
        self._log = get_logger(component="lookups")

    async def once(self, key: str, own: TokenBucket | None = None) -> bool:
        """Whether somebody looked for ``key`` just now, so that memory is worth another question.

        ``own`` is a bound of whoever asks, beside the one for all. UNAVAILABLE when the database does not answer: what
        is not known then may well exist.
        """
        task = self._under_way.get(key)
        if task is None:
            now = self._clock()
            if now < self._away_until:
                raise unavailable("The tenant directory")
            if now - self._looked.get(key, -NEGATIVE_S) < NEGATIVE_S:
                return False
            if (own is not None and own.take()) or self._bucket.take():
                return False
            task = self._under_way[key] = asyncio.create_task(self._bounded(key), name="lookup")
        await asyncio.shield(task)
        if self._clock() < self._away_until:
            raise unavailable("The tenant directory")
        return True

    async def _bounded(self, key: str) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._look(key)
        except (BackhaulError, TimeoutError) as exc:
            if not self._away_until:
                self._log.warning("lookup_failed", error=str(exc) or type(exc).__name__)
            self._away_until = self._clock() + AWAY_S
        except ValidationError:
            # The document is no tenant to this copy, which the directory's own reads say; memory's answer stands.
            self._remember(key)
        else:
            self._away_until = 0.0
            self._remember(key)
        finally:
            del self._under_way[key]

    def _remember(self, key: str) -> None:
        if len(self._looked) >= MAX_REMEMBERED:
            self._looked.clear()
        self._looked[key] = self._clock()


class Strangers:
    """Looks for credentials and channels that are not known here."""

    def __init__(
        self, directory: TenantDirectory, store: TenantStore, credentials: CredentialIndex, clock: Callable[[], float]
    ) -> None:
        self._directory = directory
        self._store = store
        self._credentials = credentials
        self._by_credential = Lookups(self._find_owner, clock, rate=20, burst=40)
        self._by_channel = Lookups(self._find_channel, clock, rate=100, burst=200)

    async def credential(self, token: str | None, api_key: bytes | None, authorization: bytes | None) -> None:
        """Bring the owner of the credential into memory, if there is one. UNAVAILABLE when nobody can tell."""
        credential_id = self._credentials.unknown_id(token, api_key, authorization)
        if credential_id and self._directory.synced:
            await self._by_credential.once(credential_id)

    async def channel(self, state: TenantState, key: str) -> None:
        """Bring the tenant as it is stored into memory, for it may have the channel by now. UNAVAILABLE as above."""
        await self._by_channel.once(f"{state.tenant.id}/{key}", state.looks)

    async def _find_owner(self, credential_id: str) -> None:
        tenant_id = await self._store.owner_of(credential_id)
        if tenant_id is not None:
            await self._directory.reload(tenant_id)

    async def _find_channel(self, key: str) -> None:
        await self._directory.reload(key.partition("/")[0])
