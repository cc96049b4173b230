"""Who must not be contacted, over HTTP: a tenant's calls, and what they answer.

For programs inside of the installation, which ask thousands of times a second, ``backhaul_client.suppression`` asks the
service itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypedDict, TypeVar, Unpack
from uuid import uuid4

from backhaul_client.calls import Call, Content, call, given, lines, of, page_of, pieces, rows
from backhaul_client.paging import Page
from backhaul_client.suppressionmodels import (
    AddressRecord,
    BatchChecked,
    Checked,
    CheckItem,
    Imported,
    ImportProgress,
    Reactivated,
    Suppression,
    SuppressionChanges,
    SuppressionOutcome,
)

T = TypeVar("T")

_ROOT = "/v1/suppressions"
_PAGE = 100
_SILENT_S = 600.0
"""How long nothing may be told of a list: its sender may be slow. One that no longer moves is ended by the gateway."""
FORMATS: Mapping[str, str] = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


class EvidenceIn(TypedDict, total=False):
    """Proof that a person said something: by which way, when, and where you find it."""

    source: str
    at: datetime
    reference: str
    text: str


class LiftedIn(TypedDict, total=False):
    """What may be said where a suppression is lifted. Without ``scope_kind`` it is the one of everything."""

    family: str
    scope_kind: str
    scope_id: str
    note: str
    idempotency_key: str


class ConsentedIn(LiftedIn, total=False):
    """The same of a tenant, who proves by ``evidence`` that the person consents."""

    evidence: EvidenceIn | None


class SuppressedIn(ConsentedIn, total=False):
    """What may be said where an address is suppressed: besides, by which way it was heard of, and when it happened;
    left out, now."""

    source: str
    effective_at: datetime | None


class SuppressionCalls:
    """The calls, once for both clients."""

    @rows
    def suppressions(
        self,
        *,
        family: str = "",
        kind: str = "",
        origin: str = "",
        scope_kind: str = "",
        scope_id: str = "",
        standing: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[Suppression]]:
        """Who is suppressed, the latest change first; with ``standing`` (``lifted``, ``any``) those who were. ``from_``
        and ``to`` bound when it was recorded. A row that changes between two pages may be on none of them: for the
        whole take ``export_suppressions``, and ``suppression_changes`` to keep up with it."""
        params = given(
            family=family,
            kind=kind,
            origin=origin,
            scope_kind=scope_kind,
            scope_id=scope_id,
            standing=standing,
            from_=from_,
            to=to,
            limit=page_size,
            cursor=cursor,
        )
        return Call(path=_ROOT, params=params, answer=page_of("suppressions", Suppression))

    @call
    def suppression_record(
        self, address: str, *, family: str = "", page_size: int = _PAGE, cursor: str = ""
    ) -> Call[AddressRecord]:
        """All that is known of an address: every row, lifted ones too, and a page of its history."""
        params = given(address=address, family=family, limit=page_size, cursor=cursor)
        return Call(path=f"{_ROOT}/address", params=params, answer=of(AddressRecord))

    @call
    def suppression_changes(
        self,
        after: int | None = None,
        *,
        wait: float = 0,
        family: str = "",
        kinds: str = "",
        limit: int = _PAGE,
    ) -> Call[SuppressionChanges]:
        """What has changed behind the position ``after``, or from now on. With ``wait`` the answer comes with the first
        change, or after so many seconds: stay below the client's ``timeout_s``."""
        params = given(after=after, wait=str(wait), family=family, kinds=kinds, limit=limit)
        return Call(path=f"{_ROOT}/changes", params=params, answer=of(SuppressionChanges))

    @call
    def suppress(self, address: str, kind: str, **said: Unpack[SuppressedIn]) -> Call[SuppressionOutcome]:
        """Record that a person must not be contacted, whoever said so and wherever. It may be repeated under one key;
        without one, it has one of its own."""
        return changing_row(_ROOT, address, kind, **said)

    @call
    def lift_suppression(self, address: str, kind: str, **said: Unpack[ConsentedIn]) -> Call[SuppressionOutcome]:
        """Lift what the tenant may lift; ``FailedPreconditionError`` names the rule where it may not."""
        return changing_row(f"{_ROOT}/lift", address, kind, **said)

    @call
    def reactivate(
        self, address: str, *, family: str = "", note: str = "", idempotency_key: str = ""
    ) -> Call[Reactivated]:
        """Say that an address works again."""
        return _changing(f"{_ROOT}/reactivate", idempotency_key, Reactivated, address=address, family=family, note=note)

    @call
    def check(
        self,
        address: str,
        *,
        family: str = "",
        purpose: str = "",
        sender: str | None = None,
        messaging_service: str | None = None,
        group: str | None = None,
    ) -> Call[Checked]:
        """Whether an address may be contacted with such a message. ``UnavailableError`` where nobody can tell for sure:
        take that for *no*. What is None may be any; an empty text is none."""
        body = _given(
            address=address,
            family=family or None,
            purpose=purpose or None,
            sender=sender,
            messaging_service=messaging_service,
            group=group,
        )
        return Call(method="POST", path=f"{_ROOT}/check", body=body, answer=of(Checked), repeatable=True)

    @call
    def check_batch(
        self,
        items: Sequence[CheckItem] | Iterable[CheckItem],
        *,
        family: str = "",
        purpose: str = "",
        sender: str | None = None,
        messaging_service: str | None = None,
        group: str | None = None,
    ) -> Call[BatchChecked]:
        """The same of up to 10,000 addresses, in their order."""
        body = _given(
            items=tuple(items),
            family=family or None,
            purpose=purpose or None,
            sender=sender,
            messaging_service=messaging_service,
            group=group,
        )
        return Call(method="POST", path=f"{_ROOT}/check-batch", body=body, answer=of(BatchChecked), repeatable=True)

    @call
    def import_suppressions(
        self,
        content: Content,
        *,
        format: Literal["csv", "jsonl"] = "csv",  # noqa: A002  # as the API calls it
        kind: str = "",
        family: str = "",
        scope_kind: str = "",
        scope_id: str = "",
        effective_at: datetime | None = None,
    ) -> Call[Imported]:
        """Take over a list, as bytes, or in pieces: a file that is open for reading bytes. The parameters are for lines
        that do not say it themselves. The same list again changes nothing."""
        params = given(kind=kind, family=family, scope_kind=scope_kind, scope_id=scope_id, effective_at=effective_at)
        return _list(params, content, format, of(Imported))

    @lines
    def following_import(
        self,
        content: Content,
        *,
        format: Literal["csv", "jsonl"] = "csv",  # noqa: A002  # as the API calls it
        kind: str = "",
        family: str = "",
        scope_kind: str = "",
        scope_id: str = "",
        effective_at: datetime | None = None,
    ) -> Call[ImportProgress]:
        """The same, and how far it is, again and again, with all the refused lines. A blocking client tells it when all
        is sent. Only where the last one is ``done`` was the list taken to its end."""
        params = given(
            kind=kind,
            family=family,
            scope_kind=scope_kind,
            scope_id=scope_id,
            effective_at=effective_at,
            progress=True,
        )
        return _list(params, content, format, of(ImportProgress))

    @pieces
    def export_suppressions(
        self,
        *,
        format: Literal["csv", "jsonl"] = "csv",  # noqa: A002  # as the API calls it
        family: str = "",
        kind: str = "",
        standing: str = "",
    ) -> Call[bytes]:
        """The list as a file, which ``import_suppressions`` takes."""
        params = given(format=format, family=family, kind=kind, standing=standing)
        return Call(path=f"{_ROOT}/export", params=params, answer=bytes)


def _list(params: Mapping[str, str], content: Content, form: str, answer: Callable[[bytes], T]) -> Call[T]:
    """The call that takes over a list."""
    return Call(
        method="POST",
        path=f"{_ROOT}/import",
        params=params,
        content=content,
        headers={"Content-Type": FORMATS[form]},
        answer=answer,
        silent_s=_SILENT_S,
    )


def changing_row(path: str, address: str, kind: str, **said: Unpack[SuppressedIn]) -> Call[SuppressionOutcome]:
    """The call that suppresses an address, or lifts that, for a tenant or the operator."""
    scope = given(kind=said.pop("scope_kind", ""), id=said.pop("scope_id", ""))
    key = said.pop("idempotency_key", "")
    return _changing(path, key, SuppressionOutcome, address=address, kind=kind, scope=scope, **said)


def _changing(path: str, key: str, answer: type[T], **fields: object) -> Call[T]:
    """A call that says something of an address. It is carried out once, however often it is sent."""
    return Call(
        method="POST",
        path=path,
        body={name: value for name, value in fields.items() if value not in (None, "", {})},
        headers={"Idempotency-Key": key or str(uuid4())},
        answer=of(answer),
        repeatable=True,
    )


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}
