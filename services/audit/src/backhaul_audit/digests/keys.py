"""The installation's keys in MongoDB. Private halves are encrypted; public ones are kept for ever.

A key counts only where the ring (``BACKHAUL_SECRET_KEYS``) opens its private half: whoever can write to the database
and nothing more cannot add one of their own and sign another past with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.names import AUDIT_KEYS_COLLECTION
from backhaul_common.secretkeys import Kept
from backhaul_common.secrets import SecretBox
from backhaul_digests.signing import SigningKey
from pymongo import DESCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from backhaul_audit.ports import PublicKey

PURPOSE = "audit signing keys"
"""What the ring's keys are derived for. The text of a channel's secret is anybody's choice, and could be a private
key."""

INDEXES: Mapping[str, Sequence[IndexModel]] = {
    # Of copies that make a key at once one does.
    AUDIT_KEYS_COLLECTION: [IndexModel([("number", DESCENDING)], unique=True)]
}


class MongoKeys:
    """``Keys``, and the private half of the present one."""

    def __init__(self, database: mongo.Database, box: SecretBox, now_us: Callable[[], int]) -> None:
        self._rows = database[AUDIT_KEYS_COLLECTION]
        self._box = box.of(PURPOSE)
        self._now_us = now_us
        self._foreign: set[str] = set()
        self._log = get_logger(component="signing_keys")
        self.kept = Kept(self._rows, self._box, ["private"], lambda _: "")

    async def all(self) -> Sequence[PublicKey]:
        """See ``Keys``."""
        await self._present()
        async with mongo.operation():
            rows = await self._rows.find({}, sort=[("number", DESCENDING)]).to_list(None)
        return [_public(row) for row in rows if self._opened(row) is not None]

    async def rotate(self) -> PublicKey:
        """See ``Keys``."""
        while True:
            async with mongo.operation():
                last = await self._rows.find_one({}, {"number": 1}, sort=[("number", DESCENDING)])
            if made := await self._make(last["number"] + 1 if last else 1):
                return _public(made)

    async def present(self) -> SigningKey:
        """What signs now. FAILED_PRECONDITION where it cannot be decrypted."""
        row = await self._present()
        if (key := self._opened(row)) is None:
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                f"The key {row['_id']} that digests are signed with cannot be decrypted.",
                fix="Give BACKHAUL_SECRET_KEYS back the key that it was encrypted with, or rotate the signing key.",
            )
        return key

    async def public(self, key_id: str) -> bytes | None:
        """See ``verification.ports.PublicKeys``."""
        async with mongo.operation():
            row = await self._rows.find_one({"_id": key_id})
        return bytes(row["public"]) if row is not None and self._opened(row) is not None else None

    async def renew(self) -> None:
        """Have every private half encrypted with the ring's first key, so that the others may leave the ring. One that
        no key of it decrypts stays as it is: ``present`` says so where it is needed. UNAVAILABLE."""
        async with mongo.operation():
            rows = await self._rows.find({}, {"private": 1}).to_list(None)
        for row in rows:
            try:
                private = self._box.renewed(row["private"])
            except ValueError:
                continue
            if private != row["private"]:
                async with mongo.operation():
                    await self._rows.update_one(row, {"$set": {"private": private}})

    def _opened(self, row: Document) -> SigningKey | None:
        """The key of a document; None where it is not this installation's."""
        try:
            key = SigningKey.from_text(self._box.decrypt(row["private"]))
        except ValueError:
            key = None
        if key is not None and (key.id, key.public) == (row["_id"], bytes(row["public"])):
            return key
        if row["_id"] not in self._foreign:
            self._foreign.add(row["_id"])
            self._log.error("signing_key_not_ours", key_id=row["_id"])
        return None

    async def _present(self) -> Document:
        while True:
            async with mongo.operation():
                row: Document | None = await self._rows.find_one({}, sort=[("number", DESCENDING)])
            if row := row or await self._make(1):
                return row

    async def _make(self, number: int) -> Document | None:
        """Store a new key; None where another copy was first."""
        key = SigningKey.new()
        row: Document = {
            "_id": key.id,
            "number": number,
            "public": key.public,
            "private": self._box.encrypt(key.to_text()),
            "created_at_us": self._now_us(),
        }
        try:
            async with mongo.operation():
                await self._rows.insert_one(row)
        except DuplicateKeyError:
            return None
        return row


def _public(row: Document) -> PublicKey:
    return PublicKey(row["_id"], bytes(row["public"]), row["created_at_us"])
