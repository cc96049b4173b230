"""Replays as tenants ask for them: begun, read and cancelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import ceil
from secrets import token_hex
from typing import Any

from backhaul_common import mongo, pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.fence import living
from backhaul_common.ids import derived_id
from backhaul_common.limits import MAX_IDEMPOTENCY_KEY
from backhaul_common.names import REPLAYS_COLLECTION, callbacks_subject, channel_key, check_label
from backhaul_common.tenants import Tenant
from backhaul_common.vocabulary import Words
from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from pymongo.errors import DuplicateKeyError

from backhaul_normalizer.heldstream import HeldStream
from backhaul_normalizer.ports import KnownTenants
from backhaul_normalizer.preview import tenant_with

KINDS = Words(pb.ReplayKind.DESCRIPTOR)

MAX_OPEN = 10
"""Replays of one tenant that are not over."""

MAX_REASON = 200

MAX_RATE_PER_S = 10_000

KEPT = timedelta(days=30)
"""After its end."""

AWAITED = "What was sent through waits to be processed."
"""Of dead letters. Their counts change meanwhile, also when they were cancelled."""

_MAX_READ_S = 4.0

_CLOCKS_US = 300_000_000
"""How far the clock of a gateway may be ahead of the broker's."""


class Replays:
    """The tasks. Documents, in ``REPLAYS_COLLECTION``::

    _id, registration, tenant, kind, channel, reason, from_us, to_us, dry_run, rate_per_s, author, created_at_us
    state                   waiting, running, done, cancelled or stopped; text says why
    ended_at_us, ends_at    when it was over, and when it goes
    open_since_us           there until nobody has to look at it any more
    at                      of callbacks: the next position; of dead letters: the last id
    first, last             of callbacks: the positions between which it goes
    stored_since_us         of callbacks: what arrived before may be in the stream no longer
    overtaken               there where something may have left the stream before it was read
    counts, examples        what was found
    took_us                 how long pages took, with the rest between them
    rest_until              there where the rate lets no page begin before
    awaited_until_us        there when all dead letters were sent through: how long it is awaited what becomes of them
    awaited_seq             the position that is to be processed then
    unpublished             ids of events that were stored, and may not have been published
    owner, epoch, until     the lease
    """

    def __init__(
        self,
        database: mongo.Database,
        tenants: KnownTenants,
        stream: HeldStream,
        now_us: Callable[[], int],
        on_changed: Callable[[], None],
    ) -> None:
        """``on_changed`` is called when there is something to be worked."""
        self._database = database
        self._rows = database[REPLAYS_COLLECTION]
        self._tenants = tenants
        self._stream = stream
        self._now_us = now_us
        self._on_changed = on_changed

    async def begin(self, request: pb.BeginReplayRequest) -> Document:
        """The task, stored; the one that the idempotency key began before. Errors as in the contract; UNAVAILABLE."""
        key = request.idempotency_key
        _check(request)
        tenant = await self._tenants.require(request.tenant_id)
        asked = await self._asked(tenant, request)
        id_ = derived_id("replay", tenant.registration, key) if key else token_hex(16)
        if key and (known := await self._find(tenant.registration, id_)) is not None:
            return _same(known, asked)
        row = {"_id": id_, "registration": tenant.registration, "tenant": tenant.id, **asked}
        now_us = self._now_us()
        row |= {"author": request.author, "created_at_us": now_us, "open_since_us": now_us, "state": "waiting"}
        row |= {"text": "", "to_us": row["to_us"] or now_us, "to_given": bool(row["to_us"]), "at": None}
        row |= {"counts": {}, "examples": [], "unpublished": [], "owner": "", "epoch": 0}
        if row["kind"] == "callbacks":
            row |= await self._span(tenant, row)
        try:
            await self._insert(tenant, row)
        except DuplicateKeyError:
            # The same request, a moment earlier.
            known = await self._find(tenant.registration, id_)
            return _same(known or row, asked)
        self._on_changed()
        return row

    async def _span(self, tenant: Tenant, row: Document) -> Document:
        """Where in the stream its callbacks can lie. They are stored after they arrived, by another clock."""
        first, last, stored_since_us = await self._stream.ends()
        subject = callbacks_subject(tenant.queue_path, row["channel"])
        if (since_us := row["from_us"] - _CLOCKS_US) > stored_since_us:
            first = await self._stream.first_since(subject, since_us) or last + 1
        return {"first": first, "last": last, "stored_since_us": stored_since_us}

    async def _asked(self, tenant: Tenant, request: pb.BeginReplayRequest) -> Document:
        channel = channel_key(check_label(request.channel, field="channel")) if request.channel else ""
        kind = KINDS.by_number.get(request.kind, "")
        if kind == "callbacks":
            await tenant_with(self._tenants, tenant.id, channel)
        return {
            "kind": kind,
            "channel": channel,
            "reason": request.reason,
            "from_us": request.from_us,
            "to_us": request.to_us,
            "dry_run": request.dry_run,
            "rate_per_s": request.rate_per_s,
        }

    async def _insert(self, tenant: Tenant, row: Document) -> None:
        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            lives = living(database, session, [tenant.id]).get(tenant.id)
            if lives is None or lives.registration != tenant.registration:
                raise BackhaulError(Code.NOT_FOUND, "The tenant is gone.", field="tenant_id", fix="Check the id.")
            rows = database[REPLAYS_COLLECTION]
            query = {"registration": tenant.registration, "open_since_us": {"$exists": True}}
            if rows.count_documents(query, limit=MAX_OPEN, session=session) >= MAX_OPEN:
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"The tenant has {MAX_OPEN} replays that are not over.",
                    fix="Wait until one is over, or cancel one.",
                )
            rows.insert_one(row, session=session)

        async with mongo.translated():
            await mongo.in_transaction(self._database, work)

    async def get(self, tenant_id: str, id_: str) -> Document:
        """One. NOT_FOUND; UNAVAILABLE."""
        row = await self._find((await self._tenants.require(tenant_id)).registration, id_)
        if row is None:
            raise _no_replay()
        return row

    async def list(self, tenant_id: str, size: int, token: str) -> tuple[list[Document], str]:
        """A page, newest first, without examples; and the token of the next, empty on the last."""
        registration = (await self._tenants.require(tenant_id)).registration
        query = pages.Query(
            REPLAYS_COLLECTION, "created_at_us", registration, size=size, token=token, without="examples"
        )
        try:
            return await pages.page(self._database, query, within_s=_MAX_READ_S)
        except pages.TooLongError as exc:
            raise BackhaulError(Code.DEADLINE_EXCEEDED, "It took too long.", fix="Ask again.") from exc

    async def cancel(self, tenant_id: str, id_: str) -> Document:
        """End one; it as it is then. Whoever works it ends the page that is under way. NOT_FOUND; UNAVAILABLE."""
        registration = (await self._tenants.require(tenant_id)).registration
        query = {"_id": id_, "registration": registration, "state": {"$in": ["waiting", "running"]}}
        sends = {"$and": [{"$eq": ["$kind", "dead_letters"]}, {"$not": ["$dry_run"]}]}
        text = {"$cond": [sends, AWAITED, ""]}
        update = {"$set": {"state": "cancelled", "text": text, **ending(self._now_us())}}
        async with mongo.operation():
            row: Document | None = await self._rows.find_one_and_update(query, [update], return_document=True)
        if row is None:
            return await self.get(tenant_id, id_)
        self._on_changed()
        return row

    async def _find(self, registration: str, id_: str) -> Document | None:
        async with mongo.operation():
            row: Document | None = await self._rows.find_one({"_id": id_, "registration": registration})
        return row


def settles(row: Mapping[str, Any]) -> bool:
    """Whether it is counted at its end what became of what it sent through."""
    return row["kind"] == "dead_letters" and not row["dry_run"]


def ending(now_us: int) -> Document:
    """What is set of one that is over."""
    return {"ended_at_us": now_us, "ends_at": datetime.fromtimestamp(now_us / 1e6, UTC) + KEPT}


def _check(request: pb.BeginReplayRequest) -> None:
    """INVALID_ARGUMENT names the field at fault."""
    if request.kind not in KINDS.by_number:
        raise _invalid("kind", "It is not said what is to be replayed.", f"Use one of: {', '.join(KINDS.words)}.")
    pages.span_of(request.from_us, request.to_us)
    if request.to_us and request.from_us >= request.to_us:
        raise _invalid("to_us", "The span ends before it begins.", "Pass a later end; it is exclusive.")
    if len(request.idempotency_key) > MAX_IDEMPOTENCY_KEY:
        raise _invalid("idempotency_key", f"The key is longer than {MAX_IDEMPOTENCY_KEY} characters.", "Shorten it.")
    if not 0 <= request.rate_per_s <= MAX_RATE_PER_S:
        raise _invalid("rate_per_s", "The rate is out of range.", f"Pass 1 to {MAX_RATE_PER_S}, or leave it out.")
    if request.rate_per_s and request.kind != pb.REPLAY_KIND_CALLBACKS:
        raise _invalid("rate_per_s", "Only callbacks have a rate.", "Leave it out.")
    if len(request.reason) > MAX_REASON or "\x00" in request.reason:
        raise _invalid("reason", f"A reason is looked for by {MAX_REASON} characters at most, none NUL.", "Shorten it.")
    if request.kind == pb.REPLAY_KIND_CALLBACKS:
        if not request.channel:
            raise _invalid("channel", "The channel is missing.", "Name the channel whose callbacks are meant.")
        if not request.from_us:
            raise _invalid("from_us", "The beginning is missing.", "Say from which arrival on.")
        if request.reason:
            raise _invalid("reason", "Callbacks have no reason.", "Leave it out.")
    elif not (request.channel or request.reason or request.from_us or request.to_us):
        raise _invalid(
            "channel", "Nothing says which dead letters are meant.", "Pass a channel, a reason, or an end of a span."
        )


def _invalid(field: str, message: str, fix: str) -> BackhaulError:
    return BackhaulError(Code.INVALID_ARGUMENT, message, field=field, fix=fix)


def takes_s(row: Document) -> int:
    """How long what was read so far of callbacks takes at the least: by the rate, or as long as it took."""
    took_s: float = row.get("took_us", 0) / 1e6
    rate: int = row.get("rate_per_s", 0)
    return ceil(max(took_s, row["counts"].get("callbacks", 0) / rate if rate else 0))


def _same(known: Document, asked: Document) -> Document:
    """``known`` if it is what was asked for; CONFLICT otherwise."""
    # One that the version before began has no rate.
    given = {"rate_per_s": 0, **known, "to_us": known["to_us"] if known["to_given"] else 0}
    if any(given[name] != value for name, value in asked.items()):
        raise BackhaulError(
            Code.CONFLICT,
            "Another request had this idempotency key.",
            field="idempotency_key",
            fix="Use a new key for another request.",
        )
    return known


def _no_replay() -> BackhaulError:
    return BackhaulError(
        Code.NOT_FOUND, "There is no such replay.", field="id", fix="List the replays to see their ids."
    )
