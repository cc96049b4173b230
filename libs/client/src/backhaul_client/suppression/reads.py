"""What is known, and what becomes of it."""

from __future__ import annotations

from datetime import datetime

from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_client.paging import AsyncRows, Page
from backhaul_client.suppression import wire
from backhaul_client.suppression.base import CALL_S, PAGE, Base
from backhaul_client.suppression.models import Change, Family, Kind, Origin, Record, Scope, Standing, Suppression


class Reads(Base):
    """The calls that read rows and their history."""

    async def get(
        self,
        tenant_id: str,
        address: str,
        *,
        family: Family | None = None,
        page_size: int = PAGE,
        cursor: str = "",
        timeout_s: float = CALL_S,
    ) -> Record:
        """All rows of one address, lifted ones too, and a page of its history."""
        request = pb.GetRequest(
            tenant_id=tenant_id,
            address=address,
            family=wire.number(Family, family),
            page_size=page_size,
            page_token=cursor,
        )
        return wire.record(await self._call("Get", request, timeout_s))

    def history(
        self, tenant_id: str, address: str, *, family: Family | None = None, page_size: int = PAGE, cursor: str = ""
    ) -> AsyncRows[Change]:
        """Every change of one address, the latest first."""

        async def ask(after: str) -> Page[Change]:
            found = await self.get(tenant_id, address, family=family, page_size=page_size, cursor=after)
            return Page(found.history, found.next_cursor)

        return AsyncRows(ask, cursor)

    def list(
        self,
        tenant_id: str,
        *,
        kind: Kind | None = None,
        origin: Origin | None = None,
        scope: Scope | None = None,
        family: Family | None = None,
        standing: Standing = Standing.ACTIVE,
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = PAGE,
        cursor: str = "",
        timeout_s: float = CALL_S,
    ) -> AsyncRows[Suppression]:
        """Rows, the latest change first. ``from_`` and ``to`` bound when they were recorded. ``timeout_s`` is each
        page's. One that changes between two pages may be on none of them: ``export`` is for the whole, and ``watch``
        for keeping up with it."""
        request = pb.ListRequest(
            tenant_id=tenant_id,
            family=wire.number(Family, family),
            kind=wire.number(Kind, kind),
            origin=wire.number(Origin, origin),
            scope=None if scope is None else wire.to_scope(scope),
            standing=wire.number(Standing, standing),
            from_us=wire.micros(from_),
            to_us=wire.micros(to),
            page_size=page_size,
        )

        async def ask(after: str) -> Page[Suppression]:
            page = pb.ListRequest()
            page.CopyFrom(request)
            page.page_token = after
            answer = await self._call("List", page, timeout_s)
            return Page(tuple(wire.suppression(row) for row in answer.suppressions), answer.next_page_token)

        return AsyncRows(ask, cursor)
