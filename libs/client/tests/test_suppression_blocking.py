"""The blocking client of suppression, which threads share."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from backhaul_client.suppression import (
    BlockingSuppressionClient,
    Kind,
    Progress,
    SuppressedError,
    SuppressionUnavailableError,
    Verdict,
)
from stand_in import FREE, STOPPED, TOKEN, WRONG, StandIn, serving


class _Served:
    """A stand-in on an event loop of its own, as tests here wait without one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.service = self.run(self._begin())
        self.service.suppressed.add(("acme", STOPPED))

    async def _begin(self) -> StandIn:
        service = StandIn()
        self._serving = serving(service)
        self.port = await self._serving.__aenter__()
        return service

    def run(self, work: Any) -> Any:
        """The result of ``work`` on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def set_open(self, is_open: bool) -> None:
        """Answer, or let those who come wait."""
        self._loop.call_soon_threadsafe(self.service.open.set if is_open else self.service.open.clear)

    def close(self) -> None:
        """End it."""
        self.run(self._serving.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def server() -> Iterator[_Served]:
    served = _Served()
    yield served
    served.close()


@pytest.fixture
def blocking(server: _Served) -> Iterator[BlockingSuppressionClient]:
    with BlockingSuppressionClient(f"127.0.0.1:{server.port}", token=TOKEN) as client:
        yield client


def test_it_does_what_the_asynchronous_one_does(
    blocking: BlockingSuppressionClient, server: _Served, tmp_path: Path
) -> None:
    assert blocking.check("acme", FREE).allowed
    with pytest.raises(SuppressedError):
        blocking.raise_if_suppressed("acme", STOPPED)
    assert [one.verdict for one in blocking.check_batch("acme", [WRONG, FREE])] == [Verdict.INVALID, Verdict.ALLOWED]
    assert [one.allowed for one in blocking.check_stream("acme", iter([FREE, STOPPED] * 1500))] == [True, False] * 1500
    assert blocking.add("acme", FREE, Kind.MANUAL).changed
    assert [row.address for row in blocking.list("acme", page_size=1)] == [FREE]
    assert [change.position for change in blocking.history("acme", FREE)] == [1]
    assert blocking.get("acme", FREE).address == FREE
    assert [row.kind for row in blocking.reactivate("acme", FREE)] == [Kind.HARD_BOUNCE]
    assert b"".join(blocking.export("acme")) == f"address\n{STOPPED}\n{FREE}\n".encode()
    assert blocking.export_list("acme", tmp_path / "list") == len(f"address\n{STOPPED}\n{FREE}\n")
    assert server.service.asked[0].metadata["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(blocking)
    assert "127.0.0.1" in repr(blocking)


def test_a_list_goes_in_and_its_progress_may_ask_the_client(blocking: BlockingSuppressionClient) -> None:
    heard: list[Progress] = []
    refused = io.BytesIO()

    def progress(so_far: Progress) -> None:
        assert blocking.check("acme", FREE).allowed
        heard.append(so_far)

    last = blocking.import_list("acme", iter([b"a\n", b"bad\n"]), progress=progress, refused=refused)
    assert (last.lines, last.refused, last.done, heard[-1]) == (2, 1, True, last)
    assert refused.getvalue() == b"bad\n"


def test_a_watch_is_iterated_and_closed_from_another_thread(blocking: BlockingSuppressionClient) -> None:
    with blocking.watch("acme", after=0) as changes:
        blocking.add("acme", FREE, Kind.MANUAL)
        assert next(iter(changes)).position == 1
        with ThreadPoolExecutor() as threads:
            following = threads.submit(list, changes)
            blocking.add("acme", STOPPED, Kind.MANUAL)
            while changes.position != 2:
                threading.Event().wait(0.005)
            changes.close()
            assert [change.position for change in following.result(10)] == [2]


def test_threads_share_calls(blocking: BlockingSuppressionClient, server: _Served) -> None:
    server.set_open(False)
    with ThreadPoolExecutor(21) as threads:
        first = threads.submit(blocking.check, "acme", FREE)
        server.run(server.service.have_come(1))
        others = [threads.submit(blocking.check, "acme", STOPPED) for _ in range(20)]
        server.run(server.service.have_come(2))
        server.set_open(True)
        assert first.result(10).allowed
        assert not any(one.result(10).allowed for one in others)
    assert len(server.service.asked) < 21


def test_it_fails_closed(blocking: BlockingSuppressionClient, server: _Served) -> None:
    server.set_open(False)
    with pytest.raises(SuppressionUnavailableError):
        blocking.check("acme", FREE, timeout_s=0.05)
    assert blocking.check("acme", FREE, timeout_s=0.05, if_unavailable="allow").verdict is Verdict.UNANSWERED
    server.set_open(True)


def test_closing_ends_what_waits(server: _Served) -> None:
    client = BlockingSuppressionClient(f"127.0.0.1:{server.port}")
    server.set_open(False)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.check, "acme", FREE, timeout_s=30)
        server.run(server.service.have_come(1))
        client.close()
        with pytest.raises(SuppressionUnavailableError):
            waiting.result(10)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.check("acme", FREE)
    server.set_open(True)


async def test_it_may_be_closed_where_a_loop_runs(port: int) -> None:
    client = await asyncio.to_thread(BlockingSuppressionClient, f"127.0.0.1:{port}")
    assert (await asyncio.to_thread(client.check, "acme", FREE)).allowed
    client.close()


def test_what_is_wrong_with_its_making_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="target"):
        BlockingSuppressionClient("")
    assert threading.active_count() == before


FORKED = """
import os, sys
from backhaul_client.suppression import BlockingSuppressionClient
client = BlockingSuppressionClient(sys.argv[1])
assert client.check("acme", "+1").allowed
child = os.fork()
if not child:
    for use in (lambda: client.check("acme", "+1"), lambda: BlockingSuppressionClient(sys.argv[1])):
        try:
            use()
        except RuntimeError as exc:
            print(exc, flush=True)
    client.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.check("acme", "+1").allowed
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_is_refused_instead_of_hanging(server: _Served) -> None:
    """The parent goes on; and it ends without having closed its client."""
    command = [sys.executable, "-c", FORKED, f"127.0.0.1:{server.port}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603  # this Python
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "The client was made before this process was forked: fork first, then make clients.",
        "This process was forked from one that had made a client: make the first one after.",
    ]
