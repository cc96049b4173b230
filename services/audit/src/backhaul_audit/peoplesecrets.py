"""What each registration has to itself: a pepper, without which nobody can tell whose a person's key is, and what its
people's keys are encrypted with.

They are encrypted themselves, as one text, so that another ring of keys asks for one document of a tenant to be written
anew, and not for one of each person.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from backhaul_channels.people import person
from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_common.fence import living
from backhaul_common.logs import get_logger
from backhaul_common.names import AUDIT_PEOPLE_COLLECTION
from backhaul_common.secretkeys import Kept
from backhaul_common.secrets import SecretBox
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

KEY_BYTES = 64
"""AES-SIV with two keys of 256 bits (RFC 5297)."""

PURPOSE = "audit people"
"""What the ring's keys are derived for."""

MAX_SECRETS = 1000
"""Registrations whose secrets are kept in memory."""

_PEPPER_BYTES = 32
_ID, _BEHIND_IDS = "secrets/", "secrets0"
"""No registration begins so: it has a dot where a tenant's id ends."""
_OF_REGISTRATIONS: Mapping[str, Any] = MappingProxyType({"_id": {"$gte": _ID, "$lt": _BEHIND_IDS}})


class Name(NamedTuple):
    """A person of a registration, by what tells nobody who it is: see ``Secrets.name``."""

    registration: str
    mac: str

    @property
    def id(self) -> str:
        """Of the person's document."""
        return f"{self.registration}/{self.mac}"


@dataclass(frozen=True, slots=True)
class Person:
    """How a person's events are filed: under ``key``, but for those that arrived before ``erased_before_us``. Without a
    key nothing of theirs is."""

    key_id: str = ""
    key: bytes = field(default=b"", repr=False)
    erased_before_us: int = 0


@dataclass(frozen=True, slots=True)
class Secrets:
    """One registration's."""

    registration: str
    pepper: bytes = field(repr=False)
    wrapping: AESSIV
    made_at_us: int

    def name(self, address: str) -> Name:
        """Whoever has the address, in any spelling; of an empty one nobody."""
        mac = hmac.digest(self.pepper, person(address).encode("utf-8", "surrogatepass"), "sha256")
        return Name(self.registration, mac.hex())

    def wrap(self, key_id: str, key: bytes) -> bytes:
        """The key as it is stored."""
        return self.wrapping.encrypt(key, [key_id.encode("ascii")])

    def unwrap(self, row: Mapping[str, Any]) -> Person:
        """What a person's document says. FAILED_PRECONDITION where its key is not what was stored."""
        erased_before_us = row.get("erased_before_us", 0)
        if not row.get("key_id"):
            return Person(erased_before_us=erased_before_us)
        try:
            key = self.wrapping.decrypt(row["key"], [row["key_id"].encode("ascii")])
        except InvalidTag as exc:
            raise unreadable(self.registration) from exc
        return Person(row["key_id"], key, erased_before_us)


class MongoSecrets:
    """Secrets of registrations, in documents beside those of their people."""

    def __init__(self, database: mongo.Database, box: SecretBox, now_us: Callable[[], int]) -> None:
        self._database = database
        self._rows = database[AUDIT_PEOPLE_COLLECTION]
        self._box = box.of(PURPOSE)
        self._now_us = now_us
        self._opened: dict[str, Secrets] = {}
        self._log = get_logger(component="people")
        self.kept = Kept(
            self._rows, self._box, ["secrets"], _tenant_of, whose=["registration"], where=_OF_REGISTRATIONS
        )

    async def known(self, registration: str) -> Secrets | None:
        """The registration's, None where there are none. UNAVAILABLE; FAILED_PRECONDITION where they cannot be
        decrypted."""
        if known := self._opened.get(registration):
            return known
        async with mongo.operation():
            row = await self._rows.find_one({"_id": _ID + registration})
        return self._open(row) if row is not None else None

    def _open(self, row: Document) -> Secrets:
        registration = row["registration"]
        try:
            both = b64decode(self._box.decrypt(row["secrets"]))
        except ValueError as exc:
            raise unreadable(registration) from exc
        if len(self._opened) >= MAX_SECRETS:
            del self._opened[next(iter(self._opened))]
        opened = Secrets(registration, both[:_PEPPER_BYTES], AESSIV(both[_PEPPER_BYTES:]), row["made_at_us"])
        self._opened[registration] = opened
        return opened

    async def made(self, registration: str) -> Secrets | None:
        """The registration's, made where there are none; None where it is gone. Raises as above."""
        if known := await self.known(registration):
            return known
        fresh = b64encode(os.urandom(_PEPPER_BYTES + KEY_BYTES)).decode("ascii")
        document = {
            "_id": _ID + registration,
            "registration": registration,
            "secrets": self._box.encrypt(fresh),
            "made_at_us": self._now_us(),
        }

        def work(database: mongo.ThreadDatabase, session: mongo.Session) -> Document | None:
            if registration not in lives_of(database, session, {registration}):
                return None
            return database[AUDIT_PEOPLE_COLLECTION].find_one_and_update(
                {"_id": document["_id"]},
                {"$setOnInsert": document},
                upsert=True,
                return_document=True,
                session=session,
            )

        async with mongo.translated():
            row = await mongo.in_transaction(self._database, work)
        return self._open(row) if row is not None else None

    def require(self, database: mongo.ThreadDatabase, session: mongo.Session, some: Iterable[Secrets]) -> None:
        """To be asked in a transaction that stores what these make: UNAVAILABLE where they are not what is stored any
        more, since MongoDB was set back. They are read anew then, and no key is stored that nobody could read."""
        made = {_ID + one.registration: one.made_at_us for one in some}
        rows = database[AUDIT_PEOPLE_COLLECTION].find({"_id": {"$in": list(made)}}, {"made_at_us": 1}, session=session)
        stored = {row["_id"]: row["made_at_us"] for row in rows}
        if stored != made:
            for id_ in made:
                self._opened.pop(id_.removeprefix(_ID), None)
            raise unavailable("What keys of people are encrypted with")

    async def renew(self) -> None:
        """Encrypt all of them with the newest key of the ring, so that older ones can be taken out. UNAVAILABLE."""
        async with mongo.operation(mongo.PATIENT_S):
            async for row in self._rows.find(dict(_OF_REGISTRATIONS)):
                try:
                    renewed = self._box.renewed(row["secrets"])
                except ValueError:
                    self._log.error("people_unreadable", registration=row["registration"])
                    continue
                if renewed != row["secrets"]:
                    same = {"_id": row["_id"], "secrets": row["secrets"]}
                    await self._rows.update_one(same, {"$set": {"secrets": renewed}})


def _tenant_of(row: Document) -> str:
    return str(row["registration"]).rpartition(".")[0]


def lives_of(database: mongo.ThreadDatabase, session: mongo.Session, registrations: Collection[str]) -> Collection[str]:
    """Those that are there and not being deleted, as the transaction sees them."""
    owners = living(database, session, {one.rpartition(".")[0] for one in registrations})
    return {owner.registration for owner in owners.values()}


def unreadable(registration: str) -> BackhaulError:
    """What is raised where the ring of keys is not the one that it was."""
    return BackhaulError(
        Code.FAILED_PRECONDITION,
        f"The keys of the people of {registration} cannot be decrypted.",
        fix="Give BACKHAUL_SECRET_KEYS back the key that they were encrypted with.",
    )
