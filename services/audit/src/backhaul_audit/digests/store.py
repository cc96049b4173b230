"""Digests in MongoDB: each is made in one transaction, by whichever copy is first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul_common import mongo, outbox, pages
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.fence import Living, living
from backhaul_common.names import (
    AUDIT_CHAINS_COLLECTION,
    AUDIT_DIGESTS_COLLECTION,
    AUDIT_FILES_COLLECTION,
    AUDIT_OUTBOX,
)
from backhaul_digests.model import Chain, ChainKey, Digest
from backhaul_digests.signing import SigningKey
from pymongo import ASCENDING, DESCENDING, IndexModel

from backhaul_audit.digests.composing import Covered, Deletion, composed
from backhaul_audit.digests.notice import notice_of
from backhaul_audit.documents import SEALED, to_sealed
from backhaul_audit.model import SealedFile

MAX_FILES = 5000
"""Files, and deletions, in one digest: it and its record stay small. More are left to another one."""

MAX_READ_S = 4.0
"""A page ends on the server after this."""

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    AUDIT_DIGESTS_COLLECTION: [
        IndexModel([("registration", ASCENDING), ("chain", ASCENDING), ("number", DESCENDING), ("_id", DESCENDING)]),
        IndexModel("number", partialFilterExpression={"uploaded": False}, name="to_upload"),
    ],
    AUDIT_FILES_COLLECTION: [
        IndexModel(
            [("registration", ASCENDING), ("chain", ASCENDING), ("condemned_at_us", ASCENDING)],
            partialFilterExpression={"announced": 0},
            name="condemned",
        )
    ],
    AUDIT_OUTBOX: outbox.INDEXES,
}


@dataclass(frozen=True, slots=True)
class Due:
    """A chain of which a digest is due: when the last one ended, 0 before the first."""

    of: ChainKey
    tenant_id: str
    ended_us: int


class MongoDigests:
    """``Digests``, and how they come to be."""

    def __init__(self, database: mongo.Database, now_us: Callable[[], int]) -> None:
        self._database = database
        self._now_us = now_us

    async def page(self, of: ChainKey, size: int, token: str) -> tuple[Sequence[Digest], str]:
        """See ``Digests``; without their lines. INVALID_ARGUMENT names ``page_size`` or ``page_token``."""
        asked = pages.Query(
            AUDIT_DIGESTS_COLLECTION,
            "number",
            of.registration,
            filters={"chain": of.chain.value},
            size=size,
            token=token,
            without="line",
        )
        try:
            rows, token = await pages.page(self._database, asked, within_s=MAX_READ_S)
        except pages.TooLongError as exc:
            raise BackhaulError(Code.DEADLINE_EXCEEDED, f"Not enough was found within {MAX_READ_S:g} s.") from exc
        return [to_digest(row) for row in rows], token

    async def get(self, of: ChainKey, number: int) -> Digest | None:
        """See ``Digests``."""
        async with mongo.operation():
            row = await self._database[AUDIT_DIGESTS_COLLECTION].find_one({"_id": _id(of, number)})
        return to_digest(row) if row is not None else None

    async def head(self, of: ChainKey) -> Digest | None:
        """See ``Digests``."""
        return await self._last({"registration": of.registration, "chain": of.chain.value})

    async def uploaded(self, of: ChainKey) -> Digest | None:
        """The last one that is in its place."""
        return await self._last({"registration": of.registration, "chain": of.chain.value, "uploaded": True})

    async def buckets(self, registration: str) -> Sequence[str]:
        """Every bucket that a digest was signed for."""
        async with mongo.operation():
            return sorted(
                await self._database[AUDIT_DIGESTS_COLLECTION].distinct("bucket", {"registration": registration})
            )

    async def chains(self, registration: str) -> Sequence[ChainKey]:
        """See ``Digests``."""
        query = {"registration": registration, "digest": {"$gt": 0}}
        async with mongo.operation():
            rows = await self._database[AUDIT_CHAINS_COLLECTION].find(query, {"chain": 1}).to_list(None)
        return sorted(ChainKey(registration, Chain(row["chain"])) for row in rows)

    async def begin(self, of: ChainKey, tenant_id: str) -> None:
        """Have digests from now on, though nothing was ever sealed: they say so. Nothing where the tenant is gone."""
        made = {
            "registration": of.registration,
            "tenant_id": tenant_id,
            "chain": of.chain.value,
            "number": 0,
            "digest": 0,
        }

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> None:
            if _owner(database, session, of, tenant_id) is not None:
                database[AUDIT_CHAINS_COLLECTION].update_one(
                    {"_id": of.id}, {"$setOnInsert": made}, upsert=True, session=session
                )

        async with mongo.translated():
            await mongo.in_transaction(self._database, work)

    async def begun(self) -> Collection[ChainKey]:
        """All chains that there are."""
        async with mongo.operation():
            rows = await self._database[AUDIT_CHAINS_COLLECTION].find({}, {"registration": 1, "chain": 1}).to_list(None)
        return {ChainKey(row["registration"], Chain(row["chain"])) for row in rows}

    async def due(self, at_us: int) -> Sequence[Due]:
        """The chains whose last digest ended before this."""
        query = {"$or": [{"digested_us": {"$lt": at_us}}, {"digested_us": {"$exists": False}}]}
        fields = {"registration": 1, "tenant_id": 1, "chain": 1, "digested_us": 1}
        async with mongo.operation():
            rows = await self._database[AUDIT_CHAINS_COLLECTION].find(query, fields).to_list(None)
        return [
            Due(ChainKey(row["registration"], Chain(row["chain"])), row["tenant_id"], row.get("digested_us", 0))
            for row in rows
        ]

    async def make(self, due: Due, bucket: str, key: SigningKey, from_us: int, to_us: int) -> Digest | None:
        """The next digest of a chain, from the end of the last one (``from_us`` for the first) to ``to_us``; None where
        there is one already, or the tenant is gone.

        It ends earlier where more was sealed than goes into one: ask again. UNAVAILABLE.
        """

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> Digest | None:
            chain = database[AUDIT_CHAINS_COLLECTION].find_one({"_id": due.of.id}, session=session)
            owner = _owner(database, session, due.of, due.tenant_id)
            if chain is None or owner is None or chain.get("digested_us", 0) >= to_us:
                return None
            previous = None
            if chain["digest"]:
                query = {"_id": _id(due.of, chain["digest"])}
                previous = to_digest(database[AUDIT_DIGESTS_COLLECTION].find_one(query, session=session) or {})
            files, ends_us = _sealed(database, session, due.of, chain, to_us)
            if previous is not None:
                ends_us = max(ends_us, previous.to_us + 1)
            deletions = _condemned(database, session, due.of)
            covered = Covered(due.of, due.tenant_id, bucket, min(from_us, ends_us - 1), ends_us, files, deletions)
            digest = composed(covered, previous, key)
            self._store(database, session, digest, files, deletions)
            notice = notice_of(digest, owner, self._now_us())
            outbox.write(database, session, AUDIT_OUTBOX, [notice])
            return digest

        async with mongo.translated():
            return await mongo.in_transaction(self._database, work)

    async def waiting(self) -> Sequence[Digest]:
        """Some that are recorded and not in their places, by number."""
        async with mongo.operation():
            found = self._database[AUDIT_DIGESTS_COLLECTION].find({"uploaded": False}, sort=[("number", ASCENDING)])
            return [to_digest(row) for row in await found.limit(100).to_list(None)]

    async def in_place(self, digest: Digest) -> None:
        """It is uploaded."""
        async with mongo.operation():
            await self._database[AUDIT_DIGESTS_COLLECTION].update_one(
                {"_id": _id(digest.of, digest.number)}, {"$set": {"uploaded": True}}
            )

    async def forget(self, digest: Digest) -> None:
        """Its tenant is gone."""
        async with mongo.operation():
            await self._database[AUDIT_DIGESTS_COLLECTION].delete_one({"_id": _id(digest.of, digest.number)})

    async def _last(self, query: Document) -> Digest | None:
        async with mongo.operation():
            row = await self._database[AUDIT_DIGESTS_COLLECTION].find_one(query, sort=[("number", DESCENDING)])
        return to_digest(row) if row is not None else None

    @staticmethod
    def _store(
        database: mongo.ThreadDatabase,
        session: mongo.Session,
        digest: Digest,
        files: Sequence[SealedFile],
        deletions: Sequence[Deletion],
    ) -> None:
        database[AUDIT_DIGESTS_COLLECTION].insert_one(_document(digest), session=session)
        listed = {"digest": digest.number, "digested_us": digest.to_us}
        if files:
            listed["digested"] = files[-1].number
        database[AUDIT_CHAINS_COLLECTION].update_one({"_id": digest.of.id}, {"$set": listed}, session=session)
        rows = database[AUDIT_FILES_COLLECTION]
        of = {"registration": digest.of.registration, "chain": digest.of.chain.value}
        if files:
            numbers = {"$gte": files[0].number, "$lte": files[-1].number}
            rows.update_many({**of, "number": numbers}, {"$set": {"digest": digest.number}}, session=session)
        if deletions:
            listed_here = {"number": {"$in": [one.number for one in deletions]}}
            rows.update_many({**of, **listed_here}, {"$set": {"announced": digest.number}}, session=session)


def to_digest(row: Mapping[str, Any]) -> Digest:
    """The digest of a document."""
    return Digest(
        of=ChainKey(row["registration"], Chain(row["chain"])),
        tenant_id=row["tenant_id"],
        number=row["number"],
        from_us=row["from_us"],
        to_us=row["to_us"],
        bucket=row["bucket"],
        key=row["key"],
        line=bytes(row.get("line", b"")),
        hash=row["hash"],
        key_id=row["key_id"],
        signature=row["signature"],
        files=row["files"],
        deletions=row["deletions"],
        uploaded=row["uploaded"],
    )


def _document(digest: Digest) -> Document:
    return {
        "_id": _id(digest.of, digest.number),
        "registration": digest.of.registration,
        "chain": digest.of.chain.value,
        "tenant_id": digest.tenant_id,
        "number": digest.number,
        "from_us": digest.from_us,
        "to_us": digest.to_us,
        "bucket": digest.bucket,
        "key": digest.key,
        "line": digest.line,
        "hash": digest.hash,
        "key_id": digest.key_id,
        "signature": digest.signature,
        "files": digest.files,
        "deletions": digest.deletions,
        "uploaded": False,
    }


def _id(of: ChainKey, number: int) -> str:
    return f"{of.id}/{number}"


def _owner(database: mongo.ThreadDatabase, session: mongo.Session, of: ChainKey, tenant_id: str) -> Living | None:
    owner = living(database, session, [tenant_id]).get(tenant_id)
    return owner if owner is not None and owner.registration == of.registration else None


def _sealed(
    database: mongo.ThreadDatabase, session: mongo.Session, of: ChainKey, chain: Document, to_us: int
) -> tuple[Sequence[SealedFile], int]:
    """What was sealed since the last digest and before ``to_us``; and when the digest ends that has no more."""
    query = {
        "registration": of.registration,
        "chain": of.chain.value,
        "number": {"$gt": chain.get("digested", 0)},
        "state": SEALED,
    }
    rows = database[AUDIT_FILES_COLLECTION].find(
        query, sort=[("number", ASCENDING)], limit=MAX_FILES + 1, session=session
    )
    files: list[SealedFile] = []
    for row in rows:
        file = to_sealed(row)
        # By number, which has no gaps: what comes behind a file of the next hour is the next hour's, too.
        if file.sealed_at_us >= to_us:
            break
        if len(files) == MAX_FILES:
            return files, min(to_us - 1, max(one.sealed_at_us for one in files) + 1)
        files.append(file)
    return files, to_us


def _condemned(database: mongo.ThreadDatabase, session: mongo.Session, of: ChainKey) -> Sequence[Deletion]:
    query = {
        "registration": of.registration,
        "chain": of.chain.value,
        "condemned_at_us": {"$gt": 0},
        "announced": 0,
    }
    rows = database[AUDIT_FILES_COLLECTION].find(
        query, sort=[("condemned_at_us", ASCENDING)], limit=MAX_FILES, session=session
    )
    return [Deletion(row["number"], row["key"], row["condemned_at_us"], "retention") for row in rows]
