"""``backhaul listen``: what a program on this machine is told, and what somebody sees of it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_testing.receiver import Receiver
from backhaul_testing.waiting import until
from simulators.terminal import WIDTH, CommandLine, Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.people import Tenant, Town

HEIGHT = 24
SECRET = "whsec_" + "QUJD" * 10
ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"


def line_of(tenant: Tenant, folder: Path, **more: str) -> CommandLine:
    environment = {"BACKHAUL_URL": tenant.base_url, "BACKHAUL_API_KEY": tenant.api_key, **more}
    return CommandLine({"XDG_CONFIG_HOME": str(folder), **environment})


async def calls(receiver: Receiver, path: str, number: int) -> list[Any]:
    async def there() -> bool:
        return len(receiver.of(path)) >= number

    await until(f"{number} calls of {path}", there, within_s=60.0)
    return receiver.of(path)


def last_screen(terminal: Terminal) -> list[str]:
    """The lines of what was drawn last, without styles."""
    drawn = terminal.shown.rpartition("\x1b[H")[2]
    return [re.sub(r"\x1b\[[0-9;]*[mKJ]", "", one).rstrip("\r") for one in drawn.split("\n")]


async def sees(terminal: Terminal, what: str) -> list[str]:
    """The screen, when ``what`` is in it."""

    async def there() -> list[str] | None:
        lines = last_screen(terminal)
        return lines if any(re.search(what, one) for one in lines) else None

    return await until(f"{what!r} on the screen", there, within_s=60.0)


async def test_a_call_is_what_a_subscription_sends(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    address = person.address("Twilio", communicationId="spring-sale", offer="ä")
    async with Receiver() as receiver:
        made = await person.client.subscriptions.create(["message.*"], http={"url": receiver.url("/subscribed")})
        listener = await line.start("listen", receiver.url("/heard"), "--after", "0", "--json", "--secret")
        assert listener.stdin is not None
        assert listener.stdout is not None
        assert listener.stderr is not None
        listener.stdin.write(f"{SECRET}\n".encode())
        await person.receive(
            person.twilio.status(address, "SM1", "sent"),
            person.twilio.status(address, "SM1", "failed", ErrorCode="30006"),
            person.twilio.inbound(address, "SM2", "please stop ä"),
        )
        heard = await calls(receiver, "/heard", 3)
        assert all(one.is_signed_by(SECRET) for one in heard)
        bodies = [json.loads(one.body) for one in heard]
        assert {one["type"] for one in bodies} == {"message.sent", "message.failed", "message.inbound"}

        async def subscribed() -> bool:
            told = [json.loads(one.body) for one in receiver.of("/subscribed")]
            return all(one in told for one in bodies)

        await until("the subscription has been told the same", subscribed, within_s=60.0)
        assert {one.headers["content-type"] for one in heard} == {"application/json"}
        async with asyncio.timeout(60):
            said = json.loads(await listener.stdout.readline())
        assert (said["status"], said["body"], said["webhook_id"]) == (200, bodies[0], heard[0].headers["webhook-id"])
        # Whoever stops reading ends it.
        listener.stdout._transport.close()  # type: ignore[attr-defined]  # a reader has no way to stop
        await person.receive(person.twilio.status(address, "SM3", "failed"))
        async with asyncio.timeout(60):
            assert await listener.wait() == 0
            err = (await listener.stderr.read()).decode()
        assert SECRET not in err
        assert re.search(r"backhaul listen \S+/heard --after \d+ --secret\n", err)
        await person.client.subscriptions.delete(made.id)


async def test_a_line_for_each_call_and_only_those_that_failed_where_it_is_quiet(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    async with Receiver() as receiver:
        address = person.address("Twilio")
        receiver.answers("/heard", 200, 500)
        for name in ("SM1", "SM2"):
            await person.receive(person.twilio.status(address, name, "sent"))
            await person.receive(person.twilio.status(address, f"{name}0", "queued"))
            await person.message_with("twilio", name, 1)
        for output in ("compact", "quiet"):
            receiver.answers("/heard", *(() if output == "compact" else (200, 500)))
            listener = await line.start(
                "listen", receiver.url("/heard"), "--after", "0", "--output", output, "--kind", "sent"
            )
            assert listener.stdout is not None
            assert listener.stderr is not None
            due = 2 if output == "compact" else 1
            async with asyncio.timeout(60):
                lines = [(await listener.stdout.readline()).decode() for _ in range(due)]
                listener.send_signal(2)
                assert await listener.wait() == 0
                err = (await listener.stderr.read()).decode()
            assert "\x1b" not in "".join(lines)
            assert [re.split(r" {2,}", one.strip())[2:5] for one in lines] == [
                ["message.sent", "twilio", name] for name in ("SM1", "SM2")[-len(lines) :]
            ]
            assert re.search(r"  500 \d+ ms ", lines[-1])
            # It was said what verifies calls.
            secret = re.search(r"whsec_\S+", err)
            assert secret is not None
            assert receiver.of("/heard")[-1].is_signed_by(secret[0])


async def test_somebody_watches_chooses_calls_again_and_looks_closer(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path, PAGER="sh -c 'cat >\"$0\"; echo PAGED' " + str(tmp_path / "paged"))
    async with Receiver() as receiver:
        receiver.answers("/heard", 200, 500)
        async with line.terminal("listen", receiver.url("/heard"), "--after", "0") as terminal:
            await terminal.shows(ENTERED)
            await terminal.shows("q quit")
            address = person.address("Twilio")
            await person.receive(person.twilio.status(address, "SM1", "sent"))
            await sees(terminal, r" 200 \d+ ms +message.sent .* SM1")
            await person.receive(person.twilio.inbound(address, "SM2", "STOP \x1b[2J\u202e"))
            lines = await sees(terminal, r" 500 \d+ ms +message.inbound .* SM2")
            assert len(lines) == HEIGHT
            assert all(len(one) <= WIDTH and one.isprintable() for one in lines), lines
            # The newest is chosen; r calls it again under its id.
            terminal.press("r")
            await sees(terminal, r" 200 \d+ ms +message.inbound .* SM2  \(2 times\)")
            first, second = (await calls(receiver, "/heard", 3))[1:]
            assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
            # Up is the one before, and stays it.
            terminal.press("\x1b[A")
            await sees(terminal, "follows again")
            await person.receive(person.twilio.status(address, "SM3", "sent"))
            await sees(terminal, "SM3")
            terminal.press("d")
            lines = await sees(terminal, '"message_id": "SM1"')
            assert any("Thank you." in one for one in lines)
            terminal.press("o")
            await terminal.shows("PAGED")
            assert '"message_id": "SM1"' in (tmp_path / "paged").read_text()
            terminal.press("dj")
            await sees(terminal, "SM3")
            terminal.press("q")
            assert await terminal.end() == 0
            assert terminal.shown.rindex(LEFT) > terminal.shown.rindex("SM3")
            assert "Traceback" not in terminal.shown
            assert re.search(r"backhaul listen \S+ --after \d+", terminal.shown.rpartition(LEFT)[2])
        # Ctrl-C leaves the terminal as it was, too.
        async with line.terminal("listen", receiver.url("/heard")) as terminal:
            await terminal.shows("q quit")
            terminal.press("\x03")
            assert await terminal.end() == 0
            assert LEFT in terminal.shown
            assert "Traceback" not in terminal.shown


async def test_a_tenant_hears_its_own_events_alone_and_a_stream_that_is_refused_ends_it(
    town: Town, tmp_path: Path
) -> None:
    person, other = await town.platform.register(), await town.platform.register()
    line = line_of(person, tmp_path)
    async with Receiver() as receiver, line.terminal("listen", receiver.url("/heard"), "--after", "0") as terminal:
        await terminal.shows("q quit")
        await other.receive(other.twilio.status(other.address("Twilio"), "SM1", "sent"))
        await other.message_with("twilio", "SM1", 1)
        await person.receive(person.twilio.status(person.address("Twilio"), "SM2", "sent"))
        (call,) = await calls(receiver, "/heard", 1)
        assert json.loads(call.body)["data"]["message_id"] == "SM2"
        await town.platform.client.change_tenant(person.id, status="suspended")
        assert await terminal.end() == 3
        assert LEFT in terminal.shown
        assert "suspended" in terminal.shown.rpartition(LEFT)[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://8.8.8.8/"], "--anywhere"),
        (["localhost"], "http://127.0.0.1"),
        (["http://127.0.0.1:9", "--output", "interactive"], "terminal"),
        (["http://127.0.0.1:9", "--secret"], "whsec_"),
    ],
)
async def test_what_cannot_be_listened_to_is_said_in_one_line(
    town: Town, tmp_path: Path, arguments: list[str], said: str
) -> None:
    person = await town.platform.register()
    found = await line_of(person, tmp_path).pipe("listen", *arguments)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert said in found.err
