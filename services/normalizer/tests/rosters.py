"""Communications with batches and members, stored as they are registered; and what anybody would count of them who had
all of it in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex

from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.metering import Counter as Counted
from backhaul_common.metrics import BATCHES_COMPLETED, BATCHES_LINKED_LATE, MESSAGES_LINKED
from backhaul_common.names import (
    BATCH_COUNTS_COLLECTION,
    BATCHES_COLLECTION,
    MEMBERS_COLLECTION,
    MESSAGES_COLLECTION,
    NORMALIZER_OUTBOX,
)
from backhaul_normalizer.communications.completing import Completing
from backhaul_normalizer.communications.consequences import Consequences
from backhaul_normalizer.communications.counting import summed
from backhaul_normalizer.communications.documents import (
    MAX_DEADLINE_S,
    batch_key,
    communication_id_of,
    destination_id,
)
from backhaul_normalizer.communications.linking import Linking
from backhaul_normalizer.communications.membership import told_of
from backhaul_normalizer.communications.processed import MembersProcessed
from backhaul_normalizer.communications.registering import BatchTold, MongoRegister
from backhaul_normalizer.communications.relinking import Relinking
from backhaul_normalizer.communications.roster import MongoRoster
from backhaul_normalizer.counts import Shards
from backhaul_normalizer.having import Having
from backhaul_normalizer.store import MongoEventStore
from backhaul_testing import make
from normalizer_rig import Rig

REGISTRATION = "acme.1"
DEADLINE_S = 3600
SLACK_US = 5_000_000
"""Providers tell whole seconds, and clocks differ."""

Destinations = Sequence[tuple[str, str]]


class Copy:
    """What one copy of the service has to fold events, to add members, and to see to what follows."""

    def __init__(self, rig: Rig, now_us: Callable[[], int] = lambda: 0) -> None:
        shards = Shards()
        self.completing = Completing(rig.database, lambda: None, now_us, Counted(BATCHES_COMPLETED))
        linking = Linking(rig.database, shards, Counted(MESSAGES_LINKED))
        processed, having = MembersProcessed(rig.database, lambda: None, now_us), Having(rig.database)
        self.consequences = Consequences(rig.database, linking, processed, self.completing, having)
        self.store = MongoEventStore(rig.client, rig.database, shards, self.consequences, having=having)
        self.register = MongoRegister(rig.database, self.consequences, now_us, lambda: None)
        self.roster = MongoRoster(rig.database, now_us)
        self.relinking = Relinking(rig.database, self.consequences, now_us, Counted(BATCHES_LINKED_LATE))


class Rosters:
    """Registers, and reads what became of it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._database = rig.database
        self._tenant = make.tenant("acme").model_copy(update={"queue_path": "acme"})

    async def communication(self, communication_id: str, completes_on: str = "processed") -> None:
        registered = {"channel": "sendgrid", "deadline_s": DEADLINE_S, "completes_on": completes_on}
        await Copy(self._rig).register.put_communication(self._tenant, communication_id, registered)

    async def batch(self, communication_id: str, batch_id: str, *, at_us: int) -> None:
        copy = Copy(self._rig, lambda: at_us)
        await copy.register.put_batch(self._tenant, communication_id, batch_id, BatchTold("", 0, 0))

    async def member(
        self, copy: Copy, batch_id: str, key: str, destinations: Destinations, *, dies: bool = False
    ) -> None:
        """Add a member; by a call that ``dies`` before it is linked. A batch that is closed stays as it is."""
        await self.members(copy, batch_id, {key: destinations}, dies=dies)

    async def members(
        self, copy: Copy, batch_id: str, members: Mapping[str, Destinations], *, dies: bool = False
    ) -> None:
        """Add members, by key, all at once; otherwise as ``member``."""
        at = await copy.roster.place(self._tenant, batch_id)
        told = [
            told_of(key, [], [(*one, "") for one in destinations], at, self._tenant.channels)
            for key, destinations in members.items()
        ]
        call = token_hex(4)
        try:
            added = await copy.roster.add(self._tenant, at, told, call, last=False)
        except BackhaulError as exc:
            if exc.code is not Code.FAILED_PRECONDITION:
                raise
            return
        if not dies:
            await copy.consequences.of_members(at.batch["_id"], added.touched)
            await copy.roster.linked(at.batch["_id"], call)

    async def close(self, copy: Copy, batch_id: str) -> None:
        await copy.register.close_batch(self._tenant, batch_id)

    async def stored(self, batch_id: str) -> Document:
        found = await self._database[BATCHES_COLLECTION].find_one({"_id": batch_key(REGISTRATION, batch_id)})
        assert found is not None
        return found

    async def counted(self) -> dict[str, dict[str, int]]:
        """What the batches' counts say, by batch; what holds nothing is left out."""
        batches = await self._database[BATCHES_COLLECTION].find().to_list(None)
        shards = await self._database[BATCH_COUNTS_COLLECTION].find().to_list(None)
        found = {}
        for batch in batches:
            own = [one for one in shards if one["_id"][:16] == batch["_id"]]
            found[batch["batch_id"]] = summed(own)[0]
        return found

    async def notices(self) -> list[str]:
        """The ids of the notices that wait in the outbox: one for each batch that was said to be complete."""
        return [row["_id"] async for row in self._database[NORMALIZER_OUTBOX].find()]

    async def checked(self) -> dict[str, dict[str, int]]:
        """What a recount says of each batch, after checking that links, holders and counts are as it has them."""
        messages = await self._database[MESSAGES_COLLECTION].find().to_list(None)
        members = await self._database[MEMBERS_COLLECTION].find().to_list(None)
        batches = await self._database[BATCHES_COLLECTION].find().to_list(None)
        links = {one["_id"]: destination_of(one, members) for one in messages}
        assert {one["_id"]: one.get("dest") for one in messages} == links
        counts: dict[str, Counter[str]] = {batch["batch_id"]: Counter() for batch in batches}
        for member in members:
            for position, destination in enumerate(member["destinations"]):
                dest = destination_id(member["_id"], position)
                own = [one for one in messages if links[one["_id"]] == dest]
                holds = max(own, key=lambda one: (one.get("first_at_us", 0), one["_id"]), default=None)
                assert [one["_id"] for one in own if one.get("holds")] == ([holds["_id"]] if holds else [])
                assert destination.get("holder") == (holds["_id"] if holds else None)
                if holds is not None and holds.get("fulfilment"):
                    counts[member["batch_id"]][holds["fulfilment"]] += 1
        recounted = {batch_id: dict(some) for batch_id, some in counts.items()}
        assert await self.counted() == recounted
        return recounted


def destination_of(message: Document, members: Sequence[Document]) -> bytes | None:
    """What the documents say it is for, as anybody would find it who had all members in memory."""
    communication_id = message.get("communication_id", "")
    if not communication_id:
        return None
    sent_us: int = message["first_at_us"] if "first_at_us" in message else message["created_at_us"]
    communication = communication_id_of(REGISTRATION, communication_id)
    own = [one for one in members if one["communication"] == communication]
    if message.get("batch_id"):
        own = [one for one in own if one["batch_id"] == message["batch_id"]]
    young = [one for one in own if one["batch_at_us"] >= sent_us - MAX_DEADLINE_S * 1_000_000]
    named = own if message.get("batch_id") else young
    named = [one for one in named if message.get("member_key") and one["key"] == message["member_key"]]
    return _best(message, named, _of_member) or _best(message, young, _at_address)


def _best(
    message: Document, members: Sequence[Document], position_of: Callable[[Document, Mapping[str, object]], int | None]
) -> bytes | None:
    sent_us: int = message["first_at_us"] if "first_at_us" in message else message["created_at_us"]
    found = [(one, position) for one in members if (position := position_of(one, message)) is not None]
    before = [pair for pair in found if pair[0]["batch_at_us"] <= sent_us + SLACK_US]
    if before:
        latest = max(pair[0]["batch_at_us"] for pair in before)
        found = [pair for pair in before if pair[0]["batch_at_us"] == latest]
    elif found:
        first = min(pair[0]["batch_at_us"] for pair in found)
        found = [pair for pair in found if pair[0]["batch_at_us"] == first]
    if not found:
        return None
    member, position = min(found, key=lambda pair: pair[0]["key"])
    return destination_id(member["_id"], position)


def _at_address(member: Document, message: Mapping[str, object]) -> int | None:
    for position, one in enumerate(member["destinations"]):
        if one["channel"] == message["channel"] and one["address"] and one["address"] == message.get("address"):
            return position
    return None


def _of_member(member: Document, message: Mapping[str, object]) -> int | None:
    if (position := _at_address(member, message)) is not None:
        return position
    own = [position for position, one in enumerate(member["destinations"]) if one["channel"] == message["channel"]]
    without = [position for position in own if not member["destinations"][position]["address"]]
    return without[0] if without else own[0] if len(own) == 1 else None
