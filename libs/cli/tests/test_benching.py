"""What is measured is counted from when it was due, and nothing is measured that was not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from threading import Lock, Thread

import pytest
import typer
from answering import Gateway
from backhaul_cli import benching, profiles
from backhaul_cli.__main__ import main
from backhaul_cli.benching import MAX_CONNECTIONS, Bench, Plan
from backhaul_cli.commands import bench as command
from backhaul_cli.measured import Measured, percentiles
from backhaul_cli.output import Output
from backhaul_cli.profiles import Profile
from backhaul_cli.sampling import Address
from backhaul_client import AsyncTenantClient, ForbiddenError, Retries
from backhaul_samples import Post

STALL_S = 0.5
NO_ANSWER = 0
"""In the place of a status: the connection is closed."""


class _Stalling(ThreadingMixIn, HTTPServer):
    """Takes one callback at a time, and for the first one longer. Its stream tells nothing but that it is there."""

    daemon_threads = True
    request_queue_size = 256
    statuses: tuple[int, ...] = ()
    stream = 200
    told = b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.one_at_a_time = Lock()
        self.posts = 0
        self.held: Callable[[], int | None] = lambda: None
        self.arrived: list[float] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Stalling

    def do_GET(self) -> None:  # the name that the server calls
        if self.path.startswith("/api/status"):
            status = json.dumps(_status(self.server.held())).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(status)))
            self.end_headers()
            self.wfile.write(status)
            return
        self.send_response(self.server.stream)
        self.end_headers()
        if self.server.stream == 200:
            self.wfile.write(b": still here\nid: 1\n\n" + self.server.told)
            self.connection.recv(1)
        else:
            self.wfile.write(json.dumps({"code": "forbidden", "detail": "Not this key."}).encode())

    def do_POST(self) -> None:  # likewise
        self.rfile.read(int(self.headers["content-length"]))
        self.server.arrived.append(time.perf_counter())
        with self.server.one_at_a_time:
            number, self.server.posts = self.server.posts, self.server.posts + 1
            if not number:
                time.sleep(STALL_S)
        statuses = self.server.statuses or (200,)
        status = statuses[min(number, len(statuses) - 1)]
        if status == NO_ANSWER:
            return
        self.send_response(status)
        self.send_header("content-length", "0")
        self.send_header("backhaul-callback-id", f"c{number}")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the server's own
        """Says nothing."""


def _status(held: int | None) -> dict[str, object]:
    """What the gateway says of a channel of which so many callbacks are held."""
    parts: dict[str, dict[str, object]] = {
        "queue": {},
        "store": {},
        "object_storage": {"configured": True},
        "callbacks": {"last_seen_at": None},
        "processing": {"mode": "on", "held_since": None, "held_messages": 0},
        "audit": {
            **dict.fromkeys(("waiting_since", "read_to", "locked_until")),
            "asked": False,
            "weaknesses": [],
            "locked_files": 0,
        },
        "verification": {"mode": "enforce", "secret_count": 1, "refused": 0},
        "held": {"callbacks": held, "bytes": held, "since": None},
    }
    stated = {name: {"state": "OK", **part} for name, part in parts.items()}
    return {"state": "OK", "channel": "twilio", "provider": "twilio", "parts": stated}


@pytest.fixture
def server() -> Iterator[_Stalling]:
    with _Stalling() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


def planned(url: str, **changed: object) -> Plan:
    at = Address(signed=url, posted=url, headers={})
    given = {"rate": 50, "seconds": 1, "wait_s": 0.0, "over_the_limit": False, **changed}
    return Plan(channel="Twilio", at=at, post=lambda: Post(b"{}", {}), **given)  # type: ignore[arg-type]  # as named


def measured(server: _Stalling, **changed: object) -> Measured:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    bench = Bench(planned(url, **changed), AsyncTenantClient(url, "key", retries=Retries(tries=1)), lambda _: None)
    try:
        asyncio.run(bench.run())
    finally:
        assert len(server.arrived) == bench.measured.answers.total()
    return bench.measured


def test_a_stall_is_seen_in_all_that_were_due_meanwhile(server: _Stalling) -> None:
    found = measured(server)
    assert (found.sent, found.answers, len(found.due)) == (50, {"200": 50}, 50)
    # Half of those that were due while it stood still waited for half of it, however fast they were answered then.
    waited = sorted(found.answered_ms, reverse=True)
    assert waited[0] >= STALL_S * 1000
    assert waited[12] >= STALL_S * 1000 / 2 - 20
    assert percentiles(found.answered_ms)["max"] == round(waited[0], 1)


def test_it_goes_on_sending_while_nothing_is_answered(server: _Stalling) -> None:
    with server.one_at_a_time:
        # Nobody is answered before all are there.
        worker = Thread(target=lambda: outcome.append(measured(server, rate=100)))
        outcome: list[Measured] = []
        worker.start()
        until = time.monotonic() + 60
        while len(server.arrived) < 100 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(server.arrived) == 100
    worker.join(60)
    assert outcome[0].answers == {"200": 100}


def all_taken(server: _Stalling, outcome: list[Measured]) -> Thread:
    """A run whose every connection has sent, and waits for its answer; its thread."""
    worker = Thread(target=lambda: outcome.append(measured(server, rate=200)))
    worker.start()
    until = time.monotonic() + 60
    while len(server.arrived) < MAX_CONNECTIONS and time.monotonic() < until:
        time.sleep(0.01)
    return worker


def test_what_waits_for_long_is_never_sent(server: _Stalling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "BACKLOG_S", 0.2)
    outcome: list[Measured] = []
    with server.one_at_a_time:
        worker = all_taken(server, outcome)
        # Longer than anything may wait that comes due while no connection is free.
        time.sleep(2.0)
    worker.join(60)
    (found,) = outcome
    assert (found.sent, found.never_sent, len(server.arrived)) == (MAX_CONNECTIONS, 200 - MAX_CONNECTIONS, found.sent)


def test_what_waits_when_it_ends_is_not_sent(server: _Stalling) -> None:
    server.statuses = (429,)
    outcome: list[Measured] = []
    with server.one_at_a_time:
        worker = all_taken(server, outcome)
        # Some are due by now that wait for a connection.
        time.sleep(0.2)
    worker.join(60)
    (found,) = outcome
    assert found.ended_by == "429"
    assert found.never_sent > 0
    assert len(server.arrived) == found.sent == MAX_CONNECTIONS


def test_it_ends_at_the_limit_unless_it_may_go_beyond(server: _Stalling) -> None:
    server.statuses = (429,)
    within = measured(server, rate=20, seconds=3)
    assert within.ended_by == "429"
    assert within.sent < 60
    server.arrived.clear()
    beyond = measured(server, rate=20, seconds=1, over_the_limit=True)
    assert (beyond.sent, beyond.answers) == (20, {"429": 20})
    assert beyond.due == {}, "what was refused is not waited for"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_it_ends_where_nothing_more_is_let_in(server: _Stalling, status: int) -> None:
    server.statuses = (status,)
    found = measured(server, rate=20, seconds=3, over_the_limit=True)
    assert (found.ended_by, found.sent < 60) == (str(status), True)


def test_it_ends_where_callbacks_are_held_as_where_they_are_refused(server: _Stalling) -> None:
    server.held = lambda: 7 + max(0, server.posts - 3)
    within = measured(server, rate=20, seconds=3)
    assert (within.ended_by, within.sent < 60) == ("held", True)
    # What was held before is others'.
    assert 0 < (within.held or 0) <= server.posts - 3
    server.arrived.clear()
    server.held = lambda: server.posts
    beyond = measured(server, rate=20, seconds=1, over_the_limit=True)
    assert (beyond.ended_by, beyond.sent, beyond.held) == ("", 20, 20)


def test_what_is_held_is_not_known_where_nobody_says(server: _Stalling) -> None:
    assert measured(server, rate=5).held is None


def test_a_key_that_brings_no_callbacks_measures_nothing(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = {"tenant_id": "t", "key_id": "k", "scopes": ["read"], "expires_at": None}
    gateway.says("GET /v1/whoami", holder)
    bench = ["bench", "Twilio", "--yes"]
    assert main(bench) == 3
    assert "ingest" in capsys.readouterr().err
    assert [name for name, _ in gateway.asked] == ["GET /v1/whoami"], "nor is anything else asked for"
    # A token brings them, whatever the key opens; then it goes on, and there is no such channel.
    profile = Profile(source="p", url=gateway.url, api_key="bhk_0123", ingest_token="bhi_0123")
    monkeypatch.setattr(profiles, "chosen", lambda *_: profile)
    assert main(bench) == 4


def test_a_stream_that_is_refused_is_why_nothing_was_sent(server: _Stalling) -> None:
    server.stream = 403
    with pytest.raises(ForbiddenError):
        measured(server)
    assert server.arrived == []


def test_what_the_stream_left_out_is_kept(server: _Stalling) -> None:
    server.told = b'id: 9\nevent: missed\ndata: {"message": "Some may be gone."}\n\n' * 2
    assert measured(server, rate=5).missed == ["Some may be gone.", "Some may be gone."]


def test_what_is_told_before_its_answer_came_counts_once() -> None:
    found = Measured()
    found.told("a", 3.0)
    found.told("a", 9.0)
    found.taken("a", 1.0)
    found.taken("b", 1.0)
    found.told("b", 1.5)
    found.told("b", 8.0)
    found.taken("c", 1.0)
    assert (found.told_ms, set(found.due)) == ([2000.0, 500.0], {"c"})


def test_what_was_not_answered_is_among_the_longest(server: _Stalling) -> None:
    server.statuses = (*[200] * 40, *[NO_ANSWER] * 5, 503)
    found = measured(server)
    assert found.answers == {"200": 40, "RemoteProtocolError": 5, "503": 5}
    # A refusal is an answer, and no success: neither counts as the time of one.
    assert (len(found.answered_ms), len(found.unanswered_ms)) == (40, 5)
    assert all(0 < one <= found.elapsed_s * 1000 for one in found.unanswered_ms)
    assert percentiles(found.answered_ms, found.unanswered_ms)["max"] is None
    # Who was never answered was never told either, as far as anybody knows.
    assert (len(found.due), len(found.untold_ms)) == (40, 45)


def test_percentiles_are_of_what_was_measured() -> None:
    assert percentiles([], [9.0]) == dict.fromkeys(("p50", "p90", "p99", "max"))
    # What never came ranks behind what did, however long was waited for it.
    assert percentiles([5.0] * 90, [1.0] * 10) == {"p50": 5, "p90": 5, "p99": None, "max": None}
    assert percentiles([]) == dict.fromkeys(("p50", "p90", "p99", "max"))
    assert percentiles([5.0]) == dict.fromkeys(("p50", "p90", "p99", "max"), 5.0)
    assert percentiles([float(one) for one in range(100, 0, -1)]) == {"p50": 50, "p90": 90, "p99": 99, "max": 100}


def test_what_never_came_is_said_as_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    found = Measured(came_due=3, sent=2, answered_ms=[5.0], ended_at=9.0, unanswered={1: 1.0, 2: 2.0}, held=4)
    found.answers.update({"200": 1, "ReadTimeout": 1})
    found.missed.append("Some may be gone.")
    found.ended_by = "held"
    of = {"provider": "twilio", "event": "delivered"}
    for as_json in (True, False):
        with pytest.raises(typer.Exit) as ended:
            command._ended((found, None), planned("http://127.0.0.1"), of, Output(as_json=as_json))
        assert ended.value.exit_code == 7
        said = capsys.readouterr()
        assert "Some may be gone." in said.err
        assert "over the tenant's rate" in said.err
        if as_json:
            row = json.loads(said.out)
            assert row["answered_ms"] == {"p50": None, "p90": None, "p99": None, "max": None}
            assert (row["never_sent"], row["held"], row["ended_by"]) == (1, 4, "held")
            assert row["missed"] == ["Some may be gone."]
        else:
            assert "> 8000.0 ms" in said.out
