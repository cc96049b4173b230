"""gRPC to checks, commands and reads, and back; nothing is decided here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.rpc import caller
from backhaul_common.tenants import Tenant
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceServicer

from backhaul_suppression.addresses import address_of
from backhaul_suppression.checks import Checks, require_few
from backhaul_suppression.commands import Add, By, Commands, Lift, Outcome, Said
from backhaul_suppression.messages import (
    FAMILIES,
    KINDS,
    ORIGINS,
    PURPOSES,
    SOURCES,
    active_of,
    change_message,
    evidence_of,
    scope_of,
    suppression_message,
)
from backhaul_suppression.ports import Reads, RowsQuery
from backhaul_suppression.seeing import kinds_seen, require_seen
from backhaul_suppression.tenancy import KnownTenants
from backhaul_suppression.validity import MAX_AUTHOR

_ACTORS = (pb.ACTOR_UNSPECIFIED, pb.ACTOR_TENANT, pb.ACTOR_OPERATOR)

_BACKHAUL = "backhaul"
"""The author where one of Backhaul's own services names none. No service account is signed so."""

T = TypeVar("T")


class Imports(Protocol):
    """Takes lists over."""

    def run(
        self, tenant: Tenant, by: By, first: pb.ImportRequest, others: AsyncIterator[pb.ImportRequest]
    ) -> AsyncGenerator[pb.ImportResponse, None]:
        """How far it is, for the requests of one stream."""
        ...


class Exports(Protocol):
    """Writes lists."""

    def run(self, tenant: Tenant, request: pb.ExportRequest) -> AsyncGenerator[pb.ExportResponse, None]:
        """The file in pieces."""
        ...


class Watches(Protocol):
    """Follows changes."""

    def run(self, tenant: Tenant, request: pb.WatchRequest) -> AsyncGenerator[pb.WatchResponse, None]:
        """Changes as they happen, without end."""
        ...


class SuppressionServicer(SuppressionServiceServicer):
    """``backhaul_proto.suppression.v1.SuppressionService``. Errors are BackhaulErrors; the server's edge translates."""

    def __init__(
        self,
        tenants: KnownTenants,
        checks: Checks,
        commands: Commands,
        reads: Reads,
        *,
        imports: Imports,
        exports: Exports,
        watches: Watches,
    ) -> None:
        self._tenants = tenants
        self._checks = checks
        self._commands = commands
        self._reads = reads
        self._imports = imports
        self._exports = exports
        self._watches = watches

    async def Check(self, request: pb.CheckRequest, context: Any) -> pb.CheckResponse:
        """Whether one address may be contacted."""
        _may_ask(request)
        return self._checks.one(await self._tenants.require(request.tenant_id), request)

    async def CheckBatch(self, request: pb.CheckBatchRequest, context: Any) -> pb.CheckBatchResponse:
        """Whether up to MAX_ITEMS may."""
        _may_ask(request)
        caller().take_checks(len(request.items))
        response = pb.CheckBatchResponse()
        await self._checks.many(await self._tenants.require(request.tenant_id), request, response)
        return response

    async def CheckStream(
        self, request: AsyncIterator[pb.CheckStreamRequest], context: Any
    ) -> AsyncIterator[pb.CheckStreamResponse]:
        """The same for each request."""
        tenant_id = ""
        async for one in request:
            tenant_id = tenant_id or one.tenant_id
            _may_ask(one)
            require_few(one.items)  # Not after it was held for as long as so many take.
            await caller().wait_for_checks(len(one.items))
            response = pb.CheckStreamResponse()
            # Each time anew: a stream may outlive a tenant.
            await self._checks.many(await self._tenants.require(tenant_id), one, response)
            yield response

    async def Add(self, request: pb.AddRequest, context: Any) -> pb.AddResponse:
        """Records that a person must not be contacted."""
        tenant = await self._tenants.require(request.tenant_id)
        add = Add(
            _said(tenant, request),
            kind=_required(KINDS.value(request.kind, "kind"), "kind", "Say why the address is suppressed."),
            scope=scope_of(request.scope),
            source=SOURCES.value(request.source, "source"),
            effective_at_us=request.effective_at_us,
            evidence=evidence_of(request),
        )
        outcome = await self._commands.add(tenant, _by(request), add)
        return pb.AddResponse(suppression=suppression_message(outcome.row), changed=outcome.changed)

    async def Lift(self, request: pb.LiftRequest, context: Any) -> pb.LiftResponse:
        """Lifts what the caller may lift."""
        tenant = await self._tenants.require(request.tenant_id)
        lift = Lift(
            _said(tenant, request),
            kind=_required(KINDS.value(request.kind, "kind"), "kind", "Say what is lifted."),
            scope=scope_of(request.scope),
            evidence=evidence_of(request),
        )
        require_seen(lift.kind)
        outcome: Outcome = await self._commands.lift(tenant, _by(request), lift)
        return pb.LiftResponse(suppression=suppression_message(outcome.row), changed=outcome.changed)

    async def Reactivate(self, request: pb.ReactivateRequest, context: Any) -> pb.ReactivateResponse:
        """Says that an address works again."""
        tenant = await self._tenants.require(request.tenant_id)
        rows = await self._commands.reactivate(tenant, _by(request), _said(tenant, request))
        return pb.ReactivateResponse(suppressions=map(suppression_message, rows))

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        """All rows of one address, with the latest of their history."""
        tenant = await self._tenants.require(request.tenant_id)
        address = address_of(tenant.registration, request.address, FAMILIES.value(request.family, "family"))
        rows = await self._reads.rows_of(address)
        changes, token = await self._reads.history_of(address, request.page_size, request.page_token)
        seen = kinds_seen()
        return pb.GetResponse(
            address=address.text,
            family=FAMILIES.number(address.family),
            suppressions=[suppression_message(row) for row in rows if row.key.kind in seen],
            history=[change_message(change) for change in changes if change.row.key.kind in seen],
            next_page_token=token,
        )

    async def List(self, request: pb.ListRequest, context: Any) -> pb.ListResponse:
        """Rows, the latest change first."""
        tenant = await self._tenants.require(request.tenant_id)
        query = RowsQuery(
            family=FAMILIES.value(request.family, "family"),
            kind=KINDS.value(request.kind, "kind"),
            origin=ORIGINS.value(request.origin, "origin"),
            scope=scope_of(request.scope) if request.HasField("scope") and request.scope.kind else None,
            active=active_of(request.standing),
            span=(request.from_us, request.to_us),
            size=request.page_size,
            token=request.page_token,
        )
        rows, token = await self._reads.rows(tenant.registration, query)
        seen = kinds_seen()
        found = [suppression_message(row) for row in rows if row.key.kind in seen]
        return pb.ListResponse(suppressions=found, next_page_token=token)

    async def Import(self, request: AsyncIterator[pb.ImportRequest], context: Any) -> AsyncIterator[pb.ImportResponse]:
        """Takes over a list."""
        first = await anext(request)
        tenant = await self._tenants.require(first.tenant_id)
        async with aclosing(self._imports.run(tenant, _by(first), first, request)) as answers:
            async for answer in answers:
                yield answer

    async def Export(self, request: pb.ExportRequest, context: Any) -> AsyncIterator[pb.ExportResponse]:
        """Writes a list."""
        require_seen(KINDS.value(request.kind, "kind"))
        tenant = await self._tenants.require(request.tenant_id)
        async with aclosing(self._exports.run(tenant, request)) as pieces:
            async for piece in pieces:
                yield piece

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchResponse]:
        """Changes as they happen."""
        _watches_what_it_sees(request)
        tenant = await self._tenants.require(request.tenant_id)
        async with aclosing(self._watches.run(tenant, request)) as answers:
            async for answer in answers:
                yield answer


class _Acting(Protocol):
    @property
    def actor(self) -> Any: ...
    @property
    def author(self) -> str: ...


class _AboutAnAddress(Protocol):
    @property
    def address(self) -> str: ...
    @property
    def family(self) -> Any: ...
    @property
    def note(self) -> str: ...
    @property
    def idempotency_key(self) -> str: ...


def _may_ask(request: pb.CheckRequest | pb.CheckBatchRequest | pb.CheckStreamRequest) -> None:
    """FORBIDDEN where the caller may not ask about messages of that purpose."""
    who = caller()
    if who.purposes:
        who.require_purpose(PURPOSES.value(request.sending.purpose, "sending.purpose") or "")


def _watches_what_it_sees(request: pb.WatchRequest) -> None:
    """FORBIDDEN where a kind is named that the caller may not see; who names none watches all that it sees."""
    for number, kind in enumerate(request.kinds):
        require_seen(KINDS.value(kind, f"kinds[{number}]"), f"kinds[{number}]")
    if not request.kinds and caller().purposes:
        request.kinds.extend(sorted(KINDS.number(kind) for kind in kinds_seen()))


def _by(request: _Acting) -> By:
    """Who acts. Backhaul's own services say for whom they do; others act for a tenant, in their own name."""
    if request.actor not in _ACTORS:
        raise _unknown("actor", request.actor, "tenant, operator")
    if len(request.author) > MAX_AUTHOR:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The author has more than {MAX_AUTHOR} characters.",
            field="author",
            fix="Pass the id of a key, or of a service.",
        )
    operator, who = request.actor == pb.ACTOR_OPERATOR, caller()
    if not who.internal:
        if operator:
            raise BackhaulError(
                Code.FORBIDDEN, f"{who} does not act for the operator.", field="actor", fix="Act for the tenant."
            )
        return By(who.author)
    return By(request.author or ("operator" if operator else _BACKHAUL), operator)


def _said(tenant: Tenant, request: _AboutAnAddress) -> Said:
    family = FAMILIES.value(request.family, "family")
    return Said(address_of(tenant.registration, request.address, family), request.note, request.idempotency_key)


def _required(value: T | None, field: str, fix: str) -> T:
    if value is None:
        raise BackhaulError(Code.INVALID_ARGUMENT, f"{field} is missing.", field=field, fix=fix)
    return value


def _unknown(field: str, number: int, known: str) -> BackhaulError:
    return BackhaulError(
        Code.INVALID_ARGUMENT, f"{field} has no value {number}.", field=field, fix=f"Known are: {known}."
    )
