"""``backhaul bench``: what it says first, what it measures, and what it leaves."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from backhaul_testing.waiting import until
from simulators.terminal import fits, line_of

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.people import Town

ASKED = "(Twilio): "
"""The end of what is asked for. Its space comes when typing is heard: what was typed before is thrown away."""
PARTS = ["p50", "p90", "p99", "max"]


async def test_each_sample_is_answered_stored_once_and_told(town: Town, tmp_path: Path) -> None:
    person, other = await town.platform.register(), await town.platform.register()
    line = line_of(person, tmp_path)
    bench = ("bench", "Twilio", "--rate", "20", "--seconds", "2", "--secret")
    found = await line.pipe(*bench, "--yes", "--json", given=f"{person.twilio.auth_token}\n")
    assert found.code == 0, found.err
    (row,) = found.rows
    assert (row["sent"], row["answers"], row["told"], row["never_told"], row["whole"]) == (40, {"200": 40}, 40, 0, True)
    for name in ("answered_ms", "told_ms"):
        times = [row[name][part] for part in PARTS]
        assert times == sorted(times)
        assert times[0] > 0
    # From a callback to its event is no shorter than nothing, and the whole no shorter than its last due time.
    assert row["elapsed_s"] >= 39 / 20
    assert "40 signed samples" in found.err
    assert "stored as real callbacks" in found.err
    assert person.twilio.auth_token not in found.out + found.err
    events = await person.events()
    assert len({one.message_id for one in events}) == len(events) == 40
    assert await other.events() == []

    # Without a yes nothing is sent, and nobody can be asked through a pipe.
    refused = await line.pipe(*bench, given=f"{person.twilio.auth_token}\n")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    async with line.terminal(*bench) as terminal:
        await terminal.shows(ASKED)
        terminal.press(f"{person.twilio.auth_token}\n")
        await terminal.shows("Measure it? [y/N]")
        terminal.press("n\n")
        assert await terminal.end() == 130
    # Nor by a key that brings no callbacks.
    reader = await person.client.add_key(scopes=["read"])
    reading = line_of(person, tmp_path, BACKHAUL_API_KEY=str(reader.key))
    assert (await reading.pipe(*bench, "--yes", given=f"{person.twilio.auth_token}\n")).code == 3
    # Nor where the samples would be refused.
    wrong = await line.pipe("bench", "Twilio", "--secret", "--yes", given="0" * 32 + "\n")
    assert (wrong.code, "would refuse it" in wrong.err) == (5, True)
    assert len(await person.events()) == 40


async def test_ctrl_c_ends_it_with_what_was_measured(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    async with line.terminal("bench", "Twilio", "--rate", "10", "--seconds", "3000", "--secret") as terminal:
        await terminal.shows(ASKED)
        terminal.press(f"{person.twilio.auth_token}\n")
        await terminal.shows("30000 signed samples")
        terminal.press("y\n")

        async def measuring() -> bool:
            return re.search(r" [1-9]\d* told", terminal.shown) is not None

        await until("some to be told", measuring, within_s=60.0)
        terminal.press("\x03")
        assert await terminal.end() == 130, terminal.shown
        shown = terminal.shown
    assert "Measured from this machine" in shown
    assert "Traceback" not in shown
    assert person.twilio.auth_token not in shown


async def test_it_keeps_within_the_limit_that_real_callbacks_share(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register(limits={"requests_per_second": 5, "burst": 5})
    line = line_of(person, tmp_path)
    bench = ("bench", "Twilio", "--rate", "20", "--seconds", "2", "--secret", "--yes", "--json")
    given = f"{person.twilio.auth_token}\n"
    limits = (await person.client.whoami()).limits
    assert limits is not None
    assert limits.requests_per_second == 5
    refused = await line.pipe(*bench, given=given)
    assert (refused.code, refused.out) == (5, "")
    assert "5 callbacks a second" in refused.err
    assert await person.events() == []
    over = await line.pipe(*bench, "--over-the-limit", "--wait", "0", given=given)
    (row,) = over.rows
    assert (row["sent"], sum(row["answers"].values())) == (40, 40)
    # What is over the rate is answered as ever, and stored later.
    assert row["held"] > 0

    # Others' callbacks use it up, too: where they do, it ends, however low its own rate is.
    less = ("bench", "Twilio", "--rate", "5", "--seconds", "600", "--wait", "0", "--secret", "--yes", "--json")
    measuring = asyncio.create_task(line.pipe(*less, given=given))
    number = 0
    while not measuring.done():
        number += 1
        await person.receive(person.twilio.status(person.address("Twilio"), f"SM{number}", "sent"))
        await asyncio.wait({measuring}, timeout=0.05)
    (row,) = measuring.result().rows
    assert (row["ended_by"], row["whole"], row["sent"] < 3000) == ("held", False, True)


async def test_what_is_stored_and_not_told_is_counted(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    await person.client.put_channel("Twilio", processing="held")
    line = line_of(person, tmp_path)
    given = f"{person.twilio.auth_token}\n"
    bench = ("bench", "Twilio", "--rate", "10", "--seconds", "1", "--secret", "--yes", "--wait", "1")
    found = await line.pipe(*bench, "--json", given=given)
    (row,) = found.rows
    assert (found.code, row["answers"], row["told"], row["never_told"]) == (7, {"200": 10}, 0, 10)
    assert row["told_ms"] == dict.fromkeys(PARTS)
    assert "processing is held" in found.err
    shown = await line.pipe(*bench, given=given)
    assert (shown.code, "never told" in shown.out, "Measured from this machine" in shown.out) == (7, True, True)
    assert fits(await line.type("channels", "show", "Twilio"))
    assert (await line.pipe("bench", "Pigeons", "--yes")).code == 4
    assert (await line.pipe("bench", "Twilio", "--event", "lost", "--yes")).code == 2
