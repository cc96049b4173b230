"""How a service lives: readiness, tasks that go on, orderly ends."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
from backhaul_common.errors import unavailable
from backhaul_common.lifecycle import Readiness, cancel, keep_running, until_done
from nats.errors import Error as NatsError
from structlog.testing import capture_logs


async def _passes() -> None:
    pass


@pytest.mark.timed
async def test_readiness_names_what_is_not_there() -> None:
    readiness = Readiness()
    assert await readiness.failing() == {}

    async def fails() -> None:
        raise ConnectionError("no route")

    async def fails_without_words() -> None:
        raise KeyError

    async def hangs() -> None:
        await asyncio.Event().wait()

    readiness.add("good", _passes)
    assert await readiness.failing() == {}
    readiness.add("nats", fails)
    readiness.add("odd", fails_without_words)
    readiness.add("mongo", hangs)
    for number in range(30):
        readiness.add(f"slow-{number}", hangs)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await readiness.failing(timeout_s=0.1) == {
        "nats": "no route",
        "odd": "KeyError",
        "mongo": "no answer in time",
        **{f"slow-{number}": "no answer in time" for number in range(30)},
    }
    # All are asked at once: asked in turn, the slow ones would take three seconds.
    assert loop.time() - began < 1.5


def test_no_check_takes_another_ones_place() -> None:
    readiness = Readiness()
    readiness.add("reader", _passes)
    with pytest.raises(ValueError, match="reader"):
        readiness.add("reader", _passes)


async def test_readiness_can_be_given_up() -> None:
    readiness = Readiness()
    asked = asyncio.Event()

    async def hangs() -> None:
        asked.set()
        await asyncio.Event().wait()

    readiness.add("hangs", hangs)
    task = asyncio.create_task(readiness.failing(timeout_s=60))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_goes_on_after_failures_and_returns() -> None:
    rounds = 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise RuntimeError("once")
        if rounds == 3:
            enough.set()
            await asyncio.Event().wait()

    with capture_logs() as lines:
        task = asyncio.create_task(keep_running("worker", work, longest_pause_s=0.01))
        async with asyncio.timeout(60):
            await enough.wait()
        await cancel(task)
    assert task.cancelled()
    assert rounds == 3
    (line,) = lines
    assert (line["event"], line["task"], line["log_level"]) == ("task_failed", "worker", "error")
    assert "once" in line["error"]


async def test_an_attempt_is_repeated_until_it_succeeds_once() -> None:
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError("away")

    with capture_logs() as lines:
        async with asyncio.timeout(60):
            await until_done("streams", attempt, longest_pause_s=0.01)
    assert attempts == 3
    assert [line["event"] for line in lines] == ["not_yet", "not_yet_over"]


async def test_an_outage_is_one_line_without_a_traceback_and_anything_else_an_error_each() -> None:
    failures: list[Exception] = [unavailable("MongoDB") for _ in range(20)]
    failures += [ConnectionRefusedError("nobody") for _ in range(20)]
    failures += [NatsError("nats: no servers") for _ in range(20)]
    failures += [RuntimeError("a bug"), RuntimeError("another")]
    running = asyncio.Event()

    async def work() -> None:
        if failures:
            raise failures.pop(0)
        running.set()
        await asyncio.Event().wait()

    with capture_logs() as lines:
        task = asyncio.create_task(keep_running("worker", work, longest_pause_s=0.001))
        async with asyncio.timeout(60):
            await running.wait()
        await cancel(task)
    said = [(line["event"], line["log_level"], line.get("times"), "exc_info" in line) for line in lines]
    assert said == [
        ("task_interrupted", "warning", 1, False),
        ("task_interrupted", "warning", 21, False),
        ("task_interrupted", "warning", 41, False),
        ("task_failed", "error", None, True),
        ("task_failed", "error", None, True),
    ]


async def test_an_attempt_can_be_given_up() -> None:
    tried = asyncio.Event()

    async def attempt() -> None:
        tried.set()
        raise OSError("away")

    task = asyncio.create_task(until_done("streams", attempt))
    with capture_logs():
        await tried.wait()
        await cancel(task)
    assert task.cancelled()


async def test_a_failure_at_the_stop_is_logged_and_not_raised() -> None:
    started = asyncio.Event()

    async def stubborn() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("while closing")

    task = asyncio.create_task(stubborn(), name="stubborn")
    await started.wait()
    with capture_logs() as lines:
        await cancel(task)
    assert [(line["event"], line["task"]) for line in lines] == [("task_failed_at_stop", "stubborn")]


async def test_cancelling_what_has_ended_is_quiet() -> None:
    task = asyncio.create_task(_passes())
    await task
    with capture_logs() as lines:
        await cancel(task)
    assert lines == []


_SERVICE = """
import asyncio
from backhaul_common.errors import unavailable
from backhaul_common.lifecycle import run

async def main(stop: asyncio.Event) -> None:
    print("up", type(asyncio.get_running_loop()).__module__, flush=True)
    await stop.wait()
    print("closed", flush=True)

run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_in_order(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _SERVICE, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert (await process.stdout.readline()).split() == [b"up", b"uvloop"]
            process.send_signal(number)
            assert await process.stdout.readline() == b"closed\n"
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_task_that_forgets_its_first_cancellation_is_cancelled_all_the_same() -> None:
    forgotten = asyncio.Event()

    async def forgetful() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            forgotten.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(forgetful())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await cancel(task)
    assert forgotten.is_set()
    assert task.cancelled()
