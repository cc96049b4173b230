"""Schedules, case by case from the two documents and the Standard Webhooks specification, by a clock that is moved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_notifier.schedules import (
    DISPATCH,
    MAX_OUR_FAILURES,
    MAX_RETRY_AFTER_S,
    MAX_THROTTLE_S,
    RCS,
    STANDARD,
    THROTTLE_S,
    UNRESOLVED,
    Decision,
    Disables,
    Outcome,
    Policy,
    PolicyKind,
    Verdict,
    decide,
    duration,
    policy_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

NOW_US = 1_795_700_000_000_000
MINUTE, HOUR, DAY = 60, 3600, 86_400
OK, NOT_YET = Outcome(200), Outcome(503)
EVERY_STATUS = range(100, 600)


class Clock:
    """A delivery that is tried whenever it is due."""

    def __init__(self, policy: Policy, *, chance: float = 0.0) -> None:
        self.policy = policy
        self.chance = chance
        self.now_us = NOW_US
        self.made = 0
        self.by_proxy = 0

    def attempt(self, outcome: Outcome) -> Decision:
        told = decide(self.policy, self.made + 1, outcome, self.now_us, self.chance, our_failures=self.by_proxy)
        if told.counted:
            self.made += 1
        else:
            self.by_proxy += 1
        self.now_us = told.retry_at_us or self.now_us
        return told

    def run(self, outcomes: Iterable[Outcome]) -> tuple[list[float], Decision]:
        """The seconds from the first attempt to each of them, and the last decision."""
        at, told = [], None
        for outcome in outcomes:
            at.append((self.now_us - NOW_US) / 1_000_000)
            told = self.attempt(outcome)
            if told.verdict is not Verdict.RETRY:
                break
        assert told
        return at, told


def endless(outcome: Outcome) -> Iterable[Outcome]:
    while True:
        yield outcome


def verdict(policy: Policy, outcome: Outcome) -> Verdict:
    return decide(policy, 1, outcome, NOW_US, 0.0).verdict


# Dispatch's document.


def test_dispatch_times_out_after_120_seconds() -> None:
    assert DISPATCH.timeout_s == 120


@pytest.mark.parametrize("outcome", [Outcome(error="timeout"), Outcome(error="connect_failed"), Outcome(500)])
def test_dispatch_tries_three_times_five_minutes_apart_and_then_disables_the_communication(outcome: Outcome) -> None:
    at, told = Clock(DISPATCH, chance=0.9).run(endless(outcome))
    assert at == [0, 300, 600]
    assert (told.verdict, told.disables, told.retry_at_us) == (Verdict.FAILED, Disables.COMMUNICATION, 0)
    assert "attempt 3 of 3" in told.text


@pytest.mark.parametrize("before", [0, 1, 2])
def test_dispatch_is_delivered_with_any_of_its_attempts(before: int) -> None:
    at, told = Clock(DISPATCH).run([NOT_YET] * before + [OK])
    assert at == [300 * number for number in range(before + 1)]
    assert (told.verdict, told.disables) == (Verdict.SUCCEEDED, None)


@pytest.mark.parametrize("policy", [DISPATCH, RCS])
def test_only_200_is_success_by_both_documents(policy: Policy) -> None:
    assert [status for status in EVERY_STATUS if verdict(policy, Outcome(status)) is Verdict.SUCCEEDED] == [200]
    assert "only 200 is success" in decide(policy, 1, Outcome(204), NOW_US, 0.0).text


@pytest.mark.parametrize("policy", [DISPATCH, RCS])
@pytest.mark.parametrize("status", [410, 429, 502, 503, 504])
def test_both_documents_know_no_retry_after_no_throttling_and_no_gone(policy: Policy, status: int) -> None:
    told = decide(policy, 1, Outcome(status, retry_after_s=50_000), NOW_US, 0.0)
    assert (told.retry_at_us, told.throttle_s) == (NOW_US + policy.steps_s[0] * 1_000_000, 0)
    assert told.disables is None


# The RCS document.


def test_rcs_waits_ten_seconds_for_an_answer() -> None:
    assert RCS.timeout_s == 10


@pytest.mark.parametrize("outcome", [Outcome(error="timeout"), Outcome(500), Outcome(201), Outcome(301)])
def test_rcs_is_retried_ten_times_at_its_intervals_and_then_fails(outcome: Outcome) -> None:
    clock = Clock(RCS, chance=0.9)
    at, told = clock.run(endless(outcome))
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert pauses == [10, 30, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY]
    assert (len(at), told.verdict, told.disables) == (11, Verdict.FAILED, None)


@pytest.mark.parametrize("before", range(11))
def test_rcs_is_delivered_with_any_of_its_attempts(before: int) -> None:
    at, told = Clock(RCS).run([NOT_YET] * before + [OK])
    assert (len(at), told.verdict) == (before + 1, Verdict.SUCCEEDED)


# The Standard Webhooks specification.


def test_standard_has_the_specifications_schedule() -> None:
    at, told = Clock(STANDARD).run(endless(NOT_YET))
    since_start = ["0:00:00", "0:00:05", "0:05:05", "0:35:05", "2:35:05", "7:35:05", "17:35:05", "31:35:05"]
    since_start += ["51:35:05", "75:35:05"]
    assert [f"{s // HOUR:.0f}:{s % HOUR // 60:02.0f}:{s % 60:02.0f}" for s in at] == since_start
    assert (told.verdict, told.disables) == (Verdict.FAILED, None)
    assert 15 <= STANDARD.timeout_s <= 30


def test_standard_is_never_early_and_spreads_what_failed_together() -> None:
    pauses = {
        decide(STANDARD, 2, NOT_YET, NOW_US, chance).retry_at_us - NOW_US for chance in (0.0, 0.25, 0.5, 0.999_999)
    }
    assert len(pauses) == 4
    assert min(pauses) == 300_000_000
    assert max(pauses) < 330_000_000


def test_standard_takes_any_2xx_for_success_and_nothing_else() -> None:
    good = [status for status in EVERY_STATUS if verdict(STANDARD, Outcome(status)) is Verdict.SUCCEEDED]
    assert good == list(range(200, 300))


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_fails_and_is_tried_again(status: int) -> None:
    for policy in (STANDARD, DISPATCH, RCS):
        told = decide(policy, 1, Outcome(status), NOW_US, 0.0)
        assert (told.verdict, told.disables, told.charged) == (Verdict.RETRY, None, True)
        assert "redirects are not followed" in told.text


def test_410_disables_at_once_and_is_not_tried_again() -> None:
    told = decide(STANDARD, 1, Outcome(410, retry_after_s=5), NOW_US, 0.0)
    assert (told.verdict, told.disables, told.retry_at_us) == (Verdict.FAILED, Disables.SUBSCRIPTION, 0)
    only = [status for status in EVERY_STATUS if decide(STANDARD, 1, Outcome(status), NOW_US, 0.0).disables]
    assert only == [410]


def test_429_502_and_504_throttle_the_endpoint() -> None:
    slowed = [status for status in EVERY_STATUS if decide(STANDARD, 1, Outcome(status), NOW_US, 0.0).throttle_s]
    assert slowed == [429, 502, 504]
    assert decide(STANDARD, 1, Outcome(429), NOW_US, 0.0).throttle_s == THROTTLE_S
    assert decide(STANDARD, 10, Outcome(429), NOW_US, 0.0).throttle_s == THROTTLE_S, "the last attempt tells as much"
    assert decide(STANDARD, 1, Outcome(429, retry_after_s=7), NOW_US, 0.0).throttle_s == 7
    assert decide(STANDARD, 1, Outcome(429, retry_after_s=DAY), NOW_US, 0.0).throttle_s == MAX_THROTTLE_S
    for nothing in (0.0, -10.0, math.nan):
        assert decide(STANDARD, 1, Outcome(429, retry_after_s=nothing), NOW_US, 0.0).throttle_s == THROTTLE_S


@pytest.mark.parametrize(
    ("attempt", "said", "pause_s"),
    [
        (1, 120.0, 120),  # Longer than the schedule's 5 s.
        (1, 1.0, 5),  # Shorter: an endpoint that always says 1 does not use up its attempts in a minute.
        (1, 5.25, 5.25),
        (3, 60.0, 1800),
        (1, 1e12, MAX_RETRY_AFTER_S),
        (1, math.inf, MAX_RETRY_AFTER_S),
        (1, 0.0, 5),
        (1, -10.0, 5),
        (1, math.nan, 5),
        (1, None, 5),
        (9, 1e12, DAY),
    ],
)
def test_retry_after_puts_the_next_attempt_off_within_limits(attempt: int, said: float | None, pause_s: float) -> None:
    for outcome in (Outcome(503, retry_after_s=said), Outcome(429, retry_after_s=said)):
        told = decide(STANDARD, attempt, outcome, NOW_US, 0.0)
        assert told.retry_at_us - NOW_US == pause_s * 1_000_000


def test_retry_after_gives_no_attempt_more() -> None:
    assert decide(STANDARD, 10, Outcome(503, retry_after_s=60), NOW_US, 0.0).verdict is Verdict.FAILED


# A tenant's own.


def custom(*steps_s: int, timeout_s: int = 0, only_200: bool = False) -> Policy:
    return policy_of(PolicyKind.CUSTOM, steps_s=steps_s, timeout_s=timeout_s, only_200=only_200)


def test_a_tenants_own_times_are_kept_to_the_second() -> None:
    at, told = Clock(custom(1, 604_800, 60), chance=0.9).run(endless(Outcome(400)))
    assert at == [0, 1, 604_801, 604_861]
    assert (told.verdict, told.disables) == (Verdict.FAILED, None)


def test_a_tenants_own_policy_heeds_the_endpoint() -> None:
    assert decide(custom(5), 1, Outcome(503, retry_after_s=60), NOW_US, 0.5).retry_at_us == NOW_US + 60_000_000
    assert decide(custom(5), 1, Outcome(410), NOW_US, 0.5).disables is Disables.SUBSCRIPTION
    assert decide(custom(5), 1, Outcome(502), NOW_US, 0.5).throttle_s == THROTTLE_S


def test_an_empty_schedule_is_one_attempt() -> None:
    policy = custom()
    assert policy.attempts == 1
    assert decide(policy, 1, NOT_YET, NOW_US, 0.0).verdict is Verdict.FAILED
    assert decide(policy, 1, OK, NOW_US, 0.0).verdict is Verdict.SUCCEEDED
    assert decide(policy, 1, Outcome(error="proxy_refused"), NOW_US, 0.0).verdict is Verdict.RETRY


def test_what_counts_as_success_is_the_tenants_to_say() -> None:
    assert verdict(custom(5), Outcome(204)) is Verdict.SUCCEEDED
    assert verdict(custom(5, only_200=True), Outcome(204)) is Verdict.RETRY
    assert verdict(custom(5, only_200=True), OK) is Verdict.SUCCEEDED


def test_the_bounds_themselves_are_good() -> None:
    assert custom(*[1] * 20, timeout_s=1).attempts == 21
    assert custom(604_800, timeout_s=120).timeout_s == 120
    assert custom().timeout_s == 15


def test_each_field_that_is_out_of_bounds_is_named_with_what_to_do() -> None:
    with pytest.raises(BackhaulError) as refused:
        policy_of(PolicyKind.CUSTOM, steps_s=[0, 5, 604_801, -1], timeout_s=121, field="definition.policy")
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert [wrong.field for wrong in refused.value.violations] == [
        "definition.policy.retry_after_s[0]",
        "definition.policy.retry_after_s[2]",
        "definition.policy.retry_after_s[3]",
        "definition.policy.timeout_s",
    ]
    assert all(wrong.fix for wrong in refused.value.violations)
    for steps_s, timeout_s in (([5] * 21, 0), ([], -1)):
        with pytest.raises(BackhaulError):
            policy_of(PolicyKind.CUSTOM, steps_s=steps_s, timeout_s=timeout_s)


@pytest.mark.parametrize("policy", [STANDARD, DISPATCH, RCS])
def test_a_named_policy_has_nothing_to_be_set(policy: Policy) -> None:
    assert policy_of(policy.kind) is policy
    with pytest.raises(BackhaulError) as refused:
        policy_of(policy.kind, steps_s=[5], timeout_s=5, only_200=True)
    named = [wrong.field for wrong in refused.value.violations]
    assert named == ["policy.retry_after_s", "policy.timeout_s", "policy.only_200"]


def test_whoever_made_the_attempt_says_what_happened() -> None:
    refused = decide(RCS, 2, Outcome(error="connect_failed"), NOW_US, 0.0, sentence="Nobody listens on port 1.")
    assert refused.happened == "Nobody listens on port 1."
    assert refused.text == "Nobody listens on port 1. That was attempt 2 of 11: the next one is in 30 s."
    ours = decide(RCS, 2, Outcome(error="proxy_failed"), NOW_US, 0.0, sentence="The egress proxy hung up.")
    assert ours.happened == "The egress proxy hung up. It failed on our side and not at the endpoint (proxy_failed)."
    mail = decide(RCS, 1, Outcome(200), NOW_US, 0.0, sentence="The mail server took the mail for 1 of 1.")
    assert mail.text == "The mail server took the mail for 1 of 1."
    # Of what the endpoint answered the policy knows more.
    strict = decide(RCS, 1, Outcome(204), NOW_US, 0.0, sentence="The endpoint answered 204.")
    assert strict.happened == "The endpoint answered 204, and only 200 is success."


# What is not the endpoint's.


@pytest.mark.parametrize("error", ["proxy_failed", "no_room"])
@pytest.mark.parametrize("policy", [STANDARD, DISPATCH, RCS, custom()])
def test_what_fails_on_our_side_takes_no_attempt_and_disables_nothing(policy: Policy, error: str) -> None:
    clock = Clock(policy)
    for _ in range(20):
        told = clock.attempt(Outcome(error=error))
        assert (told.verdict, told.charged, told.disables, told.throttle_s) == (Verdict.RETRY, False, None, 0)
        assert not told.counted
        assert "not at the endpoint" in told.text
    assert clock.made == 0
    began = clock.now_us
    at, told = clock.run(endless(NOT_YET))
    assert (len(at), told.verdict) == (policy.attempts, Verdict.FAILED)
    assert clock.now_us - began == sum(policy.steps_s) * 1_000_000


def test_what_fails_on_our_side_ends_after_about_a_day() -> None:
    clock = Clock(DISPATCH)
    at, told = clock.run(endless(Outcome(error="proxy_refused")))
    assert len(at) == MAX_OUR_FAILURES
    assert DAY * 0.9 < at[-1] < DAY * 1.1
    assert (told.verdict, told.charged, told.disables) == (Verdict.FAILED, False, None)
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert (pauses[0], pauses[-1], pauses) == (5, 900, sorted(pauses))


def test_a_status_of_the_proxys_is_not_the_endpoints() -> None:
    for status in (200, 407, 410, 429, 502):
        told = decide(STANDARD, 1, Outcome(status, "proxy_answered", 50_000), NOW_US, 0.0)
        assert (told.verdict, told.charged, told.disables, told.throttle_s) == (Verdict.RETRY, False, None, 0)


@pytest.mark.parametrize("error", [UNRESOLVED, "request_invalid"])
def test_what_could_not_be_sent_is_none_of_the_endpoints_and_disables_nothing(error: str) -> None:
    """Else one member without an attribute would have a communication disabled, or hold up all others."""
    clock = Clock(DISPATCH)
    first = clock.attempt(Outcome(error=error))
    assert (first.verdict, first.counted, first.charged) == (Verdict.RETRY, True, False)
    at, last = clock.run(endless(Outcome(error=error)))
    assert at == [300, 600]
    assert (last.verdict, last.charged, last.disables) == (Verdict.FAILED, False, None)


@pytest.mark.parametrize("error", ["timeout", "address_refused", "url_refused", "dns_failed", "tls_failed", "reset"])
def test_all_else_is_the_endpoints(error: str) -> None:
    told = decide(DISPATCH, 3, Outcome(error=error), NOW_US, 0.0)
    assert (told.charged, told.disables) == (True, Disables.COMMUNICATION)


def test_an_answer_that_broke_off_is_no_success() -> None:
    told = decide(STANDARD, 1, Outcome(200, "body_broken_off"), NOW_US, 0.0)
    assert told.verdict is Verdict.RETRY
    assert "body_broken_off" in told.text
    assert "200" in told.text


# For whatever comes.


@settings(max_examples=50)
@given(
    st.sampled_from([STANDARD, DISPATCH, RCS, custom(), custom(1, 604_800)]),
    st.integers(1, 40),
    st.integers(0, 200),
    st.one_of(
        st.builds(Outcome, st.integers(100, 599), retry_after_s=st.none() | st.floats()),
        st.builds(Outcome, st.just(0), st.sampled_from(["timeout", "proxy_refused", "address_refused", UNRESOLVED])),
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_every_decision_is_whole(policy: Policy, attempt: int, by_proxy: int, outcome: Outcome, chance: float) -> None:
    """Also of an attempt beyond the schedule: a policy may be shortened while a delivery waits."""
    told = decide(policy, attempt, outcome, NOW_US, chance, our_failures=by_proxy)
    assert (told.retry_at_us > NOW_US) == (told.verdict is Verdict.RETRY)
    assert told.retry_at_us <= NOW_US + 604_800_000_000 * 1.1
    assert 0 <= told.throttle_s <= MAX_THROTTLE_S
    assert told.counted != outcome.ours
    assert told.charged == (not outcome.ours and outcome.error != UNRESOLVED)
    assert (
        told.verdict is Verdict.RETRY
        or outcome.ours
        or attempt >= policy.attempts
        or outcome.status
        in {
            410,
            *range(200, 300),
        }
    )
    assert told.text.endswith(".")


def test_what_makes_no_sense_is_said_to_whoever_programs() -> None:
    with pytest.raises(ValueError, match="a status, or to an error"):
        Outcome()
    for attempt, chance, by_proxy in ((0, 0.0, 0), (1, 1.0, 0), (1, -0.1, 0), (1, 0.0, -1)):
        with pytest.raises(ValueError, match="from 1"):
            decide(STANDARD, attempt, OK, NOW_US, chance, our_failures=by_proxy)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1 s"), (59.4, "59 s"), (60, "1 min"), (90.0, "2 min"), (3600, "1 h"), (5400, "1 h 30 min"), (86_400, "1 d")],
)
def test_times_are_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
