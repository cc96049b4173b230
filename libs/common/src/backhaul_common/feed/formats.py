"""What nats-server and a consumer say to each other beneath nats-py: read from nats-server 2.15.1, held by the tests.

Pulls are ADR-13 of the NATS architecture, reads of several messages ADR-31, the subject of an acknowledgement ADR-15.
nats-py has calls for all of it that cost more than a message: a subscription, a timer and a task for each request.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

ACK, IN_PROGRESS, TERM = b"+ACK", b"+WPI", b"+TERM"

IDLE = "100"
NOT_FOUND = "404"
NO_RESPONDERS = "503"
END_OF_READ = ("204", NOT_FOUND)
"""How a read of several messages ends: after them, or because there is none."""


def nak(delay_s: float) -> bytes:
    """Deliver it again, not before ``delay_s``."""
    return b'-NAK {"delay": %d}' % int(delay_s * 1e9)


def pull_subject(stream: str, consumer: str) -> str:
    """Where messages of ``consumer`` are asked for."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def pull(messages: int, size: int, expires_s: float) -> bytes:
    """Asks for that many messages and bytes. The broker sends them as they come, until it expires."""
    return msgspec.json.encode({"batch": messages, "max_bytes": size, "expires": int(expires_s * 1e9)})


def read_subject(stream: str) -> str:
    """Where messages are read by position, past all consumers."""
    return f"$JS.API.DIRECT.GET.{stream}"


def read(first: int, subjects: str, messages: int, size: int) -> bytes:
    """Reads from ``first`` on what lies under ``subjects``. The last answer is a status without a message."""
    return msgspec.json.encode({"seq": first, "next_by_subj": subjects, "batch": messages, "max_bytes": max(1, size)})


def read_since(since: datetime, subjects: str) -> bytes:
    """Reads the first message under ``subjects`` that was stored then or later; the last answer is a status."""
    return msgspec.json.encode({"start_time": since.isoformat(), "next_by_subj": subjects, "batch": 1, "max_bytes": 1})


def status_of(headers: Mapping[str, str] | None) -> tuple[str, str]:
    """The status and its description in lower case; two empty strings where it is a message."""
    if not headers:
        return "", ""
    return headers.get("Status", ""), headers.get("Description", "").lower()


class Place(NamedTuple):
    """What the subject says on which a message is acknowledged.

    ``deliveries`` counts how often it was delivered, this time included; ``consumer_seq`` counts everything that the
    consumer delivered. ``pending`` messages lay behind it for the consumer.
    """

    consumer: str
    deliveries: int
    stream_seq: int
    consumer_seq: int
    pending: int


def stream_seq_of(reply: str) -> int:
    """The position in the stream of a message that is acknowledged on ``reply``."""
    tokens = reply.split(".")
    return int(tokens[5 if len(tokens) < 11 else 7])


def stored_at_us_of(reply: str) -> int:
    """When a message that is acknowledged on ``reply`` was stored, by the broker's clock: unix time in microseconds."""
    tokens = reply.split(".")
    return int(tokens[7 if len(tokens) < 11 else 9]) // 1000


def place_of(reply: str) -> Place:
    """All of it."""
    # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>; where there is a domain,
    # it and the account stand before the stream, and a token may follow.
    tokens = reply.split(".")
    first = 3 if len(tokens) < 11 else 5
    deliveries, stream_seq, consumer_seq, _, pending = map(int, tokens[first + 1 : first + 6])
    return Place(tokens[first], deliveries, stream_seq, consumer_seq, pending)
