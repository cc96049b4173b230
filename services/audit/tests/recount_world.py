"""A communication in memory: what the normalizer says of it, and what of it lies in files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backhaul_audit.model import EventId
from backhaul_audit.ports import Waiting
from backhaul_audit.recounting.communications import GrpcCommunications
from backhaul_audit.recounting.ports import Listed, Recounted
from backhaul_audit.recounting.recount import Recounting
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.ids import derived_id
from backhaul_common.tenants import Tenant
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_INBOUND, Event
from backhaul_proto.normalizer.v1 import normalizer_pb2 as normalizer_pb
from backhaul_testing import make

ACME = make.tenant("acme")
SPRING = "spring"
NOW_US = 1_800_000_000_000_000


@dataclass(frozen=True)
class Told:
    """An event of the communication. ``revision`` is what is listed; of ``filed`` each lies in a file."""

    name: str
    kind: int
    channel: str = "twilio"
    revision: int = 0
    received_at_us: int = NOW_US - 3_600_000_000
    filed: tuple[int, ...] = (0,)
    duplicate: bool = False

    @property
    def id(self) -> str:
        return derived_id("event", self.name)


@dataclass
class World:
    """The normalizer's stub, files and their state at once. Nothing moves but by ``meanwhile``, which each page that is
    listed calls with its number."""

    told: list[Told]
    counted: Counter[int] | None = None
    """What the communication counts, where that is not what there is."""
    asking: Collection[str] = ("sendgrid", "twilio")
    waits: Sequence[Waiting] = ()
    read_behind_us: int = 0
    """How far what was read lies behind the present; None of it is ever read where it is negative."""
    page: int = 3
    retained_since_us: int = 0
    registration: str = ACME.registration
    meanwhile: Callable[[int], None] = lambda _: None
    error: BackhaulError | None = None
    now_us: int = NOW_US
    pages: int = 0
    looked_up: list[int] = field(default_factory=list)
    slept_s: float = 0.0

    def counts(self) -> Counter[int]:
        if self.counted is not None:
            return self.counted
        return Counter(one.kind for one in self.told if not one.duplicate)

    # The normalizer's stub.
    async def GetCommunication(self, request: Any) -> Any:  # noqa: N802  # gRPC's name
        if self.error is not None:
            raise self.error
        if (request.tenant_id, request.communication_id) != (ACME.id, SPRING) or not self.told:
            raise BackhaulError(Code.NOT_FOUND, "There is none.", field="communication_id", fix="Check the id.")
        counts = self.counts()
        # Where a reply's own callback says it belongs is nobody's business here.
        events = [normalizer_pb.EventCount(kind=EVENT_KIND_INBOUND, count=77)]
        events += [normalizer_pb.EventCount(kind=kind, count=count) for kind, count in counts.items() if kind != 16]  # type: ignore[arg-type]  # any number of the enum
        replies = normalizer_pb.ReplyCounts(all=counts[EVENT_KIND_INBOUND])
        return normalizer_pb.GetCommunicationResponse(
            communication=normalizer_pb.Communication(
                id=SPRING,
                events=events,
                replies=replies,
                created_at_us=min(one.received_at_us for one in self.told),
            )
        )

    async def ListEvents(self, request: Any) -> Any:  # noqa: N802  # gRPC's name
        assert request.page_size <= 500
        self.pages += 1
        self.meanwhile(self.pages)
        rows = sorted(self.told, key=lambda one: (-one.received_at_us, one.id))
        start = int(request.page_token or 0)
        return normalizer_pb.ListEventsResponse(
            events=map(self._event, rows[start : start + self.page]),
            retained_since_us=self.retained_since_us,
            next_page_token=str(start + self.page) if len(rows) > start + self.page else "",
        )

    def _event(self, one: Told) -> Event:
        return Event(
            id=one.id,
            revision=one.revision,
            kind=one.kind,  # type: ignore[arg-type]  # as above
            channel=one.channel,
            registration=self.registration,
            received_at_us=one.received_at_us,
            duplicate_of="another" if one.duplicate else "",
        )

    # Contents.
    async def filed(self, registration: str, events: Sequence[Listed]) -> Collection[EventId]:
        assert registration == ACME.registration
        self.looked_up.append(len(events))
        stored = {EventId(one.id, revision) for one in self.told for revision in one.filed}
        return stored & {one.event for one in events}

    # States.
    async def waiting(self, registration: str) -> Sequence[Waiting]:
        assert registration == ACME.registration
        return self.waits

    async def read_to_us(self) -> int:
        return self.now_us - self.read_behind_us if self.read_behind_us >= 0 else 0

    async def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.now_us += int(seconds * 1e6)

    def change(self, name: str, **values: Any) -> None:
        self.told = [replace(one, **values) if one.name == name else one for one in self.told]


def recounting(world: Any) -> Recounting:
    return Recounting(
        GrpcCommunications(world),
        world,
        world,
        lambda _: dict.fromkeys(world.asking, ""),
        lambda: world.now_us,
        sleep=world.sleep,
    )


async def result_of(world: World, tenant: Tenant = ACME) -> Recounted:
    """The last answer, which alone is done."""
    told = [one async for one in recounting(world).run(tenant, SPRING)]
    assert [one.done for one in told] == [False] * (len(told) - 1) + [True]
    return told[-1]
