"""Whether people may be contacted: what the demo's people say, what must follow from it, and how the demo asks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from backhaul_client.models import Event
from backhaul_client.suppressionmodels import Checked, CheckItem, CheckResult
from backhaul_testing.posts import send

from backhaul_local.demo_asking import Account, Attempt, if_there, poll, refused
from backhaul_local.demo_channels import FLAGGED, PERSON

PURPOSES = ("transactional", "marketing")
UNDECIDED = "+15005550077"
"""Who writes STOP, and START."""

WORDS = {"STOP": "SM5a1e0f2b7c934d86a0d3f4b5c6e7f809", "START": "SM6b2f103c8da45e97b1e405c6d7f8091a"}
"""What they write, each with the message's id."""

RULE = "stop_by_recipient"
"""By which a tenant alone may not take a STOP back."""

MAX_WAIT_S = 1.0
"""From the 200 of a person's word to every answer that heeds it."""


@dataclass(frozen=True)
class Person:
    """Somebody who has been heard of before. ``said`` is what the demo has posted about them; ``answers`` are what must
    be answered for each of ``PURPOSES``."""

    address: str
    said: str
    answers: tuple[str, str]


PEOPLE = (
    Person("ada@example.com", "left a group, and joined it again", ("allowed", "allowed")),
    Person("cleo@example.com", "dropped, as mails had bounced before", ("hard_bounce", "hard_bounce")),
    Person("dan@example.com", "reported a mail as spam, and unsubscribed", ("allowed", "complaint, unsubscribe")),
    Person("+15005550012", "a landline: SMS fail with 30006", ("invalid_address", "invalid_address")),
    Person(PERSON, f"“{FLAGGED}” over RCS, accepted by Acme", ("stop", "stop")),
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was answered. ``before``, ``stopped`` and ``started`` are about one person at Acme, and ``elsewhere`` about
    the same at Globex meanwhile; ``stopped_s`` and ``started_s`` are from the 200 of their word to the answer.
    ``reply`` is their STOP as the API has it. ``people`` has the answers for each of ``PURPOSES``."""

    statuses: Sequence[int]
    before: Checked
    stopped: Checked
    stopped_s: float
    reply: Event | None
    elsewhere: Checked
    lift: Attempt
    started: Checked
    started_s: float
    people: Sequence[tuple[Person, Sequence[CheckResult]]]


async def ask(http: httpx.AsyncClient, address: str, acme: Account, globex: Account) -> Asked:
    """Somebody writes STOP and START to Acme, over Twilio at ``address``; then ask about who was heard of before."""
    statuses = []

    async def say(word: str, verdict: str) -> tuple[Checked, float]:
        post = acme.twilio.inbound(address, WORDS[word], word, sender=UNDECIDED)
        statuses.append((await send(http, post)).status_code)
        answered = time.perf_counter()
        checked = await poll(lambda: acme.client.check(UNDECIDED), lambda checked: checked.verdict == verdict)
        return checked, time.perf_counter() - answered

    before = await acme.client.check(UNDECIDED)
    stopped, stopped_s = await say("STOP", "suppressed")
    message = await if_there(acme.client.message("Twilio", WORDS["STOP"]))
    elsewhere = await globex.client.check(UNDECIDED)
    lift = await refused(
        "Acme lifts the STOP, without evidence",
        "409 failed_precondition",
        acme.client.lift_suppression(UNDECIDED, "stop"),
    )
    started, started_s = await say("START", "allowed")
    return Asked(
        statuses=statuses,
        before=before,
        stopped=stopped,
        stopped_s=stopped_s,
        reply=message.timeline[0] if message and message.timeline else None,
        elsewhere=elsewhere,
        lift=lift,
        started=started,
        started_s=started_s,
        people=await poll(lambda: _people(acme), lambda people: all(_as_due(*one) for one in people)),
    )


def told(checked: Checked) -> str:
    """An answer in one line: ``allowed``, or the kinds of what says no."""
    return ", ".join(sorted(row.kind for row in checked.blocking)) or checked.verdict


async def _people(acme: Account) -> list[tuple[Person, Sequence[CheckResult]]]:
    items = [CheckItem(address=person.address) for person in PEOPLE]
    answers = [(await acme.client.check_batch(items, purpose=purpose)).results for purpose in PURPOSES]
    return list(zip(PEOPLE, zip(*answers, strict=True), strict=True))


def _as_due(person: Person, answers: Sequence[CheckResult]) -> bool:
    return tuple(map(told, answers)) == person.answers
