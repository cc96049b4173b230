"""An export is what an import takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

import pytest
from backhaul_common.ids import derived_id
from backhaul_common.lines.formats import FileFormat
from backhaul_common.tenants import SuppressionSettings
from backhaul_suppression.files import times
from backhaul_suppression.files.exporting import Export
from backhaul_suppression.files.formats import FORMATS
from backhaul_suppression.files.importing import Import, Progress
from backhaul_suppression.files.statements import Defaults
from backhaul_suppression.lane import Lane
from backhaul_suppression.model import Evidence, Family, Kind, Row, Scope, ScopeKind, Source, Target
from backhaul_suppression.ports import RowsQuery
from backhaul_suppression.reads import MongoReads
from backhaul_suppression.rules import wrong_with_scope
from backhaul_testing import make
from held_facts import HeldFacts
from store_rig import AtOnce, Rig, fact, now_us

ACTIVE = RowsQuery()
NOTE = 'He said "no",\r\nand =left;\ttwice é'


@pytest.fixture
async def reads(rig: Rig) -> MongoReads:
    await rig.register(make.tenant("acme"), make.tenant("other"))
    return MongoReads(rig.database)


async def exported(reads: MongoReads, file_format: FileFormat, query: RowsQuery = ACTIVE, of: str = "acme") -> bytes:
    return b"".join([piece async for piece in Export(reads).run(f"{of}.1", file_format, query)])


def lines_of(content: bytes, file_format: FileFormat = FileFormat.CSV) -> list[list[tuple[str, str]]]:
    """What the lines say, in no order of theirs: that of an address's rows differs between tenants."""
    reader = FORMATS[file_format].reader()
    return sorted(sorted(line.values.items()) for line in [*reader.feed(content), *reader.end()])


async def imported(rig: Rig, content: bytes, file_format: FileFormat, of: str, **defaults: Any) -> Progress:
    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(content), 1_000):
            yield content[begin : begin + 1_000]

    lane = Lane(rig.store(), AtOnce())
    try:
        whose = Defaults(of, f"{of}.1", now_us(), operator=True, **defaults)
        return [told async for told in Import(lane, HeldFacts()).run(pieces(), file_format, whose)][-1]
    finally:
        await lane.close()


def scopes_of(kind: Kind, number: int) -> list[Scope]:
    """Those of which a list may say the kind."""
    scopes = [Scope(one, "" if one is ScopeKind.ALL else f"id, {number}") for one in ScopeKind]
    return [scope for scope in scopes if wrong_with_scope(kind, scope) is None]


ROWS = sum(len(scopes_of(kind, 0)) for kind in Kind) + 2


async def filled(rig: Rig, of: str = "acme") -> None:
    """Rows of every kind, scope and family, two of them lifted, and all that a line can hold."""
    facts = []
    for number, kind in enumerate(Kind):
        for scope in scopes_of(kind, number):
            at_us = 1_700_000_000_000_000 + number
            facts.append(
                fact(
                    derived_id(of, kind, scope.kind),
                    at_us,
                    of=of,
                    address=f"+1415555{number:04}",
                    targets=[Target(kind, scope)],
                    source=list(Source)[number],
                    evidence=Evidence(Source.WEB, at_us, 'ticket "7"') if number % 2 else None,
                    note=NOTE if number % 3 else "",
                )
            )
    facts.append(fact(derived_id("mail"), 5, of=of, address="a@example.com", family=Family.EMAIL))
    facts.append(fact(derived_id("call"), 6, of=of, family=Family.VOICE))
    lifted = [
        replace(one, id=derived_id("lift", one.id), lifts=True, effective_at_us=one.effective_at_us + 1)
        for one in facts[:2]
    ]
    await rig.store().commit([*facts, *lifted])


@pytest.mark.parametrize("file_format", list(FileFormat))
async def test_an_import_of_an_export_makes_the_same_rows(rig: Rig, reads: MongoReads, file_format: FileFormat) -> None:
    await filled(rig)
    content = await exported(reads, file_format)
    progress = await imported(rig, content, file_format, "other")
    active = ROWS - 2
    assert (progress.lines, progress.changed, progress.refused) == (active, active, 0)
    assert lines_of(await exported(reads, file_format, of="other"), file_format) == lines_of(content, file_format)
    # At home it changes nothing.
    changes = await rig.changes()
    again = await imported(rig, content, file_format, "acme")
    assert (again.changed, again.unchanged) == (0, active)
    assert await rig.changes() == changes
    await rig.check()


@pytest.mark.parametrize("whatsapp", ["apart", "phone"])
async def test_a_list_without_times_comes_home_and_changes_nothing(
    rig: Rig, reads: MongoReads, whatsapp: Literal["apart", "phone"]
) -> None:
    settings = SuppressionSettings(whatsapp=whatsapp)
    numbers = [f"+1415555{number:04}" for number in range(40)]
    addresses = [*numbers, *(f"whatsapp:{number}" for number in numbers[:20])]
    content = "\n".join(["address", *addresses]).encode()
    progress = await imported(rig, content, FileFormat.CSV, "acme", settings=settings)
    assert (progress.lines, progress.refused) == (60, 0)
    changes = await rig.changes()
    assert len(changes) == {"apart": 60, "phone": 80}[whatsapp]
    for _ in range(2):
        home = await exported(reads, FileFormat.CSV)
        progress = await imported(rig, home, FileFormat.CSV, "acme", settings=settings)
        assert (progress.lines, progress.changed, progress.refused) == (len(changes), 0, 0)
        assert await rig.changes() == changes
    await rig.check()


async def test_lifted_rows_are_exported_as_lifted_and_imported_as_nothing(rig: Rig, reads: MongoReads) -> None:
    await filled(rig)
    content = await exported(reads, FileFormat.CSV, RowsQuery(active=None))
    lines = content.decode().split("\r\n")
    assert lines[0].endswith(",standing")
    assert sum(line.endswith(",lifted") for line in lines) == 2
    progress = await imported(rig, content, FileFormat.CSV, "other")
    assert (progress.lines, progress.changed, progress.unchanged) == (ROWS, ROWS - 2, 2)


async def test_numbers_are_written_as_they_are(rig: Rig, reads: MongoReads) -> None:
    await rig.store().commit([fact("1", 1_700_000_000_000_000, note="=1+1")])
    assert await exported(reads, FileFormat.CSV) == (
        b"address,family,kind,scope_kind,scope,effective_at,source,reference,note\r\n"
        b"+15005550001,phone,stop,all,,2023-11-14T22:13:20.000000Z,event,,=1+1\r\n"
    )
    assert await exported(reads, FileFormat.JSON_LINES) == (
        b'{"address":"+15005550001","family":"phone","kind":"stop","scope_kind":"all",'
        b'"effective_at":"2023-11-14T22:13:20.000000Z","source":"event","note":"=1+1"}\n'
    )


async def test_an_empty_list_is_a_header(reads: MongoReads) -> None:
    assert (await exported(reads, FileFormat.CSV)).count(b"\r\n") == 1
    assert await exported(reads, FileFormat.JSON_LINES) == b""


@pytest.mark.parametrize("query", [RowsQuery(family=Family.EMAIL), RowsQuery(kind=Kind.LEGAL), RowsQuery(active=False)])
async def test_filters_and_tenants(rig: Rig, reads: MongoReads, query: RowsQuery) -> None:
    await filled(rig)
    content = await exported(reads, FileFormat.CSV, query)
    fits: list[Row] = [
        row
        for row in (await rig.rows()).values()
        if query.family in {None, row.key.address.family}
        and query.kind in {None, row.key.kind}
        and row.active is query.active
    ]
    written = sorted(dict(line)["effective_at"] for line in lines_of(content))
    assert written == sorted(times.written(row.since_us) for row in fits)
    assert lines_of(await exported(reads, FileFormat.CSV, query, of="other")) == []
