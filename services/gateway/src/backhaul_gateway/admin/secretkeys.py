"""``/admin/v1/secret-keys``: what is encrypted under which key of the ring, and encrypting it anew under the first."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.names import TENANTS_COLLECTION
from backhaul_common.rpc.errors import not_offered
from backhaul_common.secretkeys import Kept, SecretRenewal
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_proto.secretkeys.v1 import secretkeys_pb2 as pb
from fastapi import APIRouter
from pydantic import BaseModel

from backhaul_gateway.web.filters import Cursor
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.problems import NotInstalledError

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.secretkeys.v1.secretkeys_pb2_grpc import SecretKeysServiceAsyncStub

MAX_CALL_S = 15.0
"""After so long a request asks nobody anything more: what is left is the next one's."""

MAX_NAMED = 1000
"""Secrets that an answer names. A request that has found so many asks nobody anything more."""

GATEWAY = "gateway"

Asked = Callable[[pb.RenewSecretsRequest], Awaitable[pb.RenewSecretsResponse]]


class SecretsOut(BaseModel):
    """What one service keeps, as far as this request has looked: how many secrets were encrypted anew, are under the
    first key, are under another one, and cannot be decrypted. ``complete``: it has none that follow. ``installed`` is
    false of a service that the gateway knows no address of: nobody has looked at what it keeps."""

    service: str
    installed: bool = True
    complete: bool = False
    renewed: int = 0
    current: int = 0
    older: int = 0
    unreadable: int = 0


class UnreadableOut(BaseModel):
    """Where a secret is kept that no key decrypts. ``tenant_id`` is null where it is the installation's; ``id`` is
    that of the tenant, the subscription or the key whose it is."""

    service: str
    tenant_id: str | None
    id: str
    field: str


class SecretKeysOut(BaseModel):
    """What was looked at. ``key_id`` tells the first key from others. Without a ``next_cursor`` that was all."""

    key_id: str
    services: list[SecretsOut]
    unreadable: list[UnreadableOut]
    next_cursor: str | None


class SecretKeyRoutes:
    """The platform team's side of the ring of keys."""

    def __init__(
        self,
        key_id: str,
        services: Mapping[str, SecretKeysServiceAsyncStub],
        own: SecretRenewal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``key_id`` is that of the gateway's first key, ``own`` what it keeps itself."""
        self._key_id = key_id
        # The gateway is last: others refuse a key that is not their own, so one that was left behind with the keys of
        # before finds out before it has written anything.
        self._asked: dict[str, Asked] = {name: stub.RenewSecrets for name, stub in services.items()}
        self._asked[GATEWAY] = own.some
        self._clock = clock
        self._log = get_logger(component="secret_keys")

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        router.add_api_route("", self.look, methods=["GET"], responses=problems(409, 422, 504))
        router.add_api_route("/rotate", self.rotate, methods=["POST"], responses=problems(409, 422, 504))

    async def look(self, cursor: Cursor = "") -> SecretKeysOut:
        """Under which keys the secrets are that all services keep. Where ``older`` and ``unreadable`` are 0 of all of
        them, the other keys can leave the ring."""
        return await self._run(cursor, look=True)

    async def rotate(self, cursor: Cursor = "") -> SecretKeysOut:
        """Encrypt anew what is not under the first key. May be repeated, from the beginning or from where it ended:
        what is under the first key is left as it is, and what others change meanwhile is theirs."""
        return await self._run(cursor, look=False)

    async def _run(self, cursor: str, *, look: bool) -> SecretKeysOut:
        names = list(self._asked)
        service, _, after = cursor.partition("/")
        if cursor and service not in names:
            raise _no_cursor()
        answer = SecretKeysOut(key_id=self._key_id, services=[], unreadable=[], next_cursor=None)
        ends = self._clock() + MAX_CALL_S
        for name in names[names.index(service) if cursor else 0 :]:
            answer.next_cursor = await self._of(name, after, answer, look=look, ends=ends)
            after = ""
            if answer.next_cursor is not None:
                break
        if not look:
            for one in answer.services:
                self._log.info("secrets_renewed", key_id=self._key_id, **one.model_dump())
        return answer

    async def _of(self, name: str, after: str, answer: SecretKeysOut, *, look: bool, ends: float) -> str | None:
        """Add what ``name`` keeps to ``answer``; where to go on, if the time was over."""
        found = SecretsOut(service=name)
        answer.services.append(found)
        while not found.complete:
            if self._clock() > ends or len(answer.unreadable) >= MAX_NAMED:
                return f"{name}/{after}"
            try:
                some = await self._some(name, after, look=look)
            except NotInstalledError:
                found.installed = False
                return None
            found.renewed += some.renewed
            found.current += some.current
            found.older += some.older
            found.unreadable += len(some.unreadable)
            answer.unreadable += [
                UnreadableOut(service=name, tenant_id=one.tenant_id or None, id=one.id, field=one.field)
                for one in some.unreadable
            ]
            after = some.next
            found.complete = not after
        return None

    async def _some(self, name: str, after: str, *, look: bool) -> pb.RenewSecretsResponse:
        request = pb.RenewSecretsRequest(key_id=self._key_id, look=look, after=after)
        try:
            return await self._asked[name](request)
        except NotInstalledError:
            raise
        except BackhaulError as exc:
            if not_offered(exc):
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"The {name} is of a version that cannot encrypt its secrets anew.",
                    fix=f"Restart every copy of the {name} with the gateway's version.",
                ) from exc
            if exc.field == "after":
                raise _no_cursor() from exc
            if exc.field == "key_id":
                # It is no field of whoever asked.
                raise BackhaulError(exc.code, f"The {name} has other keys. {exc.message}", fix=exc.fix) from exc
            message = f"The {name} cannot be asked. {exc.message}"
            raise BackhaulError(exc.code, message, fix=exc.fix, retry_after_s=exc.retry_after_s) from exc


def _no_cursor() -> BackhaulError:
    return BackhaulError(
        Code.INVALID_ARGUMENT,
        "The cursor is none that an earlier answer gave.",
        field="cursor",
        fix="Send next_cursor of the answer before, unchanged, or no cursor to begin.",
    )


def of_tenants(database: mongo.Database, box: SecretBox, store_format: StoreFormat) -> SecretRenewal:
    """What is secret of tenants' channels."""
    fields = ("channels.*.secrets.*", "channels.*.pull_credentials", "channels.*.audit_credentials")
    rows = database[TENANTS_COLLECTION]
    return SecretRenewal(box, store_format, [Kept(rows, box, fields, lambda row: str(row["_id"]), revised=True)])
