"""Mail by a real SMTP server, and by servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword
from backhaul_common.mailaddresses import is_mail_address
from backhaul_common.tracing import Tracing
from backhaul_notifier.calling.digest import MAX_LINES
from backhaul_notifier.calling.mail import MailCalling, Mailer
from backhaul_notifier.calling.settings import MailSettings
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.model import Attempted
from backhaul_notifier.schedules import Outcome
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from calling_rig import NOW_US, WEBHOOK_ID, delivery, subscription
from door_rig import Authority, server_tls
from pydantic import ValidationError
from smtp_rig import smtp

TEAM = ["ann@example.com", "ben@example.com"]


def told_by(port: int, **settings: Any) -> MailCalling:
    given = {
        "notifier_smtp_host": "127.0.0.1",
        "notifier_smtp_port": port,
        "notifier_smtp_security": "none",
        "notifier_smtp_timeout_s": 20.0,
        "notifier_mail_from": "backhaul@example.net",
        **settings,
    }
    return MailCalling(Mailer(MailSettings.model_validate(given)), Tracing("notifier", None), now_us=lambda: NOW_US)


@asynccontextmanager
async def raw(speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def definition(*addresses: str, name: str = "Team of the sale") -> pb.Definition:
    return pb.Definition(name=name, types=["*"], mail=pb.MailDestination(addresses=addresses or TEAM))


async def call(caller: MailCalling, given: pb.Definition | None = None, said: list[Any] | None = None) -> Attempted:
    return await caller.call(subscription(given or definition()), said or [delivery()], WEBHOOK_ID)


def event(**more: object) -> Event:
    made = sample_of(TYPES["reply.received"])
    assert isinstance(made, Event)
    made.MergeFrom(Event(**more))  # type: ignore[arg-type]  # as each test has it
    return made


async def test_several_deliveries_are_one_mail_as_text_and_as_html() -> None:
    said = [
        delivery("message.bounced", number=1),
        delivery("reply.received", event(text="STOP <b>now</b> & forever"), number=2),
        delivery("communication.completed", number=3),
    ]
    async with smtp() as (box, port):
        attempted = await call(told_by(port), said=said)
    assert attempted.outcome == Outcome(200)
    assert attempted.text == "The mail server took the mail for 2 of 2."
    assert attempted.request == "MAIL ann@example.com, ben@example.com"
    (envelope,) = box.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == ("backhaul@example.net", TEAM)
    mail = box.read()
    assert mail["Subject"] == (
        "Team of the sale: 3 events: 1 of message.bounced, 1 of reply.received, 1 of communication.completed"
    )
    assert mail["From"] == "Backhaul <backhaul@example.net>"
    assert mail["To"] == ", ".join(TEAM)
    assert mail["Message-ID"] == f"<{WEBHOOK_ID}@example.net>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"].datetime.timestamp() == NOW_US // 1_000_000
    text, html = box.part("plain"), box.part("html")
    assert "STOP <b>now</b> & forever" in text
    assert "STOP &lt;b&gt;now&lt;/b&gt; &amp; forever" in html
    assert "<b>" not in html
    assert "The mailbox does not exist." in text
    assert "Batch id: spring-1" in text
    for part in (text, html):
        assert "acme" in part
        assert "Communication complete" in part


async def test_one_event_is_its_title() -> None:
    async with smtp() as (box, port):
        await call(told_by(port))
    assert box.read()["Subject"] == "Team of the sale: Message delivered"


async def test_attempts_of_one_mail_are_one_mail_to_whoever_reads() -> None:
    async with smtp() as (box, port):
        for _ in range(2):
            await call(told_by(port))
    assert box.read(0)["Message-ID"] == box.read(1)["Message-ID"]


async def test_whoever_stood_still_sends_none() -> None:
    async with smtp() as (box, port):
        late = await told_by(port).call(subscription(definition()), [delivery()], WEBHOOK_ID, lambda: False)
        assert (late.outcome.error, late.outcome.ours) == ("no_room", True)
    assert not box.mails


async def test_a_digest_is_bounded_and_says_so() -> None:
    said = [delivery("reply.received", event(text="x" * 100_000), number=at) for at in range(MAX_LINES + 20)]
    async with smtp() as (box, port):
        await call(told_by(port), said=said)
    text = box.part("plain")
    assert text.startswith("120 events: these are the first 100; 20 more are to be read in Backhaul.")
    assert text.count("Message received (") + text.count("Reply received (") == MAX_LINES
    assert len(box.mails[0].content or b"") < 1 << 20


@pytest.mark.parametrize("evil", ["a\r\nBcc: x@evil.example", "a\nBcc: x", "a\u2028b", "=?utf-8?q?a=0D=0ABcc:_x?="])
async def test_what_tenants_and_people_write_adds_no_header(evil: str) -> None:
    said = [delivery("reply.received", event(text=evil, recipient=evil), number=1)]
    async with smtp() as (box, port):
        attempted = await call(told_by(port), definition(name=evil), said)
    assert attempted.outcome == Outcome(200)
    assert box.mails[0].rcpt_tos == TEAM
    mail = box.read()
    assert mail["Bcc"] is None
    assert len(mail.get_all("Subject") or []) == 1
    assert "\r\n.\r\n" not in str(box.mails[0].content)


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com\r\nBcc: x@evil.example",
        "ann@example.com, ben@example.com",
        "ann@example.com>\r\nDATA",
        "Ann <ann@example.com>",
        '"a b"@example.com',
        "=?utf-8?q?a=0D=0ABcc:x?=@example.com",
        "ann",
        "@example.com",
        "ann@-example.com",
        "ann@example..com",
        "änn@example.com",
        "a" * 250 + "@example.com",
        "",
    ],
)
async def test_an_address_that_could_break_out_of_a_header_is_never_sent_to(address: str) -> None:
    assert not is_mail_address(address)
    async with smtp() as (box, port):
        attempted = await call(told_by(port), definition("ann@example.com", address))
    assert attempted.outcome == Outcome(error="request_invalid")
    assert box.mails == []


async def test_one_of_two_recipients_is_refused() -> None:
    """The other has the mail: it has succeeded, and is not sent again."""
    async with smtp() as (box, port):
        box.refuses = {"ben@example.com": "550 No such user"}
        attempted = await call(told_by(port))
    assert attempted.outcome == Outcome(200)
    assert attempted.text == "The mail server took the mail for 1 of 2, and would not have ben@example.com."
    assert attempted.answer == "550 No such user"
    assert box.mails[0].rcpt_tos == ["ann@example.com"]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [("550 No such user", "mail_refused", "would not have"), ("451 Later", "mail_put_off", "for now")],
)
async def test_every_recipient_is_refused(answer: str, error: str, words: str) -> None:
    async with smtp() as (box, port):
        box.refuses = dict.fromkeys(TEAM, answer)
        attempted = await call(told_by(port))
    assert attempted.outcome == Outcome(error=error)
    assert not attempted.outcome.ours
    assert words in attempted.text
    assert answer in attempted.answer
    assert box.mails == []


@pytest.mark.parametrize(
    ("answer", "error", "ours"),
    [("554 Spam", "mail_refused", False), ("452 Full", "mail_server_refused", True)],
)
async def test_the_mail_itself_is_refused(answer: str, error: str, ours: bool) -> None:
    async with smtp() as (box, port):
        box.data = answer
        attempted = await call(told_by(port))
    assert (attempted.outcome, attempted.outcome.ours) == (Outcome(error=error), ours)


async def test_a_server_that_is_dead() -> None:
    async with smtp() as (_, port):
        pass
    attempted = await call(told_by(port))
    assert attempted.outcome == Outcome(error="mail_server_away")
    assert attempted.outcome.ours


async def test_no_server_at_all() -> None:
    attempted = await call(told_by(587, notifier_smtp_host=""))
    assert attempted.outcome == Outcome(error="mail_server_missing")
    assert attempted.outcome.ours


async def test_a_server_that_is_slow_is_waited_for_and_one_that_is_too_slow_is_not() -> None:
    async with smtp() as (box, port):
        box.slow = asyncio.Event()
        running = asyncio.create_task(call(told_by(port)))
        attempted = await call(told_by(port, notifier_smtp_timeout_s=0.5))
        assert attempted.outcome == Outcome(error="mail_server_timeout")
        assert attempted.outcome.ours
        box.slow.set()
        assert (await running).outcome == Outcome(200)


async def test_no_more_connections_than_settings_say() -> None:
    async with smtp() as (box, port):
        box.slow = asyncio.Event()
        caller = told_by(port, notifier_smtp_connections=1, notifier_smtp_timeout_s=0.5)
        results = await asyncio.gather(call(caller), call(caller))
        box.slow.set()
    assert [one.outcome.error for one in results] == ["mail_server_timeout"] * 2


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\xff\x00 hello\r\n" * 10)
    await reader.read()


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"220-more and more\r\n" * 1000)
        await writer.drain()


async def _unwilling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"554 Not for you\r\n")
    await reader.read()


@pytest.mark.parametrize("speak", [_silent, _hangs_up, _garbage, _endless, _unwilling])
async def test_servers_that_misbehave_are_ours_and_end_in_time(speak: Any) -> None:
    async with raw(speak) as port:
        attempted = await call(told_by(port, notifier_smtp_timeout_s=1.0))
    assert attempted.outcome.error.startswith("mail_server_")
    assert attempted.outcome.ours
    assert attempted.us < 10_000_000


async def test_starttls_and_a_login(tmp_path: Path) -> None:
    authority = Authority()
    file = tmp_path / "authority.pem"
    file.write_text(authority.pem, "utf-8")
    seen: list[LoginPassword] = []

    def authenticator(server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword) -> AuthResult:
        seen.append(data)
        return AuthResult(success=data.password == b"pass", handled=False)

    tls = server_tls(tmp_path, authority.issue("127.0.0.1"))
    async with smtp(tls_context=tls, require_starttls=True, authenticator=authenticator, auth_required=True) as (
        box,
        port,
    ):
        given = {"notifier_smtp_security": "starttls", "notifier_smtp_ca_file": file, "notifier_smtp_user": "user"}
        good = await call(told_by(port, **given, notifier_smtp_password="pass"))
        bad = await call(told_by(port, **given, notifier_smtp_password="wrong-word"))
        stranger = await call(told_by(port, **{**given, "notifier_smtp_ca_file": None}))
    assert good.outcome == Outcome(200)
    assert len(box.mails) == 1
    assert bad.outcome == Outcome(error="mail_server_refused")
    assert "wrong-word" not in f"{bad.text}{bad.answer}"
    assert stranger.outcome.ours
    assert {one.password for one in seen} == {b"pass", b"wrong-word"}


async def test_a_server_without_starttls_is_told_nothing() -> None:
    async with smtp() as (box, port):
        attempted = await call(told_by(port, notifier_smtp_security="starttls"))
    assert attempted.outcome.ours
    assert box.mails == []


def test_settings_refuse_a_sender_that_is_no_address() -> None:
    with pytest.raises(ValidationError, match="must be a mail address alone"):
        MailSettings.model_validate({"notifier_mail_from": "a@b.example\r\nBcc: x"})
