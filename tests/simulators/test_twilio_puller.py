"""Twilio's puller against Twilio's API: what it finds is what there is, whatever goes wrong meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from backhaul_channels import NormalizedEvent
from backhaul_channels.providers.twilio import ADAPTER
from backhaul_channels.providers.twilio.credentials import TwilioCredentials
from backhaul_channels.providers.twilio.pull import TwilioPuller
from backhaul_channels.providers.twilio.settings import TwilioSettings
from backhaul_channels.pull import (
    Ask,
    CredentialsRefusedError,
    LaterError,
    NeverError,
    Span,
    TooOftenError,
    UnreadableAnswerError,
)
from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from simulators.asking_twilio import delivered
from simulators.pulling import HttpTransport, Reading

Reader = Callable[..., Reading]


def us(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000


def day_of(at: datetime) -> Span:
    start = us(at.replace(hour=0, minute=0, second=0))
    return Span(start, start + 86_400_000_000)


@pytest.fixture
async def reader(twilio_api: TwilioApi, account: TwilioAccount) -> AsyncIterator[Reader]:
    async with httpx.AsyncClient() as http:

        def reading(credentials: dict[str, str] | None = None, **reconcile: Any) -> Reading:
            given = credentials or {"account_sid": account.sid, "auth_token": account.auth_token}
            ask = Ask(TwilioCredentials.model_validate(given), TwilioSettings.model_validate({"reconcile": reconcile}))
            return Reading(ADAPTER, HttpTransport(http, twilio_api.origins, TwilioPuller.origins), ask)

        yield reading


def fill(account: TwilioAccount, day: datetime, number: int) -> set[str]:
    """So many messages over a day, and one on either side of it; the SIDs of the former."""
    start = day.replace(hour=0, minute=0, second=0)
    for beyond in (start - timedelta(seconds=30), start + timedelta(days=1, seconds=30)):
        delivered(account, beyond)
    return {delivered(account, start + timedelta(seconds=10 + count * 80_000 // number)).sid for count in range(number)}


async def test_a_day_is_told_whole_page_by_page(account: TwilioAccount, clock: Clock, reader: Reader) -> None:
    day = clock.days_ago(2)
    fill(account, day, 2_500)
    account.text("+15005550002", [(day, "queued"), (day, "failed")], error_code=21211)
    reading = reader()
    facts = await reading.window("messages", day_of(day))
    assert len({fact.key for fact in facts}) == len(facts) == 2_500
    assert {fact.kind.value for fact in facts} == {"delivered"}
    assert reading.transport.asked == 3


async def test_both_sides_of_midnight_are_one_span(account: TwilioAccount, clock: Clock, reader: Reader) -> None:
    midnight = clock.now().replace(hour=0)
    wanted = [delivered(account, midnight + timedelta(seconds=second - 1)).sid for second in (-60, -1, 0, 59)]
    for second in (-61, 60):
        delivered(account, midnight + timedelta(seconds=second - 1))
    facts = await reader().window("messages", Span(us(midnight) - 60_000_000, us(midnight) + 60_000_000))
    assert sorted(fact.message_id for fact in facts) == sorted(wanted)


async def test_a_short_span_of_a_long_day_costs_few_requests(
    account: TwilioAccount, clock: Clock, reader: Reader
) -> None:
    for count in range(5_000):
        delivered(account, clock.now() - timedelta(seconds=count * 8 + 10))
    reading = reader()
    now_us = us(clock.now())
    facts = await reading.window("messages", Span(now_us - 1_500_000_000, now_us))
    assert len(facts) == len([count for count in range(5_000) if count * 8 + 9 <= 1_500])
    assert reading.transport.asked == 1 + 1


@pytest.mark.parametrize(("fault", "share"), [("growing", 1.0), ("iso_dates", 0.5)])
async def test_what_changes_meanwhile_loses_nothing(
    twilio_api: TwilioApi, account: TwilioAccount, clock: Clock, reader: Reader, fault: Any, share: float
) -> None:
    day = clock.days_ago(2)
    known = fill(account, day, 3_200)
    twilio_api.misbehave(fault, share=share, rows=3)
    facts = await reader().window("messages", day_of(day))
    assert known <= {fact.message_id for fact in facts}


async def test_a_list_that_leads_back_is_taken_up_where_it_was(
    twilio_api: TwilioApi, account: TwilioAccount, clock: Clock, reader: Reader
) -> None:
    day = clock.days_ago(2)
    fill(account, day, 3_200)
    twilio_api.misbehave("circular", share=0.5, times=6)
    reading, found, cursor, errors = reader(), set[str](), "", 0
    while True:
        try:
            facts, cursor = await reading.page("messages", day_of(day), cursor)
        except UnreadableAnswerError:
            errors += 1
            continue
        found |= {fact.message_id for fact in facts}
        if not cursor:
            break
    assert len(found) == 3_200
    assert errors


async def test_two_channels_of_one_account_see_each_their_own(
    account: TwilioAccount, clock: Clock, reader: Reader
) -> None:
    at = clock.now() - timedelta(hours=1)
    service = f"MG{'a' * 32}"
    ours = delivered(account, at, sender="+15005550006")
    theirs = delivered(account, at, sender="+15005550009", service=service)
    reply = account.text(
        "+15005550006", [(at, "receiving"), (at, "received")], sender="+15005550001", direction="inbound", body="STOP"
    )
    span = Span(us(at), us(clock.now()))
    first, second = reader(senders=["+15005550006"]), reader(messaging_services=[service])
    assert {fact.message_id for fact in await first.window("messages", span)} == {ours.sid, reply.sid}
    assert {fact.message_id for fact in await second.window("messages", span)} == {theirs.sid}
    assert await first.message(theirs.sid) == []
    (fact,) = await first.message(reply.sid)
    assert (fact.key, fact.text, fact.recipient) == (f"{reply.sid}:inbound", "STOP", "+15005550001")


async def test_one_that_was_never_sent_is_found_by_its_sid(
    account: TwilioAccount, clock: Clock, reader: Reader
) -> None:
    at = clock.now() - timedelta(hours=1)
    text = account.text("+15005550002", [(at, "queued"), (at, "failed")], error_code=30007)
    reading = reader()
    assert await reading.window("messages", day_of(at)) == []
    (fact,) = await reading.message(text.sid)
    assert (fact.key, fact.error_code, fact.occurred_at_us) == (f"{text.sid}:failed", "30007", us(at))
    assert await reading.message(f"SM{'0' * 32}") == []


async def test_calls(account: TwilioAccount, clock: Clock, reader: Reader) -> None:
    at = clock.now() - timedelta(hours=1)
    steps = [(at, "queued"), (at + timedelta(seconds=1), "ringing"), (at + timedelta(seconds=9), "in-progress")]
    call = account.call("+15005550001", [*steps, (at + timedelta(seconds=20), "completed")])
    waiting = account.call("+15005550001", [(at, "queued")])
    reading = reader(calls=True)
    (fact,) = await reading.window("calls", day_of(at))
    assert (fact.key, fact.occurred_at_us) == (f"{call.sid}:completed", us(at + timedelta(seconds=20)))
    assert dict(fact.attributes)["call_duration"] == "11"
    assert [one.key for one in await reading.message(waiting.sid)] == [f"{waiting.sid}:queued"]


async def test_a_day_as_a_file(account: TwilioAccount, clock: Clock, reader: Reader) -> None:
    day = clock.days_ago(2)
    fill(account, day, 50)
    failed = account.text("+15005550002", [(day, "queued"), (day, "failed")], error_code=30007)
    reading, found, cursor, waits = reader(bulk_export=True), dict[str, NormalizedEvent](), "", 0
    while True:
        facts, cursor = await reading.page("export", day_of(day), cursor)
        found |= {fact.key: fact for fact in facts}
        if not cursor:
            break
        if reading.waited_s:
            waits += 1
            clock.advance(reading.waited_s)
    assert len(found) == 51
    assert waits == 1
    assert found[f"{failed.sid}:failed"].error_code == "30007"
    listed = await reading.window("messages", day_of(day))
    assert {fact.key: fact for fact in listed} == {key: fact for key, fact in found.items() if key[:34] != failed.sid}


async def test_a_day_without_messages_and_one_that_is_not_over_as_files(clock: Clock, reader: Reader) -> None:
    reading = reader(bulk_export=True)
    _, cursor = await reading.page("export", day_of(clock.days_ago(3)))
    clock.advance(reading.waited_s)
    assert await reading.page("export", day_of(clock.days_ago(3)), cursor) == ([], "")
    with pytest.raises(NeverError, match="EndDay must be 2 days earlier"):
        await reading.page("export", day_of(clock.days_ago(1)))


async def test_an_api_key_reads_its_own_account_alone(account: TwilioAccount, clock: Clock, reader: Reader) -> None:
    below = account.subaccount()
    text = delivered(below, clock.now() - timedelta(hours=1))
    span = day_of(clock.now())

    def by(key: tuple[str, str]) -> Reading:
        return reader({"account_sid": below.sid, "api_key_sid": key[0], "api_key_secret": key[1]})

    assert [fact.message_id for fact in await by(below.key()).window("messages", span)] == [text.sid]
    with pytest.raises(CredentialsRefusedError, match=r"It says: Authenticate \(20003\)"):
        await by(account.key()).window("messages", span)
    with pytest.raises(CredentialsRefusedError):
        await reader({"account_sid": below.sid, "auth_token": account.auth_token}).message(text.sid)


async def test_what_twilio_refuses_says_what_it_is(twilio_api: TwilioApi, clock: Clock, reader: Reader) -> None:
    reading = reader()
    with pytest.raises(NeverError, match="retention window of 400 days"):
        await reading.window("messages", day_of(clock.days_ago(401)))
    twilio_api.misbehave("too_many_requests", times=1)
    with pytest.raises(TooOftenError, match=r"Too Many Requests \(20429\)") as often:
        await reading.window("messages", day_of(clock.now()))
    assert often.value.retry_after_s == 1.0
    twilio_api.misbehave("errors", status=502, times=1)
    with pytest.raises(LaterError):
        await reading.window("messages", day_of(clock.now()))
    twilio_api.misbehave("truncated", times=1)
    with pytest.raises(UnreadableAnswerError):
        await reading.window("messages", day_of(clock.now()))
    assert await reading.window("messages", day_of(clock.now())) == []
