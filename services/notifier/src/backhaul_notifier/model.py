"""What the notifier's parts pass to each other. Times are unix time in microseconds; documents are in ``documents``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.catalogue.matching import Matcher
from backhaul_notifier.documents import State
from backhaul_notifier.schedules import Outcome, Policy

CLOCKS_US: Final = 3600 * 1_000_000
"""No two clocks are so far apart."""


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A signing key as it is stored; ``secret`` is encrypted."""

    kind: str
    secret: str
    public_key: str
    created_at_us: int
    expires_at_us: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as every copy holds it in memory. Secrets in ``definition`` and ``secrets`` are encrypted.

    ``matcher`` and ``policy`` are made of the definition once. Of one that is not ``readable``, since a newer version
    wrote it, the definition is empty: it may want everything.
    """

    id: str
    tenant: str
    registration: str
    revision: int
    definition: pb.Definition
    state: State
    state_text: str
    state_since_us: int
    created_at_us: int
    updated_at_us: int
    secrets: tuple[StoredSecret, ...]
    deleted: bool
    matcher: Matcher = field(compare=False)
    policy: Policy
    readable: bool = True
    begins: Mapping[str, int] = field(default_factory=dict)
    """Of each stream the position behind which it is told of what lies there; of one that is missing, its creation."""

    def has_begun(self, stream: str, position: int, stored_at_us: int) -> bool:
        """Whether it is told of what ``stream`` stored at ``position``, and then by the broker's clock."""
        begins = self.begins.get(stream)
        if begins is None:
            return stored_at_us >= self.created_at_us
        # A stream that was lost and made anew has small positions again.
        return position > begins or stored_at_us > self.created_at_us + CLOCKS_US


class Delivery(msgspec.Struct, frozen=True):
    """One that waits. ``payload`` is an Event, or a Notice where ``notice``; ``call`` is empty where it was not sent
    together with others; ``key`` is empty where order plays no part; ``communication_id`` where it is of none.
    ``unsure``: who made it could not read the subscription, and so it may not be wanted. ``released``: it was held, and
    goes before what is held of its communication. ``resets``: how often it was asked for again by itself, ``again``:
    at all. ``begun_at_us``: when the call began whose result was not stored; 0 where all were."""

    id: bytes
    subscription: str
    type: str
    payload: bytes
    notice: bool
    order: int
    key: bytes
    due_at_us: int
    created_at_us: int
    attempts: int
    counted: int
    ours: int
    call: bytes
    unsure: bool = False
    communication_id: str = ""
    released: bool = False
    resets: int = 0
    again: int = 0
    begun_at_us: int = 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Delivery:
        """That of a document of ``deliveries``."""
        return cls(
            id=row["_id"],
            subscription=row["subscription"],
            type=row["type"],
            payload=row["payload"],
            notice=row.get("notice", False),
            order=row["order"],
            key=row.get("key", b""),
            due_at_us=row["due_at_us"],
            created_at_us=row["created_at_us"],
            attempts=row["attempts"],
            counted=row.get("counted", 0),
            ours=row.get("ours", 0),
            call=row.get("call", b""),
            unsure=row.get("unsure", False),
            communication_id=row.get("communication_id", ""),
            released=row.get("released", False),
            resets=row.get("resets", 0),
            again=row.get("again", 0),
            begun_at_us=row.get("begun_at_us", 0),
        )

    @property
    def said(self) -> Event | Notice:
        """What it tells."""
        return Notice.FromString(self.payload) if self.notice else Event.FromString(self.payload)


class Attempted(msgspec.Struct, frozen=True):
    """What became of one call: as it is shown, and as a policy judges it.

    ``us`` is how long it took, ``answer`` the beginning of what came back, ``request`` the method and the address
    without its query.
    """

    at_us: int
    us: int
    outcome: Outcome
    text: str
    answer: str
    request: str
