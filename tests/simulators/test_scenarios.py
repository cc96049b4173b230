"""What happens at a simulated provider is told by its API and by callbacks that are the provider's, but for some."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from backhaul_channels import Adapter, Context, NormalizedEvent, RawCallback, load_adapters
from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.sendgrid import SendGridApi, SendGridUser
from backhaul_testing.apis.sendgrid_scenario import MAILS, SendGridScenario
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from backhaul_testing.apis.twilio_scenario import CALLS, TEXTS, TwilioScenario
from backhaul_testing.posts import over
from backhaul_testing.wire import Wire
from simulators import asking_sendgrid
from simulators.asking_twilio import client, path, sids


@dataclass
class Receiver:
    """Whoever takes the callbacks. ``statuses`` are what the next ones are answered; then 200."""

    address: str = ""
    received: list[RawCallback] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def forms(self) -> list[dict[str, str]]:
        """What Twilio told."""
        return [dict(parse_qsl(callback.body.decode())) for callback in self.received]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What SendGrid told."""
        return [event for callback in self.received for event in json.loads(callback.body)]

    def read(self, provider: str, secret: str) -> list[NormalizedEvent]:
        """What Backhaul's adapter reads in them. Each must be signed as it wants it."""
        adapter: Adapter[Any] = load_adapters()[provider]
        settings = adapter.settings_model()
        verifier, context = adapter.verifier([secret], settings), Context(settings)
        assert self.received
        assert [verifier.verify(callback) for callback in self.received] == [None] * len(self.received)
        parts = [part for callback in self.received for part in adapter.split(callback, settings)]
        events = [adapter.normalize(part, context) for part in parts]
        assert all(isinstance(event, NormalizedEvent) for event in events)
        return [event for event in events if isinstance(event, NormalizedEvent)]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver()
    handlers: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        while line := await reader.readline():
            method, target, _ = line.decode().split(" ")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = [
                (name.lower().encode(), value.encode()) for name, _, value in (one.partition(": ") for one in head[:-2])
            ]
            body = await reader.readexactly(int(dict(headers)[b"content-length"]))
            receiver.received.append(RawCallback(method, receiver.address + target, headers, body))
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        receiver.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield receiver
        await asyncio.gather(*(handler for handler in handlers if handler is not None))


async def test_a_text_is_told_by_both_sides(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    async with receiving() as receiver, httpx.AsyncClient() as http:
        scenario = TwilioScenario(account, receiver.address + "/in?channelLabel=Twilio#rc=5&rp=all")
        text = scenario.text("+15005550001", "undelivered", service="MG" + "1" * 32)
        failed = scenario.text("+15005550002", "failed", error_code=21610)
        with client(twilio_api, account) as asking:
            assert (await scenario.post(over(http))).accepted == 0
            assert asking.get(path(account, f"Messages/{text.sid}.json")).json()["status"] == "queued"
            clock.advance(1)
            assert (await scenario.post(over(http))).accepted == 2
            clock.advance(10)
            assert (await scenario.post(over(http))).accepted == 1
            assert (await scenario.post(over(http))).accepted == 0
            rows = {sid: asking.get(path(account, f"Messages/{sid}.json")).json() for sid in (text.sid, failed.sid)}
        assert rows[text.sid]["messaging_service_sid"] == receiver.forms[-1]["MessagingServiceSid"]
    events = receiver.read("twilio", account.auth_token)
    assert Counter((event.message_id, event.provider_status, event.error_code) for event in events) == {
        (text.sid, "sent", ""): 1,
        (text.sid, "undelivered", "30003"): 1,
        (failed.sid, "failed", "21610"): 1,
    }
    assert (rows[text.sid]["status"], rows[text.sid]["error_code"]) == ("undelivered", 30003)
    assert (rows[failed.sid]["status"], rows[failed.sid]["date_sent"]) == ("failed", None)
    assert {event.recipient for event in events} == {row["to"] for row in rows.values()}
    assert {form["AccountSid"] for form in receiver.forms} == {account.sid}


async def test_replies_and_calls(twilio_api: TwilioApi, account: TwilioAccount, clock: Clock) -> None:
    async with receiving() as receiver, httpx.AsyncClient() as http:
        scenario = TwilioScenario(account, receiver.address + "/in?channelLabel=Twilio")
        reply = scenario.reply("STOP", sender="+15005550001")
        call = scenario.call("+15005550002", at=clock.now() - timedelta(minutes=5))
        await scenario.post(over(http))
        with client(twilio_api, account) as asking:
            row = asking.get(path(account, f"Messages/{reply.sid}.json")).json()
            called = asking.get(path(account, f"Calls/{call.sid}.json")).json()
    assert (row["direction"], row["status"], row["body"]) == ("inbound", "received", "STOP")
    events = receiver.read("twilio", account.auth_token)
    told = [event.provider_status for event in events if event.message_id == call.sid]
    assert told == ["initiated", "ringing", "in-progress", "completed"]
    assert [form["SequenceNumber"] for form in receiver.forms if "CallSid" in form] == ["0", "1", "2", "3"]
    assert (called["status"], called["duration"]) == ("completed", "30")
    (heard,) = [event for event in events if event.message_id == reply.sid]
    assert (heard.recipient, heard.text) == ("+15005550001", "STOP")


async def test_a_mail_is_told_by_both_sides(sendgrid_api: SendGridApi, user: SendGridUser, clock: Clock) -> None:
    async with receiving() as receiver, httpx.AsyncClient() as http:
        scenario = SendGridScenario(user, receiver.address + "/in?channelLabel=SendGrid", batch=3)
        clicked = scenario.mail(outcome="click", categories=("spring",), unique_args={"order": "7"})
        bounced = scenario.mail("b@example.com", "bounce")
        clock.advance(100)
        assert (await scenario.post(over(http))).accepted == 2
        scenario.happens(clicked, "spamreport")
        assert (await scenario.post(over(http))).accepted == 1
        with asking_sendgrid.client(sendgrid_api, user.key()) as asking:
            rows = {row["msg_id"]: row for row in asking_sendgrid.messages(asking, "")}
            (row,) = asking_sendgrid.suppressions(asking, "bounces")
            (report,) = asking_sendgrid.suppressions(asking, "spam_reports")
    events = receiver.read("sendgrid", scenario.signer.public_key)
    assert Counter((event.message_id, event.provider_status) for event in events) == {
        **dict.fromkeys(((clicked.msg_id, word) for word in ("processed", "delivered", "open", "click")), 1),
        (clicked.msg_id, "spamreport"): 1,
        **dict.fromkeys(((bounced.msg_id, word) for word in ("processed", "bounce")), 1),
    }
    assert [rows[mail.msg_id]["status"] for mail in (clicked, bounced)] == ["delivered", "not_delivered"]
    assert (rows[clicked.msg_id]["opens_count"], rows[clicked.msg_id]["clicks_count"]) == (1, 1)
    told = {event["event"]: event for event in receiver.events}
    assert (row["email"], row["created"], row["reason"]) == (
        "b@example.com",
        told["bounce"]["timestamp"],
        told["bounce"]["reason"],
    )
    assert (report["email"], report["created"]) == (clicked.to, told["spamreport"]["timestamp"])
    assert (told["click"]["category"], told["click"]["order"]) == (["spring"], "7")


async def test_a_mail_that_comes_back_late_is_told_without_its_name(user: SendGridUser, clock: Clock) -> None:
    async with receiving() as receiver, httpx.AsyncClient() as http:
        scenario = SendGridScenario(user, receiver.address + "/in")
        mail = scenario.mail("a@example.com", "returned", unique_args={"order": "7"})
        clock.advance(100)
        await scenario.post(over(http))
    _, delivered, bounced = receiver.events
    assert (delivered["sg_message_id"], delivered["order"]) == (mail.msg_id, "7")
    assert not {"sg_message_id", "order"} & set(bounced)
    assert (bounced["smtp-id"], bounced["email"]) == (delivered["smtp-id"], "a@example.com")
    assert user.states() == {mail.msg_id: "not_delivered"}


@pytest.mark.parametrize("outcome", TEXTS)
def test_every_outcome_of_a_text(account: TwilioAccount, clock: Clock, outcome: str) -> None:
    text = TwilioScenario(account).text(outcome=outcome)
    clock.advance(60)
    assert account.states() == {text.sid: outcome}


@pytest.mark.parametrize("outcome", CALLS)
def test_every_outcome_of_a_call(account: TwilioAccount, clock: Clock, outcome: str) -> None:
    call = TwilioScenario(account).call(outcome=outcome)
    clock.advance(60)
    assert account.states() == {call.sid: outcome}


def test_every_outcome_of_a_mail(user: SendGridUser, clock: Clock) -> None:
    scenario = SendGridScenario(user)
    mails = {scenario.mail(outcome=outcome).msg_id: outcome for outcome in MAILS}
    clock.advance(100)
    failed = {"bounce", "returned", "blocked", "dropped", "invalid"}
    assert {mails[msg_id] for msg_id, state in user.states().items() if state == "not_delivered"} == failed
    assert {mails[msg_id] for msg_id, state in user.states().items() if state == "processed"} == {
        "processed",
        "deferred",
    }
    lists = Counter(row.where for row in user.suppressions)
    assert lists == Counter(
        ("bounces", "bounces", "blocks", "invalid_emails", "spam_reports", "unsubscribes", "groups")
    )
    with pytest.raises(ValueError, match="choose of processed"):
        scenario.mail(outcome="lost")


async def test_shares_are_withheld_doubled_and_shuffled(account: TwilioAccount, clock: Clock) -> None:
    async with receiving() as receiver, Wire() as one, Wire() as other:
        scenario = TwilioScenario(account, receiver.address + "/in", seed=3, withheld=0.05, doubled=0.3, shuffled=True)
        texts = scenario.texts(400, within_s=600)
        clock.advance(1000)
        posted = await scenario.post(one.once, other.once)
    planned = len(scenario.callbacks)
    withheld = len(scenario.withheld)
    told = Counter((form["MessageSid"], form["MessageStatus"]) for form in receiver.forms)
    assert 0.02 < withheld / planned < 0.08
    assert 0.2 < sum(count == 2 for count in told.values()) / planned < 0.4
    assert len(told) == planned - withheld
    assert posted.accepted == told.total() == sum(callback.accepted for callback in scenario.callbacks)
    assert not told.keys() & {(callback.message_id, callback.word) for callback in scenario.withheld}
    firsts = [form["MessageSid"] for form in receiver.forms]
    assert firsts != sorted(firsts, key=[text.sid for text in texts].index)
    assert len(account.states()) == 400
    assert set(Counter(account.states().values())) == {"delivered", "undelivered", "failed", "sent"}


def test_a_seed_tells_the_same_story(clock: Clock) -> None:
    def story(seed: int, withheld: float) -> list[tuple[Any, ...]]:
        account = TwilioApi(clock=clock, seed=5).account()
        scenario = TwilioScenario(account, "http://a.example/", seed=seed, withheld=withheld)
        scenario.texts(50, within_s=60)
        return [(one.message_id, one.word, one.due, one.withheld) for one in scenario.callbacks]

    assert story(1, 0.3) == story(1, 0.3)
    assert story(1, 0.3) != story(2, 0.3)
    assert [one[:3] for one in story(1, 0.3)] == [one[:3] for one in story(1, 0)]


async def test_what_is_kept_back_on_purpose(account: TwilioAccount, user: SendGridUser, clock: Clock) -> None:
    async with receiving() as receiver, httpx.AsyncClient() as http:
        texts = TwilioScenario(account, receiver.address + "/twilio", withheld=1.0)
        kept = texts.text(withhold=("delivered",))
        texts.text(withhold=False)
        silent = texts.text(withhold=True)
        mails = SendGridScenario(user, receiver.address + "/sendgrid")
        mails.mail(withhold=("delivered",))
        clock.advance(100)
        await texts.post(over(http))
        await mails.post(over(http))
    assert Counter(dict(parse_qsl(one.body.decode()))["MessageStatus"] for one in receiver.received[:-1]) == {
        "sent": 2,
        "delivered": 1,
    }
    assert [(one.message_id, one.word) for one in texts.withheld] == [
        (kept.sid, "delivered"),
        (silent.sid, "sent"),
        (silent.sid, "delivered"),
    ]
    assert [event["event"] for event in json.loads(receiver.received[-1].body)] == ["processed"]
    assert [one.word for one in mails.withheld] == ["delivered"]


async def test_who_does_not_answer_is_told_as_often_as_the_provider_would(account: TwilioAccount, clock: Clock) -> None:
    async with receiving() as receiver, httpx.AsyncClient() as http:
        once = TwilioScenario(account, receiver.address + "/in")
        often = TwilioScenario(account, receiver.address + "/in#rc=2&rp=all")
        for scenario in (once, often):
            scenario.text(outcome="sent")
            clock.advance(10)
            receiver.statuses = [503, 503]
            posted = await scenario.post(over(http))
            assert [sending.outcomes for sending in posted.sendings] == (
                [[503]] if scenario is once else [[503, 503, 200]]
            )
            assert posted.lost == (scenario is once)
    assert [one.accepted for one in (*once.callbacks, *often.callbacks)] == [0, 1]


async def test_a_channel_that_is_only_asked_has_no_callbacks(
    twilio_api: TwilioApi, account: TwilioAccount, clock: Clock
) -> None:
    scenario = TwilioScenario(account)
    text = scenario.text()
    clock.advance(10)
    assert scenario.callbacks == []
    with pytest.raises(ValueError, match="connections are missing"):
        await scenario.post()
    with client(twilio_api, account) as http:
        assert sids(http, account) == [text.sid]
