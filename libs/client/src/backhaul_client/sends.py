"""What was sent, and what could not be: told over HTTP by whoever sent it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, Required, TypedDict
from uuid import uuid4

import msgspec

from backhaul_client.calls import Call, aware, entry, of, series

MAX_SENDS = 10_000
MAX_BYTES = 900_000
"""Of one request. The body of a tenant without limits of its own has 1 MiB at most."""


_EXAMPLE = '{"channel": "Twilio", "message_id": "SM1"}'


class SendIn(TypedDict, total=False):
    """One message to one person. ``message_id`` is the provider's; ``communication``, ``batch``, ``member`` and ``id``,
    of this send alone, are your own. ``status`` is ``sent`` where it is left out. ``sent_at`` has a time zone."""

    channel: Required[str]
    message_id: str
    recipient: str
    sender: str
    communication: str
    batch: str
    member: str
    sent_at: datetime | None
    id: str
    status: Literal["sent", "refused", "not_generated"]
    error_code: str
    error_text: str
    attributes: Mapping[str, str]


class ReportedSends(msgspec.Struct, frozen=True, kw_only=True):
    """They are stored. ``callback_ids`` are of the callbacks that hold them; events name theirs."""

    accepted: int
    callback_ids: tuple[str, ...]


def _together(answers: Sequence[ReportedSends]) -> ReportedSends:
    return ReportedSends(
        accepted=sum(answer.accepted for answer in answers),
        callback_ids=tuple(one for answer in answers for one in answer.callback_ids),
    )


class SendCalls:
    """The call, once for both clients."""

    @series(_together)
    def report_sends(self, sends: Iterable[SendIn], *, idempotency_key: str = "") -> Iterator[Call[ReportedSends]]:
        """Tell what you sent, or could not send; any number, by as many requests as it takes.

        What is told twice counts once, so repeat a call that failed. ``idempotency_key`` tells apart refused sends that
        say the same and have no ``id``: repeat the same sends under the same one. Where a send is wrong, nothing of its
        request is stored, and what came before is.
        """
        key = idempotency_key or uuid4().hex
        for number, body in enumerate(_bodies(sends)):
            yield Call(
                method="POST",
                path="/v1/sends",
                content=body,
                headers={
                    "Content-Type": "application/json",
                    "Idempotency-Key": f"{key}-{number}" if number else key,
                },
                answer=of(ReportedSends),
                repeatable=True,
            )


def _bodies(sends: Iterable[SendIn]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for number, send in enumerate(sends):
        part = _encoded(entry("sends", number, send, _EXAMPLE))
        if parts and (len(parts) == MAX_SENDS or size + len(part) > MAX_BYTES):
            yield b"[%b]" % b",".join(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part) + 1
    if parts:
        yield b"[%b]" % b",".join(parts)


def _encoded(send: SendIn) -> bytes:
    sent_at = send.get("sent_at")
    if sent_at is not None:
        aware("sent_at", sent_at)
    return msgspec.json.encode({name: value for name, value in send.items() if value is not None})
