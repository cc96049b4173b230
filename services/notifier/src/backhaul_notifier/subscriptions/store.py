"""Subscriptions as tenants change them, and as Backhaul itself decides about one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from secrets import token_hex
from typing import Any, Final

from backhaul_common import mongo, outbox, pages, wanted
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.limits import MAX_IDEMPOTENCY_KEY
from backhaul_common.logs import get_logger
from backhaul_common.names import NOTICES_WANTED_COLLECTION, NOTIFIER_OUTBOX, SUBSCRIPTIONS_COLLECTION
from backhaul_common.notices import entry, notice_id
from backhaul_common.revisioned import Directory
from backhaul_common.tenants import Tenant
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.notice.v1.notice_pb2 import About, Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from pymongo import ASCENDING, IndexModel

from backhaul_notifier.documents import MAX_RATE_PER_S, MAX_SUBSCRIPTIONS, State, is_alert
from backhaul_notifier.holding.switches import have_released, holds_back
from backhaul_notifier.model import Subscription
from backhaul_notifier.signing import SecretKind, SigningKey, new_key, parse_key, rotated
from backhaul_notifier.subscriptions import secrets_of, stored
from backhaul_notifier.subscriptions.alerts import WithAlerts
from backhaul_notifier.subscriptions.secrets_of import Seals, with_kept
from backhaul_notifier.subscriptions.validation import checked
from backhaul_notifier.subscriptions.writing import (
    Signals,
    Transaction,
    Writing,
    no_subscription,
    other_revision,
    other_was_made,
)

INDEXES: Final = {
    SUBSCRIPTIONS_COLLECTION: [
        IndexModel([("registration", ASCENDING), ("created_at_us", ASCENDING), ("_id", ASCENDING)]),
        IndexModel(
            [("registration", ASCENDING), ("made_by", ASCENDING)],
            unique=True,
            partialFilterExpression={"made_by": {"$exists": True}},
        ),
        IndexModel([("deleted", ASCENDING)], partialFilterExpression={"deleted": True}),
    ],
    NOTIFIER_OUTBOX: outbox.INDEXES,
    NOTICES_WANTED_COLLECTION: wanted.INDEXES,
}

KEY_US: Final = 86_400 * 1_000_000
"""For how long an idempotency key gives what it made."""

MAX_SECRETS: Final = 10
"""Keys that sign at once: each makes the header of every call longer."""

DEFAULT_GRACE_S: Final = 86_400

MAX_TEXT: Final = 1000
"""Characters of why Backhaul decided something: it is stored, and told in a notice."""

READ_S: Final = 5.0
_TRIES: Final = 5
_OF_RESTING: Final = ("rest_until_us", "rests", "slow_until_us", "failing_since_us")


class MongoSubscriptions:
    """The subscriptions. UNAVAILABLE from what reads or writes while MongoDB is away.

    It is a ``ports.Subscriptions`` as well.
    """

    def __init__(
        self,
        database: mongo.Database,
        directory: Directory[Subscription],
        seals: Seals,
        signals: Signals,
        *,
        check_address: Callable[[str], None],
        outbox_written: Callable[[], None],
        now_us: Callable[[], int],
    ) -> None:
        """``check_address`` is the door's; ``outbox_written`` that of the outbox NOTIFIER_OUTBOX."""
        self._rows = database[SUBSCRIPTIONS_COLLECTION]
        self._database = database
        self._known = WithAlerts(partial(_living, directory))
        directory.listen(self._known.changed)
        self._seals = seals
        self._signals = signals
        self._writing = Writing(database, signals)
        self._check_address = check_address
        self._outbox_written = outbox_written
        self._now_us = now_us

    async def create(
        self, tenant: Tenant, given: pb.Definition, *, key: str = "", secret: str = ""
    ) -> tuple[Subscription, SigningKey | None]:
        """A new subscription, and the key that was made with it; or the one that the idempotency key made, within a
        day, with that key while it is there.

        INVALID_ARGUMENT; CONFLICT where the key made another; FAILED_PRECONDITION where there are MAX_SUBSCRIPTIONS.
        """
        if len(key) > MAX_IDEMPOTENCY_KEY or not key.isprintable():
            text = f"It has more than {MAX_IDEMPOTENCY_KEY} characters, or unseen ones."
            raise _invalid("idempotency_key", text, "Shorten it.")
        definition = checked(given, self._check_address)
        now_us = self._now_us()
        id_ = f"sub_{token_hex(12)}"
        signing = _hmac(secret, now_us) if secret else new_key(SecretKind.HMAC, now_us)
        asked = hashlib.sha256(given.SerializeToString(deterministic=True) + b"\n" + secret.encode()).hexdigest()
        row: Document = {
            "_id": id_,
            "tenant": tenant.id,
            "registration": tenant.registration,
            "revision": 1,
            "definition": stored.document_of(self._seals.sealed_definition(id_, definition)),
            "state": "active",
            "state_since_us": now_us,
            "created_at_us": now_us,
            "updated_at_us": now_us,
            "secrets": [secrets_of.document_of(self._seals.sealed_key(id_, signing))],
        }
        if begins := await self._signals.ends():
            row["begins"] = dict(begins)
        if key:
            row |= {"made_by": key, "made_of": self._seals.sealed(id_, "made_of", asked)}

        def work(transaction: Transaction) -> Document:
            transaction.begin()
            before = transaction.made_by(key) if key else None
            if before is not None and before["created_at_us"] > now_us - KEY_US:
                if self._seals.unsealed(before["_id"], "made_of", before["made_of"]) != asked:
                    raise other_was_made()
                return before
            if before is not None:
                transaction.forget_key(before["_id"])
            if transaction.count() >= MAX_SUBSCRIPTIONS:
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"The tenant has {MAX_SUBSCRIPTIONS} subscriptions, and may have no more.",
                    field="tenant_id",
                    fix="Delete one, or let one be told of several types.",
                )
            transaction.insert(row)
            return row

        subscription = stored.readable(await self._writing.run(tenant.id, tenant.registration, work))
        if subscription.id == id_:
            return subscription, signing
        keys = [self._seals.key(subscription.id, each) for each in subscription.secrets]
        first = [each for each in keys if each.created_at_us == subscription.created_at_us]
        return subscription, first[0] if first else None

    async def require(self, registration: str, id_: str) -> Subscription:
        """One subscription, as it is now. NOT_FOUND; UNAVAILABLE where a newer version wrote it."""
        query = {"_id": id_, "registration": registration, "deleted": {"$ne": True}}
        async with mongo.operation():
            row = await self._rows.find_one(query)
        if row is None:
            raise no_subscription()
        return stored.readable(row)

    async def page(self, registration: str, size: int, token: str) -> tuple[list[Subscription], str]:
        """Subscriptions, oldest first, and the token of the next page. INVALID_ARGUMENT names ``page_size`` or
        ``page_token``."""
        rows = pages.Query(SUBSCRIPTIONS_COLLECTION, "created_at_us", registration, size=size).rows()
        condition: Document = {"registration": registration, "deleted": {"$ne": True}}
        if token:
            at_us, id_ = pages.position_in(token)
            later = {"created_at_us": {"$gt": at_us}}
            condition["$or"] = [later, {"created_at_us": at_us, "_id": {"$gt": id_}}]
        order = [("created_at_us", ASCENDING), ("_id", ASCENDING)]
        try:
            found, more = await pages.first(
                self._database, SUBSCRIPTIONS_COLLECTION, condition, order, rows, within_s=READ_S
            )
        except pages.TooLongError as exc:
            raise unavailable("MongoDB") from exc
        read = [stored.read_any(row) for row in found]
        return read, pages.token_of(read[-1].created_at_us, read[-1].id) if more else ""

    def validated(self, given: pb.Definition, before: Subscription | None = None) -> pb.Definition:
        """``given`` as it would be put in place of that of ``before``, or made, and plain. INVALID_ARGUMENT."""
        if before is not None:
            given = with_kept(given, self._seals.unsealed_definition(before.id, before.definition))
        return checked(given, self._check_address)

    async def update(self, tenant: Tenant, id_: str, given: pb.Definition, revision: int = 0) -> Subscription:
        """Put another definition in its place; secrets that are empty in it stay as they are.

        NOT_FOUND; INVALID_ARGUMENT; FAILED_PRECONDITION names ``revision`` where it is not of that one.
        """
        for _ in range(_TRIES):
            before = await self.require(tenant.registration, id_)
            if revision and before.revision != revision:
                raise other_revision(before.revision)
            made = self._seals.sealed_definition(id_, self.validated(given, before))
            put = partial(self._put, before=before, definition=made)
            after = await self._writing.run(tenant.id, tenant.registration, put)
            if after is not None:
                return after
        raise BackhaulError(
            Code.UNAVAILABLE, "The subscription changes all the time.", fix="Try again.", retry_after_s=1.0
        )

    def _put(self, transaction: Transaction, before: Subscription, definition: pb.Definition) -> Subscription | None:
        """None where it has changed since it was read."""
        transaction.begin()
        row = transaction.find(before.id)
        if row["revision"] != before.revision:
            return None
        values = {"definition": stored.document_of(definition), "updated_at_us": self._now_us()}
        after = stored.readable(transaction.change(row, values))
        if holds_back(before) and not holds_back(after):
            have_released(transaction.database, transaction.session, before.id, self._now_us(), all_=True)
            transaction.due.append(before.id)
        return after

    async def delete(self, tenant: Tenant, id_: str) -> None:
        """It is told nothing more; the sweep deletes its deliveries, and then it. NOT_FOUND."""

        def work(transaction: Transaction) -> None:
            transaction.begin()
            row = transaction.find(id_)
            values = {"deleted": True, "updated_at_us": self._now_us()}
            transaction.change(row, values, ("made_by", "made_of"))
            transaction.endpoint(id_, {"$unset": {"due_at_us": "", "tasks": ""}})

        await self._writing.run(tenant.id, tenant.registration, work)

    async def pause_by_call(self, tenant: Tenant, id_: str) -> Subscription:
        """Nothing more is sent. NOT_FOUND."""

        def work(transaction: Transaction) -> Document:
            transaction.begin()
            row = transaction.find(id_)
            now_us = self._now_us()
            since_us = row["state_since_us"] if row["state"] == "paused" else now_us
            values = {"state": "paused", "state_since_us": since_us, "updated_at_us": now_us}
            return transaction.change(row, values, ("state_text",))

        return stored.read_any(await self._writing.run(tenant.id, tenant.registration, work))

    async def resume(self, tenant: Tenant, id_: str, rate_per_s: int = 0) -> Subscription:
        """What waits is sent, also what was to be tried again later, and at a rate where one is given; what was known
        against the endpoint is forgotten.

        NOT_FOUND; INVALID_ARGUMENT names ``rate_per_s``.
        """
        if not 0 <= rate_per_s <= MAX_RATE_PER_S:
            fix = "Pass calls a second, or 0 for the subscription's own rate."
            raise _invalid("rate_per_s", f"It is not between 1 and {MAX_RATE_PER_S}.", fix)

        def work(transaction: Transaction) -> Document:
            transaction.begin()
            row = transaction.find(id_)
            now_us = self._now_us()
            since_us = row["state_since_us"] if row["state"] == "active" else now_us
            values = {"state": "active", "state_since_us": since_us, "updated_at_us": now_us}
            after = transaction.change(row, values, ("state_text",))
            # One that was to be done before is done by this one.
            transaction.endpoint(id_, {"$pull": {"tasks": {"which": "waiting"}}})
            wake: Document = {
                "$min": {"due_at_us": now_us},
                "$inc": {"told": 1},
                "$unset": dict.fromkeys(_OF_RESTING, ""),
                "$push": {"tasks": _task(now_us, rate_per_s)},
            }
            transaction.endpoint(id_, wake)
            transaction.due.append(id_)
            return after

        return stored.read_any(await self._writing.run(tenant.id, tenant.registration, work))

    async def rotate(
        self, tenant: Tenant, id_: str, kind: SecretKind, *, grace_s: int = DEFAULT_GRACE_S, secret: str = ""
    ) -> tuple[Subscription, SigningKey]:
        """Another key of ``kind``, which is the one before's successor; that one is good for ``grace_s`` more.

        NOT_FOUND; INVALID_ARGUMENT; FAILED_PRECONDITION where MAX_SECRETS keys sign.
        """
        now_us = self._now_us()
        if secret and kind is not SecretKind.HMAC:
            raise _invalid("secret", "A key of Ed25519 is made by Backhaul.", "Leave it out.")
        made = _hmac(secret, now_us) if secret else new_key(kind, now_us)

        def work(transaction: Transaction) -> Document:
            transaction.begin()
            row = transaction.find(id_)
            before = [self._seals.key(id_, each) for each in stored.readable(row).secrets]
            # A key is told from the others by when it was made.
            latest_us = max((each.created_at_us for each in before), default=0)
            new = replace(made, created_at_us=max(now_us, latest_us + 1))
            keys = rotated(before, new, grace_s, now_us)
            if len(keys) > MAX_SECRETS:
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"{MAX_SECRETS} secrets are good, and no more may be.",
                    field="grace_s",
                    fix="Wait until the grace of one is over, or pass 0: then those before end at once.",
                )
            secrets = [secrets_of.document_of(self._seals.sealed_key(id_, each)) for each in keys]
            return transaction.change(row, {"secrets": secrets, "updated_at_us": now_us})

        after = stored.readable(await self._writing.run(tenant.id, tenant.registration, work))
        return after, self._seals.key(id_, after.secrets[0])

    def get(self, id_: str) -> Subscription | None:
        """See ``ports.Subscriptions``. One that is deleted is not there, nor one that this version cannot read: another
        copy may, and what waits for it waits."""
        return self._known.get(id_)

    async def pause(self, subscription: Subscription, text: str) -> None:
        """See ``ports.Subscriptions``."""
        await self._decide(subscription, "paused", text)

    async def disable(self, subscription: Subscription, text: str) -> None:
        """See ``ports.Subscriptions``."""
        await self._decide(subscription, "disabled", text)

    async def _decide(self, subscription: Subscription, state: State, text: str) -> None:
        """Do nothing where the subscription is another one by now: what was decided was decided of this one."""
        if is_alert(subscription.id):
            return  # People would be told, by the same way, that they cannot be told.
        text = text[:MAX_TEXT]

        def work(transaction: Transaction) -> bool:
            transaction.begin()
            row = transaction.find(subscription.id)
            if row["state"] != "active" or row["revision"] != subscription.revision:
                return False
            now_us = self._now_us()
            values = {"state": state, "state_text": text, "state_since_us": now_us, "updated_at_us": now_us}
            transaction.change(row, values)
            notice = _notice(subscription, f"subscription.{state}", text, now_us)
            outbox.write(transaction.database, transaction.session, NOTIFIER_OUTBOX, [entry(notice, transaction.path)])
            return True

        try:
            decided = await self._writing.run(subscription.tenant, subscription.registration, work)
        except BackhaulError as exc:
            # It is gone, or its tenant is: there is nothing to decide.
            if exc.code is not Code.NOT_FOUND:
                raise
            return
        self._outbox_written()
        if decided:
            about = {"tenant": subscription.tenant, "subscription": subscription.id, "state": state, "reason": text}
            get_logger().warning("subscription_stopped", **about, fix="Its owner mends the endpoint, and resumes it.")


def _living(directory: Directory[Subscription], id_: str) -> Subscription | None:
    found = directory.get(id_)
    return found if found is not None and found.readable and not found.deleted else None


def _notice(subscription: Subscription, type_: str, text: str, now_us: int) -> Notice:
    name = subscription.definition.name or subscription.id
    return Notice(
        id=notice_id(subscription.registration, type_, f"{subscription.id} {subscription.revision}"),
        tenant_id=subscription.tenant,
        registration=subscription.registration,
        type=type_,
        occurred_at_us=now_us,
        about=About(reference=subscription.id),
        text=f"The subscription {name} was {type_.partition('.')[2]}. {text}",
        attributes=[Attribute(name="reason", value=text)],
    )


def _task(now_us: int, rate_per_s: int) -> dict[str, Any]:
    return {
        "id": token_hex(12),
        "which": "waiting",
        "from_us": 0,
        "to_us": now_us,
        "types": [],
        "rate_per_s": rate_per_s,
    }


def _hmac(secret: str, now_us: int) -> SigningKey:
    key = parse_key(secret, now_us)
    if key.kind is not SecretKind.HMAC:
        raise _invalid("secret", "It is a key of Ed25519, which Backhaul makes itself.", "Pass whsec_…, or nothing.")
    return key


def _invalid(field: str, message: str, fix: str) -> BackhaulError:
    return BackhaulError(Code.INVALID_ARGUMENT, message, field=field, fix=fix)
