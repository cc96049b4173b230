"""When a delivery is tried again, and when no more: arithmetic over what an attempt came to, and a clock that is given.

| policy | an attempt takes | success | tried again after | then |
|---|---|---|---|---|
| ``dispatch`` | 120 s | 200 | 5 min, 5 min | failed, communication disabled |
| ``rcs`` | 10 s | 200 | 10 s, 30 s, 2 min, 10 min, 30 min, 1, 3, 6, 12 h, 1 d | failed |
| ``standard`` | 15 s | 2xx | 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h, and up to a tenth more | failed |
| ``custom`` | 1 to 120 s | 2xx or 200 | what the tenant says: up to 20 times of 1 s to 7 d | failed |

``standard`` and ``custom`` heed what an endpoint says of itself: ``Retry-After`` puts the next attempt off up to a day;
429, 502 and 504 slow the whole endpoint down; 410 disables the subscription. ``dispatch`` and ``rcs`` are as their
documents say, which know none of it. A redirect is never followed: it is a failure as any other.

What goes wrong on our side (a proxy, or no room for a connection) is not the endpoint's: it takes none of the attempts,
and is tried again by a schedule of its own, for about a day. What could not even be sent, since its address has a
variable without a value, takes attempts as any other, but says nothing of the endpoint and disables nothing. The same
is of an attempt that is lost, of which nothing is known but that it was begun: the endpoint may have been called. It is
never the one with which a delivery fails: where it was the last, it counts as what went wrong on our side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

import msgspec
from backhaul_common.errors import BackhaulError, Code, Violation

MAX_STEPS: Final = 20
MIN_STEP_S: Final = 1
MAX_STEP_S: Final = 604_800
MIN_TIMEOUT_S: Final = 1
MAX_TIMEOUT_S: Final = 120

MAX_RETRY_AFTER_S: Final = 86_400.0
"""For how long an endpoint may put off one delivery."""

MAX_THROTTLE_S: Final = 3600.0
"""For how long one answer may slow down an endpoint."""

THROTTLE_S: Final = 60.0
"""For how long an answer does that does not say."""

MAX_OUR_FAILURES: Final = 100
"""Of one delivery: with the pauses between them a little more than a day."""

OUR_ERRORS: Final = ("proxy_", "no_room", "normalizer_", "secrets_", "mail_server_", "internal")
"""How the words of errors begin that happened on our side."""

UNRESOLVED: Final = "variable_missing"
"""The word for an address that could not be made."""

LOST: Final = "lost"
"""The word for an attempt of which nothing is known but that it was begun."""

_UNCHARGED = (UNRESOLVED, "request_invalid", LOST)

_JITTER = 0.1
"""Up to this part of a pause is added: deliveries that failed together do not come again together."""
_OUR_PAUSES_S = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 900.0)
_THROTTLING = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})


class PolicyKind(StrEnum):
    """Whose rules a subscription's deliveries follow."""

    STANDARD = "standard"
    DISPATCH = "dispatch"
    RCS = "rcs"
    CUSTOM = "custom"


class Disables(StrEnum):
    """What an outcome switches off."""

    SUBSCRIPTION = "subscription"
    COMMUNICATION = "communication"


class Verdict(StrEnum):
    """What is to become of a delivery."""

    SUCCEEDED = "succeeded"
    RETRY = "retry"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long an attempt may take, what is success, and the seconds from each failed attempt to the next.

    ``jitter``: pauses are lengthened a little, by chance. ``heeds``: what the endpoint says of itself counts.
    ``exhausted`` is what is disabled with the last attempt.
    """

    kind: PolicyKind
    timeout_s: int
    steps_s: tuple[int, ...]
    only_200: bool = False
    jitter: bool = False
    heeds: bool = False
    exhausted: Disables | None = None

    @property
    def attempts(self) -> int:
        """How often a delivery is tried at most."""
        return len(self.steps_s) + 1


STANDARD: Final = Policy(
    PolicyKind.STANDARD, 15, (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400), jitter=True, heeds=True
)
DISPATCH: Final = Policy(PolicyKind.DISPATCH, 120, (300, 300), only_200=True, exhausted=Disables.COMMUNICATION)
RCS: Final = Policy(PolicyKind.RCS, 10, (10, 30, 120, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400), only_200=True)

_NAMED = {policy.kind: policy for policy in (STANDARD, DISPATCH, RCS)}


class Outcome(msgspec.Struct, frozen=True):
    """What an attempt came to: the ``status`` of an answer, 0 where there was none; a word for what else went wrong,
    with or without one (``timeout``, or ``body_too_large`` of a 200); what ``Retry-After`` said, in seconds from then,
    None where it said nothing that can be read."""

    status: int = 0
    error: str = ""
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        if not self.status and not self.error:
            raise ValueError("an attempt came to a status, or to an error")

    @property
    def ours(self) -> bool:
        """Whether it failed on our side, and not at the endpoint."""
        return self.error.startswith(OUR_ERRORS)


class Decision(msgspec.Struct, frozen=True):
    """What follows from an attempt.

    ``retry_at_us`` is when the delivery is tried again, in unix time; 0 where it is not. For ``throttle_s`` seconds the
    endpoint is to be called less. ``counted``: it is one of the delivery's attempts. ``charged``: it tells something of
    the endpoint, whose breaker counts it. ``happened`` is for people what the attempt came to, and ``text`` that with
    what follows for the delivery.
    """

    verdict: Verdict
    happened: str
    text: str
    retry_at_us: int = 0
    throttle_s: float = 0.0
    disables: Disables | None = None
    counted: bool = True
    charged: bool = True


def policy_of(
    kind: PolicyKind,
    *,
    steps_s: Sequence[int] = (),
    timeout_s: int = 0,
    only_200: bool = False,
    field: str = "policy",
) -> Policy:
    """The policy that a tenant names. ``steps_s``, ``timeout_s`` (0: 15 s) and ``only_200`` are of ``custom`` alone.

    INVALID_ARGUMENT names each field at fault, within ``field``.
    """
    if kind is PolicyKind.CUSTOM:
        return _custom(steps_s, timeout_s, field, only_200=only_200)
    given = [
        name for name, value in (("retry_after_s", steps_s), ("timeout_s", timeout_s), ("only_200", only_200)) if value
    ]
    if given:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The policy {kind} has its own schedule.",
            violations=[
                Violation(f"{field}.{name}", f"The policy {kind} has its own.", "Leave it out, or choose custom.")
                for name in given
            ],
        )
    return _NAMED[kind]


def decide(
    policy: Policy,
    attempt: int,
    outcome: Outcome,
    now_us: int,
    chance: float,
    *,
    our_failures: int = 0,
    sentence: str = "",
) -> Decision:
    """What follows from ``attempt``, which ended at ``now_us`` in unix time.

    Attempts are counted from 1, without those that failed on our side; ``our_failures`` is how many of these came
    before. ``chance`` is a number from 0 up to 1, drawn for this decision. ``sentence`` is what whoever made the
    attempt says of it, for people; without it, it is told by its status or its word.
    """
    if attempt < 1 or our_failures < 0 or not 0 <= chance < 1:
        raise ValueError("attempts are counted from 1, and chance is from 0 up to 1")
    if outcome.ours or (outcome.error == LOST and attempt >= policy.attempts):
        return _after_ours(outcome, now_us, chance, our_failures, sentence)
    if not outcome.error and _is_success(policy, outcome.status):
        said = sentence or f"The endpoint answered {outcome.status}."
        return Decision(Verdict.SUCCEEDED, said, said)
    said, charged = _said(policy, outcome, sentence), outcome.error not in _UNCHARGED
    throttle_s = _throttle_s(policy, outcome)
    if policy.heeds and outcome.status == HTTPStatus.GONE:
        text = f"{said} It wants no more, so the subscription is disabled."
        return Decision(Verdict.FAILED, said, text, disables=Disables.SUBSCRIPTION)
    if attempt >= policy.attempts:
        text = f"{said} That was attempt {attempt} of {policy.attempts}: it has failed."
        disables = policy.exhausted if charged else None
        return Decision(Verdict.FAILED, said, text, throttle_s=throttle_s, disables=disables, charged=charged)
    pause_s = float(policy.steps_s[attempt - 1])
    if policy.jitter:
        pause_s *= 1 + _JITTER * chance
    if policy.heeds:
        pause_s = max(pause_s, _bounded(outcome.retry_after_s, MAX_RETRY_AFTER_S))
    text = f"{said} That was attempt {attempt} of {policy.attempts}: the next one is in {duration(pause_s)}."
    return Decision(Verdict.RETRY, said, text, now_us + round(pause_s * 1_000_000), throttle_s, charged=charged)


def duration(seconds: float) -> str:
    """``5 min``, ``1 h 30 min``, for people; from a minute on, without fractions of one."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, minutes = divmod(minutes, 1440)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if count]
    return " ".join(parts)


def _is_success(policy: Policy, status: int) -> bool:
    return status == HTTPStatus.OK if policy.only_200 else 200 <= status < 300


def _after_ours(outcome: Outcome, now_us: int, chance: float, before: int, sentence: str) -> Decision:
    said = f"{sentence} It failed on our side and not at the endpoint ({outcome.error}).".lstrip()
    if before + 1 >= MAX_OUR_FAILURES:
        text = f"{said} That was so {before + 1} times: it has failed, and can be sent again when that is mended."
        return Decision(Verdict.FAILED, said, text, counted=False, charged=False)
    pause_s = _OUR_PAUSES_S[min(before, len(_OUR_PAUSES_S) - 1)] * (1 + _JITTER * chance)
    text = f"{said} It is tried again in {duration(pause_s)}, and this is none of its attempts."
    due_at_us = now_us + round(pause_s * 1_000_000)
    return Decision(Verdict.RETRY, said, text, due_at_us, counted=False, charged=False)


def _said(policy: Policy, outcome: Outcome, sentence: str) -> str:
    if outcome.error and sentence:
        return sentence
    if outcome.error:
        answered = f", though it answered {outcome.status}" if outcome.status else ""
        return f"The attempt failed ({outcome.error}){answered}."
    if 300 <= outcome.status < 400:
        return f"The endpoint answered {outcome.status}, and redirects are not followed: name the place itself."
    if policy.only_200 and 200 <= outcome.status < 300:
        return f"The endpoint answered {outcome.status}, and only 200 is success."
    return f"The endpoint answered {outcome.status}."


def _throttle_s(policy: Policy, outcome: Outcome) -> float:
    if not policy.heeds or outcome.status not in _THROTTLING:
        return 0.0
    return _bounded(outcome.retry_after_s, MAX_THROTTLE_S) or THROTTLE_S


def _bounded(seconds: float | None, most: float) -> float:
    """0 where nothing was said. What is no number, or is negative, says nothing either."""
    return min(seconds, most) if seconds is not None and seconds > 0 else 0.0


def _custom(steps_s: Sequence[int], timeout_s: int, field: str, *, only_200: bool) -> Policy:
    wrong = []
    if len(steps_s) > MAX_STEPS:
        wrong.append(
            Violation(f"{field}.retry_after_s", f"It has more than {MAX_STEPS} times.", "Leave the last ones out.")
        )
    wrong += [
        Violation(
            f"{field}.retry_after_s[{place}]",
            f"{step} is not between {MIN_STEP_S} s and {MAX_STEP_S} s (7 days).",
            "Pass the seconds from each failed attempt to the next one.",
        )
        for place, step in enumerate(steps_s[:MAX_STEPS])
        if not MIN_STEP_S <= step <= MAX_STEP_S
    ]
    if timeout_s and not MIN_TIMEOUT_S <= timeout_s <= MAX_TIMEOUT_S:
        wrong.append(
            Violation(
                f"{field}.timeout_s",
                f"It is not between {MIN_TIMEOUT_S} and {MAX_TIMEOUT_S} s.",
                f"Pass the seconds that an attempt may take, or 0 for {STANDARD.timeout_s}.",
            )
        )
    if wrong:
        raise BackhaulError(Code.INVALID_ARGUMENT, "The policy is out of bounds.", violations=wrong)
    timeout = timeout_s or STANDARD.timeout_s
    return Policy(PolicyKind.CUSTOM, timeout, tuple(steps_s), only_200=only_200, heeds=True)
