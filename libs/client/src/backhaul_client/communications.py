"""What a tenant sends, over HTTP: communications, their batches, and these batches' members."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Literal, TypedDict

import msgspec

from backhaul_client.calls import Call, Content, aware, call, entry, given, lines, of, page_of, path, rows
from backhaul_client.communicationmodels import (
    Batch,
    CommunicationRecord,
    CommunicationSummary,
    Member,
    MembersAdded,
    MembersImported,
    RefusedMember,
)
from backhaul_client.models import decoded
from backhaul_client.paging import Page
from backhaul_client.suppressions import FORMATS
from backhaul_client.transport import AsyncPart, Part

_EXAMPLE = '{"member_key": "anna"}'
_PAGE = 100
_SENT_AT_ONCE = 5_000
_JSON_LINES = FORMATS["jsonl"]


class DestinationIn(TypedDict, total=False):
    """One message to a person. Without a ``channel`` it goes by the communication's; ``message_id`` says, where it is
    known, that it was sent."""

    channel: str
    recipient: str
    message_id: str


class _Key(TypedDict):
    member_key: str


class MemberIn(_Key, total=False):
    """One person, by the sender's own key, which is unique within the batch."""

    attributes: Mapping[str, str]
    destinations: Sequence[DestinationIn]


class CommunicationCalls:
    """The calls about communications, once for both clients."""

    @call
    def put(
        self,
        communication_id: str,
        *,
        name: str = "",
        mode: str = "",
        channel: str = "",
        notify: Sequence[str] = (),
        deadline_hours: float | None = None,
        completes_on: str = "",
        environments: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Call[CommunicationSummary]:
        """Register a communication, or replace what is registered of it: what is left out is as it is by default (72
        hours, ``processed``). Repeated, it changes nothing."""
        return Call(
            method="PUT",
            path=path("v1", "communications", communication_id),
            body=_told(
                name=name,
                mode=mode,
                channel=channel,
                notify=tuple(notify),
                deadline_hours=deadline_hours,
                completes_on=completes_on,
                environments=environments,
            ),
            answer=of(CommunicationSummary),
            repeatable=True,
        )

    @call
    def get(self, communication_id: str) -> Call[CommunicationRecord]:
        """All that is known of one."""
        return Call(path=path("v1", "communications", communication_id), answer=of(CommunicationRecord))

    @rows
    def list(
        self,
        *,
        status: str = "",
        mode: str = "",
        channel: str = "",
        registered: bool = False,
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[CommunicationSummary]]:
        """Communications, newest first; only those that are ``registered``, if asked so. ``from_`` and ``to`` bound
        when they were registered or first named."""
        params = given(
            status=status,
            mode=mode,
            channel=channel,
            registered=registered or None,
            from_=from_,
            to=to,
            limit=page_size,
            cursor=cursor,
        )
        return Call(path="/v1/communications", params=params, answer=page_of("communications", CommunicationSummary))

    @call
    def disable(self, communication_id: str, *, reason: str, author: str = "") -> Call[CommunicationSummary]:
        """Have nothing called on its behalf any more; callbacks are taken as ever. Without an ``author`` it is the API
        key."""
        return _switching(communication_id, "disable", reason, author)

    @call
    def enable(self, communication_id: str, *, reason: str = "", author: str = "") -> Call[CommunicationSummary]:
        """Take that back."""
        return _switching(communication_id, "enable", reason, author)


class BatchCalls:
    """The calls about batches, once for both clients."""

    @call
    def put(
        self,
        communication_id: str,
        batch_id: str,
        *,
        label: str = "",
        expected_members: int | None = None,
        deadline: datetime | None = None,
    ) -> Call[Batch]:
        """Register a batch of a registered communication, or put all of this in the place of what is registered: a
        ``label`` and ``expected_members`` that are left out are taken away, a ``deadline`` stays. It closes by itself
        when ``expected_members`` are there, else by ``close``. Repeated, it changes nothing."""
        return Call(
            method="PUT",
            path=path("v1", "communications", communication_id, "batches", batch_id),
            body=_told(
                label=label,
                expected_members=expected_members,
                deadline=aware("deadline", deadline) if deadline is not None else None,
            ),
            answer=of(Batch),
            repeatable=True,
        )

    @rows
    def list(
        self, *, communication: str = "", status: str = "", page_size: int = _PAGE, cursor: str = ""
    ) -> Call[Page[Batch]]:
        """Batches, newest first."""
        params = given(communication=communication, status=status, limit=page_size, cursor=cursor)
        return Call(path="/v1/batches", params=params, answer=page_of("batches", Batch))

    @call
    def get(self, batch_id: str) -> Call[Batch]:
        """One batch, and how far it is."""
        return Call(path=path("v1", "batches", batch_id), answer=of(Batch))

    @call
    def close(self, batch_id: str) -> Call[Batch]:
        """Take no member more. ``FailedPreconditionError`` where fewer are there than are expected. Repeated, it
        changes nothing."""
        return Call(method="POST", path=path("v1", "batches", batch_id, "close"), answer=of(Batch), repeatable=True)

    @lines
    def members(self, batch_id: str) -> Call[Member]:
        """All members with what became of each, as they are read: ``UnreachableError`` where that breaks off."""
        return Call(
            path=path("v1", "batches", batch_id),
            params=given(includemembers=True),
            headers={"Accept": _JSON_LINES},
            answer=of(Member),
        )

    @rows
    def member_pages(self, batch_id: str, *, page_size: int = _PAGE, cursor: str = "") -> Call[Page[Member]]:
        """The same by pages, 1,000 at most in one, for whoever goes on later."""
        params = given(includemembers=True, limit=page_size, cursor=cursor)
        return Call(path=path("v1", "batches", batch_id), params=params, answer=page_of("members", Member))

    @call
    def import_members(
        self,
        batch_id: str,
        content: Content,
        *,
        format: Literal["csv", "jsonl"] = "csv",  # noqa: A002  # as the API calls it
    ) -> Call[MembersImported]:
        """Add members of a file, as bytes, or in pieces: a file that is open for reading bytes. The same file again
        changes nothing."""
        return Call(
            method="POST",
            path=path("v1", "batches", batch_id, "members"),
            content=content,
            headers={"Content-Type": FORMATS[format]},
            answer=of(MembersImported),
            # Pieces can be read once.
            repeatable=isinstance(content, bytes),
        )


class Communications(CommunicationCalls, Part):
    """``TenantClient.communications``."""


class AsyncCommunications(CommunicationCalls, AsyncPart):
    """``AsyncTenantClient.communications``."""


class Batches(BatchCalls, Part):
    """``TenantClient.batches``."""

    def add_members(
        self, batch_id: str, members: Iterable[MemberIn], *, page_size: int = _SENT_AT_ONCE
    ) -> MembersAdded:
        """Add members to an open batch, however many, some thousands in a request. Whoever is there already gets what
        is told now, and destinations are added. Repeated, all of it, it changes nothing: after an error send it
        again."""
        told = _Sum()
        for page in _pages(members, page_size):
            told.add(page, self.import_members(batch_id, _lines_of(page), format="jsonl"))
        return told.result()


class AsyncBatches(BatchCalls, AsyncPart):
    """``AsyncTenantClient.batches``."""

    async def add_members(
        self, batch_id: str, members: Iterable[MemberIn] | AsyncIterable[MemberIn], *, page_size: int = _SENT_AT_ONCE
    ) -> MembersAdded:
        """As of ``Batches``."""
        told = _Sum()
        async for page in _pages_later(members, page_size):
            told.add(page, await self.import_members(batch_id, _lines_of(page), format="jsonl"))
        return told.result()


class _Sum:
    """What became of all pages together."""

    def __init__(self) -> None:
        self._sent = self._added = self._changed = self._unchanged = self._refused = 0
        self._refusals: list[RefusedMember] = []

    def add(self, page: Sequence[MemberIn], told: MembersImported) -> None:
        """What became of one more page, in which a member is a line."""
        # Only that ends a line: what was sent stands in it as it was written, with whatever others take for an end.
        for line in filter(None, told.errors.split("\n")):
            error = decoded(line.encode(), _ErrorLine)
            place = int(error.error_line) - 1
            self._refusals.append(
                RefusedMember(
                    position=self._sent + place,
                    member_key=str(page[place].get("member_key", "")),
                    field=error.error_field,
                    message=error.error_message,
                    fix=error.error_fix,
                )
            )
        self._sent += len(page)
        self._added += told.added
        self._changed += told.changed
        self._unchanged += told.unchanged
        self._refused += told.refused

    def result(self) -> MembersAdded:
        """All of it."""
        return MembersAdded(
            added=self._added,
            changed=self._changed,
            unchanged=self._unchanged,
            refused=self._refused,
            refusals=tuple(self._refusals),
        )


class _ErrorLine(msgspec.Struct):
    error_line: str
    error_field: str
    error_message: str
    error_fix: str


def _lines_of(page: Sequence[MemberIn]) -> bytes:
    return b"".join([msgspec.json.encode(member) + b"\n" for member in page])


def _pages(members: Iterable[MemberIn], size: int) -> Iterator[Sequence[MemberIn]]:
    _check_size(size)
    rest = (entry("members", number, member, _EXAMPLE) for number, member in enumerate(members))
    while page := tuple(islice(rest, size)):
        yield page


async def _pages_later(
    members: Iterable[MemberIn] | AsyncIterable[MemberIn], size: int
) -> AsyncIterator[Sequence[MemberIn]]:
    if isinstance(members, Iterable):
        for page in _pages(members, size):
            yield page
        return
    _check_size(size)
    gathered: list[MemberIn] = []
    number = 0
    async for member in members:
        gathered.append(entry("members", number, member, _EXAMPLE))
        number += 1
        if len(gathered) == size:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"page_size is {size}: pass how many members one request has, 1 at least.")


def _told(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value not in (None, "", ())}


def _switching(communication_id: str, action: str, reason: str, author: str) -> Call[CommunicationSummary]:
    return Call(
        method="POST",
        path=path("v1", "communications", communication_id, action),
        body=_told(reason=reason, author=author),
        answer=of(CommunicationSummary),
        repeatable=True,
    )
