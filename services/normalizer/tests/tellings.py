"""Events as callbacks tell them: single ones, whole stories, and whatever may come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backhaul_channels import (
    AddressFamily,
    ChannelSettings,
    Classification,
    Confidence,
    Consent,
    ConsentAction,
    ConsentBy,
    ConsentScope,
    ErrorClass,
    EventKind,
    NormalizedEvent,
    Reply,
    Review,
)
from backhaul_normalizer.facts import fact, origin
from backhaul_normalizer.hours import HOUR_US
from backhaul_normalizer.merge import all_together
from backhaul_normalizer.model import DAY_US, Fact
from backhaul_proto.callback.v1.callback_pb2 import (
    VERIFICATION_OBSERVED_INVALID,
    VERIFICATION_OFF,
    VERIFICATION_VERIFIED,
    Callback,
)
from hypothesis import strategies as st


def told(
    *,
    key: str = "1",
    kind: EventKind = EventKind.DELIVERED,
    name: str = "M1",
    aliases: Sequence[str] = (),
    at: int | None = None,
    arrived: int = 100,
    query: str = "",
    verification: int = VERIFICATION_VERIFIED,
    seq: int = 1,
    signed: bool = True,
    provisional: bool | None = None,
    channel: str = "sendgrid",
    tenant: str = "acme",
    **more: Any,
) -> Fact:
    """An event as a callback tells it. Names with A are further ones of those with M, names with S of both."""
    callback = Callback(
        id=f"c{seq}",
        tenant_id=tenant,
        registration=f"{tenant}.1",
        channel=channel,
        provider="sendgrid",
        url=f"https://x.example.com/api/postevents?{query}",
        received_at_us=arrived,
        verification=verification,  # type: ignore[arg-type]  # an enum's value
    )
    event = NormalizedEvent(
        kind=kind,
        key=key,
        provider_status=kind.value,
        message_id=name,
        provisional=name.startswith(("A", "S")) if provisional is None else provisional,
        aliases=[alias for alias in aliases if name and alias[0] > name[0]] if name[:1] != "M" else list(aliases),
        occurred_at_us=at,
        **more,
    )
    common = origin(callback, seq, tenant, frozenset(), url_is_signed=signed, once=ONCE)
    return fact(common, f"{key}{name}".encode(), event, ChannelSettings())


ONCE = frozenset({EventKind.QUEUED, EventKind.DELIVERED, EventKind.BOUNCED})
KINDS = [
    EventKind.QUEUED,
    EventKind.DELIVERED,
    EventKind.BOUNCED,
    EventKind.OPENED,
    EventKind.CLICKED,
    EventKind.UNSUBSCRIBED,
    EventKind.INBOUND,
    EventKind.UNKNOWN,
]
ARRIVED_US = 1000 * DAY_US
TIMES = [None, 1, ARRIVED_US - HOUR_US, ARRIVED_US - HOUR_US + 1, ARRIVED_US - 2 * DAY_US, ARRIVED_US + 2 * DAY_US]
"""When events happened by their provider's word, that of the second and of the last not to be believed."""

OPT_OUT = Consent(ConsentBy.KEYWORD, ConsentAction.OPT_OUT, "STOP")
OPT_OUT_BY_PROVIDER = Consent(ConsentBy.PROVIDER, ConsentAction.OPT_OUT)
OPT_IN_OF_A_GROUP = Consent(ConsentBy.PROVIDER, ConsentAction.OPT_IN, "", ConsentScope.GROUP, "7")
Said = tuple[Consent | None, Classification | None, Review]
SAID: list[Said] = [
    (None, None, Review.NONE),
    (OPT_OUT, Classification(Confidence.EXACT, ConsentAction.OPT_OUT, "STOP"), Review.NONE),
    (OPT_OUT_BY_PROVIDER, Classification(Confidence.PROVIDER, ConsentAction.OPT_OUT), Review.NONE),
    (OPT_IN_OF_A_GROUP, None, Review.NONE),
    (None, Classification(Confidence.LIKELY, ConsentAction.OPT_OUT, "CANCEL", ("food",)), Review.FLAGGED),
    (None, Classification(survey_response=True), Review.NONE),
]
one_of = st.sampled_from


def facts(*further: str) -> st.SearchStrategy[Fact]:
    """Events of a few messages, whose callbacks disagree about everything that they can disagree about. A few are of
    the channels ``further``."""

    def build(
        number: int,
        name: str,
        aliases: list[str],
        communication: str,
        place: str,
        default: str,
        said: Said,
        **more: Any,
    ) -> Fact:
        # What the channel gives where the sender gives nothing; its default was changed once.
        by_default = [("communicationId", default)] if default and not communication else []
        return told(
            consent=said[0],
            classification=said[1],
            review=said[2],
            key=str(number),
            # The same fact is of one kind, whoever tells it.
            kind=KINDS[number % len(KINDS)],
            name=name,
            aliases=aliases,
            query=f"communicationId={communication}{place}",
            vars=by_default,
            default_parameters=[name for name, _ in by_default],
            missing_parameters=[] if communication else ["communicationId"],
            error_url="https://example.com/errors" if more["error_class"] else "",
            **more,
        )

    return st.builds(
        build,
        channel=one_of([*3 * ["sendgrid"], *further]),
        number=st.integers(0, 9),
        name=one_of(["", "M1", "M1", "M2", "A1", "A1", "S1", "S1"]),
        aliases=one_of([[], ["S1"], ["A1"], ["A1", "S1"]]),
        communication=one_of(["", "", "a", "b"]),
        place=one_of(["", "", "&batchId=1", "&memberId=p", "&batchId=1&memberId=q", "&batchId=2&memberId=p"]),
        default=one_of(["", "0", "z"]),
        attributes=one_of([[], [("ip", "1"), ("tls", "1")], [("ip", "2")]]),
        said=one_of(SAID),
        reply=one_of([None, Reply("M2"), Reply("", "yes", "Yes"), Reply("S1", "no")]),
        recipient_family=one_of([AddressFamily.UNKNOWN, AddressFamily.EMAIL]),
        at=one_of(TIMES),
        arrived=st.integers(ARRIVED_US, ARRIVED_US + 3),
        verification=one_of([*2 * [VERIFICATION_VERIFIED], VERIFICATION_OFF, VERIFICATION_OBSERVED_INVALID]),
        seq=st.integers(1, 3),
        recipient=one_of(["", "a@example.com", "A@Example.com", "b@example.com"]),
        sender=one_of(["", "shop@example.com"]),
        error_code=one_of(["", "421", "511"]),
        error_class=one_of([ErrorClass.UNKNOWN, ErrorClass.HARD]),
        invalid_recipient=st.booleans(),
        by_machine=st.booleans(),
        references=one_of([[], ["x"], ["y", "x"]]),
        # By settings that knew no better name.
        provisional=one_of([None, None, None, False]),
        text=one_of(["", "STOP", "Stop it"]),
    )


def letters() -> st.SearchStrategy[Fact]:
    """Openings of a few messages and replies to them, that differ in little but what replies depend on."""

    def build(kind: EventKind, name: str, communication: str, at: int, **more: Any) -> Fact:
        query = f"communicationId={communication}"
        # People write when half of it has happened.
        at = 5 if kind is EventKind.INBOUND else at
        return told(key=kind.value, kind=kind, name=name, query=query, at=at, sender="shop@example.com", **more)

    return st.builds(
        build,
        kind=one_of([EventKind.DELIVERED, EventKind.OPENED, EventKind.CLICKED, *2 * [EventKind.INBOUND]]),
        name=one_of(["M1", "M2", "A1", "A1", "S1"]),
        aliases=one_of([[], ["A1"], ["S1"]]),
        communication=one_of(["", "", "a"]),
        at=one_of([1, 9]),
        seq=st.integers(1, 4),
        recipient=one_of(["a@example.com", "b@example.com"]),
        text=one_of(["", "more"]),
        provisional=one_of([None, None, False]),
    )


def batch_of(facts: Iterable[Fact]) -> list[Fact]:
    """``facts`` with each event once, as the consumer hands them to the store."""
    found: dict[str, list[Fact]] = {}
    for one in facts:
        found.setdefault(one.id, []).append(one)
    return [all_together(some) for some in found.values()]


def story(number: int) -> list[Fact]:
    """What is told of one mail that three ids name, by two ways, of which one knows less."""
    first, second, further = f"M{number}", f"A{number}", f"S{number}"
    names: dict[str, Any] = {"name": first, "query": "communicationId=spring"}
    return [
        told(key=f"{number}p", kind=EventKind.QUEUED, at=1, aliases=[second], seq=10, **names),
        told(key=f"{number}d", kind=EventKind.DELIVERED, arrived=105, seq=11, name=first),
        told(key=f"{number}d", kind=EventKind.DELIVERED, at=2, seq=12, **names),
        told(key=f"{number}e", kind=EventKind.DEFERRED, at=2, name=second, aliases=[further], seq=17),
        told(key=f"{number}o", kind=EventKind.OPENED, at=3, by_machine=True, seq=13, **names),
        told(key=f"{number}b", kind=EventKind.BOUNCED, at=9, name=further, seq=14),
        told(key=f"{number}b", kind=EventKind.BOUNCED, at=9, name=further, error_code="511", seq=15),
        told(
            key=f"{number}b",
            kind=EventKind.BOUNCED,
            name=further,
            error_code="999",
            seq=16,
            verification=VERIFICATION_OBSERVED_INVALID,
        ),
        # By settings that knew only the second name. What its duplicate tells is new.
        told(key=f"{number}c", kind=EventKind.CLICKED, at=4, name=second, provisional=False, seq=18),
        told(key=f"{number}c", kind=EventKind.CLICKED, at=4, name=second, provisional=False, aliases=[further], seq=19),
        # The provider's API tells two of them by the first name, each under another key.
        told(key=f"api{number}d", kind=EventKind.DELIVERED, at=2, seq=21, name=first),
        told(key=f"api{number}b", kind=EventKind.BOUNCED, at=8, name=first, error_text="no such user", seq=22),
        # Nobody verified that this mail, the least of all, is the one that bounced.
        told(
            key=f"{number}f",
            kind=EventKind.SENT,
            at=1,
            name=f"M{number}forged",
            aliases=[further],
            seq=20,
            verification=VERIFICATION_OBSERVED_INVALID,
        ),
    ]


def correspondence(number: int) -> list[Fact]:
    """What a shop and one person send each other, by two ways; the names that lead to a message are told late."""
    first, later, second = f"M{number}x", f"M{number}y", f"A{number}x"
    between: dict[str, Any] = {"recipient": f"+49151{number:08}", "sender": "+4930123456"}

    def wrote(key: str, at: int, seq: int, **more: Any) -> Fact:
        name = f"R{number}{key}"
        return told(
            key=f"{number}{key}",
            kind=EventKind.INBOUND,
            name=name,
            at=at,
            seq=seq,
            provisional=False,
            **between,
            **more,
        )

    return [
        told(key=f"{number}s", kind=EventKind.SENT, name=first, at=5, seq=1, **between),
        # Tells the communication, and an earlier time.
        told(key=f"{number}q", kind=EventKind.QUEUED, name=first, at=1, seq=2, query="communicationId=spring"),
        # Is a message of its own until the name is told, and the latest one until then.
        told(key=f"{number}a", kind=EventKind.OPENED, name=second, at=9, seq=3, **between),
        told(key=f"{number}d", kind=EventKind.DELIVERED, name=first, at=9, seq=4, aliases=[second]),
        told(key=f"{number}c", kind=EventKind.CLICKED, name=first, at=12, seq=10, query="communicationId=autumn"),
        told(key=f"{number}y", kind=EventKind.SENT, name=later, at=7, seq=5, query="communicationId=summer", **between),
        wrote("r", 6, 6),
        wrote("t", 10, 7, consent=OPT_OUT, classification=Classification(Confidence.EXACT, ConsentAction.OPT_OUT)),
        wrote("z", 3, 8, reply=Reply(second)),
        wrote("r", 6, 9, text="What else the provider tells of it"),
    ]
