"""What every figure of the demo must be. Pure: what was seen goes in, named checks come out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul_local.demo_api import Answer
from backhaul_local.demo_story import (
    BURST_DUPLICATES,
    BURST_MESSAGES,
    BURST_STATUSES,
    PROBES,
    Delivered,
    Loaded,
    Refused,
)
from backhaul_local.demo_traffic import ExpectedMessage, Traffic

NOTHING = "–"  # noqa: RUF001 - a dash for people, not a minus sign.


@dataclass(frozen=True)
class Check:
    """One figure: its name, what it must be and what it is, as people read them."""

    name: str
    expected: str
    got: str

    @property
    def holds(self) -> bool:
        return self.expected == self.got


def check_all(traffic: Traffic, delivered: Delivered, refused: Refused, loaded: Loaded) -> list[Check]:
    """Every check of the demo."""
    return [
        *check_delivered(traffic, delivered),
        *check_refused(delivered, refused),
        *check_loaded(loaded),
    ]


def check_delivered(traffic: Traffic, seen: Delivered) -> list[Check]:
    """The genuine traffic: answers, messages, the communication, the dead letter."""
    posted = len(traffic.twilio_bodies) + 2  # With the unreadable one and SendGrid's batch.
    events = sum(len(message.timeline) for message in traffic.messages)
    joined = sum(answer.body.get("communication_id") == traffic.communication_id for _, answer in seen.messages)
    verified = sum(event["verification"] == "verified" for event in seen.events)
    due, body = traffic.communication, seen.communication.body
    first = seen.messages[0][1].body
    return [
        Check("signed callbacks answered 200", f"{posted} of {posted}", _of(_ok(seen.answers), len(seen.answers))),
        *(check for due, answer in seen.messages for check in _check_message(due, answer)),
        Check("events kept, each once", str(events), str(len(seen.events))),
        Check("events marked as verified", str(events), str(verified)),
        Check("messages joined to spring-sale", str(len(traffic.messages)), str(joined)),
        Check("custom parameters kept", "communicationId=spring-sale, offerId=SMS-20", _pairs(first.get("vars", []))),
        Check("keyword of the reply", "STOP", _keywords(seen.messages)),
        Check("spring-sale: messages", str(due["messages"]), str(body.get("messages"))),
        Check("spring-sale: fulfilment states", counts(due["fulfilment"]), counts(body.get("fulfilment", {}))),
        Check("spring-sale: events", counts(due["events"]), counts(body.get("events", {}))),
        Check("dead letters", "1, open: Twilio's conversations", _dead_letters(seen.dead_letters)),
    ]


def check_refused(delivered: Delivered, seen: Refused) -> list[Check]:
    """Every attempt was refused as it must be, and nothing of it stayed."""
    before, after = delivered.communication.body, seen.communication.body
    difference = "unchanged" if before == after else f"{counts(after.get('events', {}))} instead of the above"
    return [
        *(
            Check(attempt.what, f"{attempt.status} {attempt.code}", _refusal(attempt.answer))
            for attempt in seen.attempts
        ),
        Check("refused signatures counted", "Acme Twilio 3, Acme SendGrid 1, Globex Twilio 1", counts(seen.counted)),
        Check("tenants afterwards", "acme, globex", ", ".join(seen.tenant_ids)),
        Check("Globex's messages afterwards", "0", str(seen.globex_messages)),
        Check("spring-sale afterwards", "unchanged", difference),
    ]


def check_loaded(seen: Loaded) -> list[Check]:
    """The burst was stored as a whole, and every event of it counted once."""
    posted = BURST_MESSAGES * len(BURST_STATUSES) + BURST_DUPLICATES
    body = seen.communication.body
    answered = Counter(seen.result.statuses)
    return [
        Check("burst: answers", f"200: {posted}", ", ".join(f"{s}: {n}" for s, n in sorted(answered.items()))),
        Check("burst: messages", str(BURST_MESSAGES), str(body.get("messages"))),
        Check("burst: fulfilment states", f"Delivered {BURST_MESSAGES}", counts(body.get("fulfilment", {}))),
        Check(
            "burst: events, duplicates counted once",
            counts(dict.fromkeys(BURST_STATUSES, BURST_MESSAGES)),
            counts(body.get("events", {})),
        ),
        Check("callbacks one by one, read back", f"{PROBES} of {PROBES}", _of(seen.probes_delivered, PROBES)),
    ]


def counts(figures: Mapping[str, int]) -> str:
    """Counts as people read them, those that are zero left out, states in the order of the API, kinds by name."""
    names = figures if any(name[:1].isupper() for name in figures) else sorted(figures)
    return ", ".join(f"{name} {figures[name]}" for name in names if figures[name]) or NOTHING


def outcome(state: str, fulfilment_state: str | None, error_code: str, error_text: str) -> str:
    """How a message ended, in one line."""
    error = f", error {error_code}: {error_text}" if error_code else ""
    counted = f"counts as {fulfilment_state}" if fulfilment_state else "counts in no fulfilment state"
    return f"{state}, {counted}{error}"


def outcome_of(answer: Answer) -> str:
    """The same of what the API says of a message; its problem when it says none."""
    body = answer.body
    if answer.status != 200:
        return f"{answer.status} {answer.detail}"
    return outcome(body["state"], body["fulfilment_state"], body["error_code"], body["error_text"])


def _check_message(due: ExpectedMessage, answer: Answer) -> list[Check]:
    timeline = [(event["kind"], event["provider_status"]) for event in answer.body.get("timeline", [])]
    ends = outcome(due.state, due.fulfilment_state, due.error_code, due.error_text)
    return [
        Check(f"{due.name} ends", ends, outcome_of(answer)),
        Check(f"{due.name} timeline", _steps(due.timeline), _steps(timeline)),
    ]


def _steps(timeline: Sequence[tuple[str, str]]) -> str:
    return " → ".join(kind if kind == word else f"{kind} ({word})" for kind, word in timeline) or NOTHING


def _pairs(pairs: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(f"{pair['name']}={pair['value']}" for pair in pairs) or NOTHING


def _keywords(messages: Sequence[tuple[ExpectedMessage, Answer]]) -> str:
    found = [
        event["consent"]["word"]
        for _, answer in messages
        for event in answer.body.get("timeline", [])
        if event["consent"]
    ]
    return ", ".join(found) or NOTHING


def _dead_letters(letters: Sequence[Mapping[str, Any]]) -> str:
    known = "Twilio's conversations"
    said = [known if known in letter["reason"] else letter["reason"] for letter in letters]
    states = sorted({letter["state"] for letter in letters})
    return f"{len(letters)}, {'/'.join(states)}: {'; '.join(said)}" if letters else "0"


def _refusal(answer: Answer) -> str:
    return f"{answer.status} {answer.body.get('code', NOTHING)}"


def _ok(answers: Sequence[Answer]) -> int:
    return sum(answer.status == 200 for answer in answers)


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}"
