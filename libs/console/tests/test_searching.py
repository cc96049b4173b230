"""Finding tenants by a part of their names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from backhaul_client import Page
from backhaul_client.adminmodels import AuditRetention, Limits, SuppressionSettings, Tenant
from backhaul_console.pages.tenants import LOOKED_AT, fitting

LIMITS = Limits(
    requests_per_second=1.0, burst=1, max_body_bytes=1, reads_per_second=1.0, read_burst=1, concurrent_reads=1
)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def tenant(number: int) -> Tenant:
    return Tenant(
        id=f"acme-{number}",
        registration="0" * 32,
        name=f"Acme {number}",
        queue_path=f"Acme-{number}",
        status="active",
        deleting_since=None,
        limits=LIMITS,
        suppression=SuppressionSettings(revocation_scope="all", topic_since=None, whatsapp="apart"),
        audit=AuditRetention(retention_days=None),
        keys=(),
        channels=(),
        revision=1,
        created_at=NOW,
        updated_at=NOW,
    )


async def pages(count: int) -> AsyncIterator[Page[Tenant]]:
    for first in range(0, count, 50):
        rows = tuple(tenant(number) for number in range(first, min(count, first + 50)))
        yield Page(rows, str(first + 50) if first + 50 < count else "")


async def test_a_search_that_many_fit_ends_when_its_page_is_full() -> None:
    found, looked = await fitting(pages(1_000), "ACME")
    assert (len(found.rows), looked, found.next_cursor) == (50, 50, "50")


async def test_a_search_that_few_fit_looks_at_so_many_at_most_and_goes_on() -> None:
    found, looked = await fitting(pages(1_000), "acme-99")
    assert ([one.id for one in found.rows], looked, found.next_cursor) == (["acme-99"], LOOKED_AT, str(LOOKED_AT))
    found, looked = await fitting(pages(70), "-69")
    assert ([one.id for one in found.rows], looked, found.next_cursor) == (["acme-69"], 70, "")
