"""What is asked and answered about replays: by tenants, and by the platform team."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from backhaul_proto.normalizer.v1 import replays_pb2 as pb
from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from backhaul_gateway.twins.renaming import renamed
from backhaul_gateway.twins.twin import Of, Twin
from backhaul_gateway.web.filters import Text, microseconds
from backhaul_gateway.web.moments import AwareMoment

_DryRun = Annotated[bool, Field(strict=True)]
_SAY_AGAIN = "It may have begun, or not: look for it among the replays, or repeat it under an Idempotency-Key."

ReplayId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="The replay's id.")]


class ReplayIn(BaseModel):
    """The callbacks of a channel that arrived from ``from``, inclusive, to ``to``, exclusive; left out, until now."""

    model_config = ConfigDict(extra="forbid")

    channel: Annotated[Text, Field(min_length=1, max_length=512, examples=["Twilio"])]
    from_: AwareMoment = Field(alias="from", description="RFC 3339; inclusive.")
    to: AwareMoment | None = Field(None, description="RFC 3339; exclusive.")
    dry_run: _DryRun = Field(default=False, description="Say what would change, and change nothing.")
    rate_per_s: Annotated[int, Field(ge=0, le=10_000, strict=True)] = Field(
        0, description="Callbacks a second, so that more is left for what comes in; 0: half of the time that there is."
    )

    def request(self, tenant_id: str, idempotency_key: str, author: str) -> pb.BeginReplayRequest:
        """The call."""
        return pb.BeginReplayRequest(
            tenant_id=tenant_id,
            kind=pb.REPLAY_KIND_CALLBACKS,
            channel=self.channel,
            from_us=microseconds(self.from_),
            to_us=microseconds(self.to),
            dry_run=self.dry_run,
            rate_per_s=self.rate_per_s,
            idempotency_key=idempotency_key,
            author=author,
        )


class DeadLettersIn(BaseModel):
    """Which open dead letters are meant: those that fit all that is said, which must be something. ``reason`` is what
    their reason contains; ``from``, inclusive, and ``to``, exclusive, bound when they were first seen."""

    model_config = ConfigDict(extra="forbid")

    channel: Annotated[Text, Field(max_length=512, examples=["Twilio"])] = ""
    reason: Annotated[Text, Field(max_length=200, examples=["MessageSid is missing"])] = ""
    from_: AwareMoment | None = Field(None, alias="from", description="RFC 3339; inclusive.")
    to: AwareMoment | None = Field(None, description="RFC 3339; exclusive.")
    dry_run: _DryRun = Field(default=False, description="Count them, and change nothing.")

    def request(
        self, tenant_id: str, kind: pb.ReplayKind.ValueType, idempotency_key: str, author: str
    ) -> pb.BeginReplayRequest:
        """The call."""
        return pb.BeginReplayRequest(
            tenant_id=tenant_id,
            kind=kind,
            channel=self.channel,
            reason=self.reason,
            from_us=microseconds(self.from_),
            to_us=microseconds(self.to),
            dry_run=self.dry_run,
            idempotency_key=idempotency_key,
            author=author,
        )


class ReplayCountsOut(BaseModel):
    """What was found so far. Of the ``callbacks`` of the span, the ``events`` that they tell; of these, those that are
    ``new``, those of people who were ``erased`` since, which are left out, and the rest, which is known. So many events
    were ``completed``, which gave them a revision. In a dry run, so many are ``contradicted``: they would be told
    otherwise today, and stay as they are. Callbacks with a part that cannot be read, and dead letters whose bytes were
    not kept, are ``unreadable``. ``dead_letters`` were closed, and those that were sent through and ``refused_again``
    are open; which of the two, is known of a letter when it was processed, and of all when the replay is ``done``."""

    callbacks: int
    events: int
    new: int
    completed: int
    contradicted: int
    unreadable: int
    erased: int
    dead_letters: int
    refused_again: int


class ReplayExampleOut(BaseModel):
    """What was found, by the id of the event, the callback or the dead letter. ``outcome`` is ``new``, ``completed``,
    ``contradicted``, ``unreadable``, ``closed`` or ``refused_again``."""

    outcome: str
    id: str
    event_kind: str | None


class ReplayOut(BaseModel):
    """A replay. ``kind`` is ``callbacks``, ``dead_letters`` or ``discard``; ``state`` is ``waiting``, ``running``,
    ``done``, ``cancelled`` or ``stopped``, and ``text`` says why it waits or stopped. What arrived before
    ``stored_since`` may have left the callback log: it cannot be replayed. Where that may have come before the replay
    did, ``text`` says so, as it does of dead letters that may yet be refused again.
    There are 100 ``examples`` at most, and none in lists. ``takes_s`` is how many seconds what
    was read so far takes at the least at its ``rate_per_s`` (0: it has none): of a dry run, how long it will take in
    earnest."""

    id: str
    kind: str
    channel: str | None
    reason: str | None
    span_from: Annotated[str | None, Of("from_us")]
    span_to: Annotated[str | None, Of("to_us")]
    dry_run: bool
    state: str
    text: str | None
    percent: int
    counts: ReplayCountsOut
    examples: list[ReplayExampleOut]
    stored_since: str | None
    author: str | None
    created_at: str | None
    ended_at: str | None
    rate_per_s: int
    takes_s: int


class ReplayPage(BaseModel):
    """Newest first. ``next_cursor`` is null on the last page."""

    replays: list[ReplayOut]
    next_cursor: Annotated[str | None, Of("next_page_token")]


REPLAY: Twin[pb.Replay] = Twin(ReplayOut, pb.Replay.DESCRIPTOR)
REPLAYS: Twin[pb.ListReplaysResponse] = Twin(ReplayPage, pb.ListReplaysResponse.DESCRIPTOR)

BEGUN: dict[int | str, dict[str, Any]] = {202: {"description": "It begins.", "model": ReplayOut}}


@contextmanager
def in_words_of_http() -> Iterator[None]:
    """Around a call: what it refuses is named as the request has it."""
    names = {"from_us": "from", "to_us": "to", "id": "replay_id", "idempotency_key": "Idempotency-Key"}
    with renamed(names, texts={"from_us": "from", "to_us": "to"}, unanswered=_SAY_AGAIN):
        yield
