"""Which destinations messages are for, by what a transaction sees of communications and members."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.names import BATCHES_COLLECTION, COMMUNICATIONS_COLLECTION, MEMBERS_COLLECTION
from pymongo import ASCENDING, DESCENDING

from backhaul_normalizer.communications.choosing import FOUND_BEFORE_US, SLACK_US, choose, position, sent_at
from backhaul_normalizer.communications.documents import (
    batch_key,
    communication_id_of,
    found_by_address,
    found_by_key,
    member_id,
    member_of,
)

MAX_ASKING = 128
"""Messages whose members are looked up by one query."""

MAX_CANDIDATES = 4096
"""Members of batches that no event names that are read at once for these. Where there are more, each message asks for
the one that it is for."""

_MEMBER = dict.fromkeys(("communication", "key", "batch_id", "batch_at_us", "destinations", "found_by"), 1)
_CREATED = {"created_at_us": 1}
_FEW = 4
_FINDABLE: Document = {"address_expired": {"$exists": False}}


class Finding:
    """Finds them. What it was told once it still knows: nothing changes in a transaction but by itself."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session) -> None:
        self._database = database
        self._session = session
        self.registered: dict[bytes, int] = {}
        """Communications that are registered, each with its ``members_version``."""
        self.members: dict[bytes, Document] = {}
        """The members for whom messages were found to be."""

    def chosen(self, rows: Sequence[Document], *, one_by_one: bool) -> dict[bytes, bytes | None]:
        """What each is for. What nobody can find by its address any more stays where it is, and so does what is for a
        member who is kept no longer, or whose addresses are not. Unless they may ask ``one_by_one``, those of too many
        candidates are for nothing."""
        self._register(rows)
        links: dict[bytes, bytes | None] = {}
        asking = []
        for row in rows:
            if communication_of(row) not in self.registered:
                links[row["_id"]] = None
            elif "address_expired" in row:
                links[row["_id"]] = row.get("dest")
            else:
                asking.append(_Asking(row, _named_by(row), _addressed_by(row)))
        # The candidates of one address are read once for all messages to it.
        asking.sort(key=lambda one: one.addressed_by)
        for start in range(0, len(asking), MAX_ASKING):
            links |= self._chosen_of(asking[start : start + MAX_ASKING], one_by_one=one_by_one)
        moving = [one.row for one in asking if "dest" in one.row and links[one.row["_id"]] != one.row["dest"]]
        findable = self._findable({member_of(row["dest"])[0] for row in moving})
        links |= {row["_id"]: row["dest"] for row in moving if member_of(row["dest"])[0] not in findable}
        return links

    def _chosen_of(self, asking: Sequence[_Asking], *, one_by_one: bool) -> dict[bytes, bytes | None]:
        """What each is for; of the candidates only those are kept for whom one is."""
        candidates = self._candidates(asking, one_by_one=one_by_one)
        links: dict[bytes, bytes | None] = {}
        for row, named_by, addressed_by in asking:
            # The batch that its events name may be another communication's.
            own = [one for one in candidates.named[named_by] if one["communication"] == communication_of(row)]
            dest = choose(row, own, candidates.addressed[addressed_by])
            links[row["_id"]] = dest
            if dest is not None:
                member, _ = member_of(dest)
                self.members[member] = candidates.members[member]
        return links

    def _findable(self, members: Collection[bytes]) -> set[bytes]:
        """Those of these members who are there, with their addresses."""
        query = {"_id": {"$in": list(members)}, **_FINDABLE}
        return {row["_id"] for row in self._find(MEMBERS_COLLECTION, query, {"_id": 1})} if members else set()

    def _register(self, rows: Iterable[Document]) -> None:
        keys = {communication_of(row) for row in rows} - {b""}
        query = {"_id": {"$in": list(keys)}, "registered": {"$exists": True}}
        found = self._find(COMMUNICATIONS_COLLECTION, query, {"members_version": 1}) if keys else ()
        self.registered.update((row["_id"], row.get("members_version", 0)) for row in found)

    def _candidates(self, asking: Sequence[_Asking], *, one_by_one: bool) -> _Candidates:
        """Where they may not ask ``one_by_one``, there are none where there would be too many."""
        candidates = _Candidates()
        ids = {one.named_by for one in asking if one.row.get("batch_id")} - {b""}
        found_by = {one.named_by for one in asking if not one.row.get("batch_id")}
        found_by |= {one.addressed_by for one in asking}
        found_by.discard(b"")
        if found_by:
            since_us = min(sent_at(one.row) for one in asking) - FOUND_BEFORE_US
            query = {"found_by": {"$in": list(found_by)}, "batch_at_us": {"$gte": since_us}, **_FINDABLE}
            members = list(self._find(MEMBERS_COLLECTION, query, _MEMBER, MAX_CANDIDATES + 1))
            if len(members) > MAX_CANDIDATES:
                if not one_by_one:
                    return candidates
                members = [member for one in asking for member in self._nearest(one.row)]
            for member in members:
                by_key, *by_address = member["found_by"]
                candidates.add(member, by_key, by_address)
        if ids:
            for member in self._find(MEMBERS_COLLECTION, {"_id": {"$in": list(ids)}, **_FINDABLE}, _MEMBER):
                candidates.add(member, member["_id"], ())
        return candidates

    def _nearest(self, row: Document) -> Iterable[Document]:
        """Of the members that a message may be for, those among whom ``choose`` finds the one that it is for."""
        since_us, until_us = sent_at(row) - FOUND_BEFORE_US, sent_at(row) + SLACK_US
        spans = [({"$gte": since_us, "$lte": until_us}, DESCENDING), ({"$gt": until_us}, ASCENDING)]
        keys = [(_named_by(row), False), (_addressed_by(row), True)]
        if row.get("batch_id"):
            batch = {"_id": batch_key(row["registration"], row["batch_id"])}
            spans = [(one["created_at_us"], ASCENDING) for one in self._find(BATCHES_COLLECTION, batch, _CREATED)]
            keys = keys[1:]
        for key, only_address in keys:
            for span, order in spans if key else ():
                query = {"found_by": key, "batch_at_us": span, **_FINDABLE}
                if row.get("batch_id"):
                    query["batch_id"] = row["batch_id"]
                with (
                    self._find(MEMBERS_COLLECTION, query, _MEMBER).sort("batch_at_us", order).batch_size(_FEW) as found
                ):
                    fit = (one for one in found if position(one, row, only_address=only_address) is not None)
                    nearest = next(fit, None)
                if nearest is not None:
                    yield nearest
                    # Of several in that batch the one whose key comes first.
                    query["batch_at_us"] = nearest["batch_at_us"]
                    yield from self._find(MEMBERS_COLLECTION, query, _MEMBER).sort("key", ASCENDING).limit(1)
                    return

    def _find(self, collection: str, query: Document, projection: Document, limit: int = 0) -> mongo.ThreadCursor:
        # In one answer: asking for the rest of a few hundred documents costs the driver as much as asking for them.
        return self._database[collection].find(
            query, projection, session=self._session, limit=limit, batch_size=MAX_CANDIDATES + 1
        )


class _Asking(NamedTuple):
    """A message, and by what its candidates are found; empty where by nothing."""

    row: Document
    named_by: bytes
    addressed_by: bytes


class _Candidates:
    """Members for whom messages may be: those that their events name, and those with their addresses, by what they are
    found by; and all of them by ``_id``."""

    def __init__(self) -> None:
        self.named: dict[bytes, list[Document]] = defaultdict(list)
        self.addressed: dict[bytes, list[Document]] = defaultdict(list)
        self.members: dict[bytes, Document] = {}

    def add(self, member: Document, named_by: bytes, addressed_by: Iterable[bytes]) -> None:
        self.members[member["_id"]] = member
        self.named[named_by].append(member)
        for key in addressed_by:
            self.addressed[key].append(member)


def communication_of(row: Document) -> bytes:
    """The ``_id`` of a message's communication; empty where it has none."""
    communication_id = row.get("communication_id", "")
    return communication_id_of(row["registration"], communication_id) if communication_id else b""


def _named_by(row: Document) -> bytes:
    """By what the member is found that a message's events name; empty where they name none."""
    if not row.get("member_key"):
        return b""
    if row.get("batch_id"):
        return member_id(batch_key(row["registration"], row["batch_id"]), row["member_key"])
    return found_by_key(communication_of(row), row["member_key"])


def _addressed_by(row: Document) -> bytes:
    return found_by_address(communication_of(row), row["channel"], row["address"]) if row.get("address") else b""
