"""What somebody who listens sees, whatever comes, and whom a listener may call."""

from __future__ import annotations

import base64
import re
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from answering import Gateway
from backhaul_cli import forwarding, listening, texts
from backhaul_cli.failing import FailedError
from backhaul_cli.forwarding import Answer, Caller, check_address, key_of, new_secret, told
from backhaul_cli.watching import MAX_KEPT, Row, Watched, details
from backhaul_client.models import Event, decoded
from backhaul_testing.authority import Authority
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from test_messages import EVENT

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def row(number: int, **fields: Any) -> Row:
    event = decoded(msgspec.json.encode(EVENT | {"message_id": f"SM{number:04}"} | fields), Event)
    return Row(told(event), 1, Answer(200, 3.0, "Thank you."))


def shown(watched: Watched, width: int = 80, height: int = 10) -> list[str]:
    lines = watched.screen(width, height)
    assert len(lines) == height
    plain = [STYLE.sub("", one) for one in lines]
    assert all(cell_len(one) <= width and one == texts.plain(one) for one in plain), plain
    return plain


def chosen(watched: Watched) -> str:
    assert watched.chosen is not None
    return watched.chosen.told.event.message_id


@given(
    text=st.text(max_size=200),
    width=st.integers(20, 200),
    height=st.integers(4, 40),
    moves=st.lists(st.integers(-5, 5), max_size=10),
    detailed=st.booleans(),
)
def test_a_screen_holds_whatever_strangers_wrote(
    text: str, width: int, height: int, moves: list[int], detailed: bool
) -> None:
    watched = Watched("http://127.0.0.1:9000")
    written = dict.fromkeys(("message_id", "channel", "kind", "text", "error_text"), text)
    for number in range(3):
        watched.add(row(number, **written))
    watched.rows[1].answer = Answer(500, 1.0, text)
    watched.note = text
    watched.detailed = detailed
    for by in moves:
        watched.move(by)
    shown(watched, width, height)


def test_what_is_chosen_stays_in_sight_and_the_newest_is_followed_until_somebody_moves() -> None:
    watched = Watched("here")
    assert watched.chosen is None
    watched.move(1)
    shown(watched)
    for number in range(30):
        watched.add(row(number))
    assert chosen(watched) == "SM0029"
    assert any("SM0029" in one for one in shown(watched))
    watched.move(-20)
    watched.add(row(30))
    assert chosen(watched) == "SM0009"
    assert any("SM0009" in one for one in shown(watched))
    assert any("follows again" in one for one in shown(watched))
    watched.move(MAX_KEPT)
    watched.add(row(31))
    assert chosen(watched) == "SM0031"
    watched.move(-MAX_KEPT)
    assert chosen(watched) == "SM0000"


def test_so_many_are_kept_and_the_chosen_one_is_the_same_as_long_as_it_is() -> None:
    watched = Watched("here")
    for number in range(MAX_KEPT):
        watched.add(row(number))
    watched.move(-10)
    before = chosen(watched)
    for number in range(MAX_KEPT, MAX_KEPT + 100):
        watched.add(row(number))
    assert (len(watched.rows), watched.seen, chosen(watched)) == (MAX_KEPT, MAX_KEPT + 100, before)
    for number in range(MAX_KEPT + 100, 3 * MAX_KEPT):
        watched.add(row(number))
    assert chosen(watched) == watched.rows[0].told.event.message_id
    shown(watched)


def test_details_are_what_was_sent_and_what_was_answered() -> None:
    one = row(1)
    text = "\n".join(details(one))
    assert "Thank you." in text
    assert msgspec.json.decode(text[text.index("{") :]) == msgspec.json.decode(one.told.body)
    assert "Watched" not in text
    assert not STYLE.search("".join(Watched("x", colours=False)._styled(one, 80, chosen=False)).removesuffix("\x1b[0m"))


def test_a_call_again_is_known_by_its_id_and_another_revision_is_another() -> None:
    assert told(row(1).told.event).webhook_id == row(1).told.webhook_id
    assert row(1, revision=1).told.webhook_id != row(1).told.webhook_id
    assert "traceparent" not in msgspec.json.decode(row(1).told.body)["data"]


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:9000/x", True),
        ("http://[::1]:9000", True),
        ("http://10.1.2.3", True),
        ("https://192.168.0.7:8443", True),
        ("http://[fd00::1]/", True),
        ("http://8.8.8.8/", False),
        ("http://169.254.169.254/latest/meta-data", False),
        ("http://0.0.0.0:80", False),
        ("http://[::ffff:127.0.0.1]:9000", True),
        ("http://[::ffff:8.8.8.8]", False),
        ("http://[2001:0:808:808::1]", False),
        ("http://[2002:808:808::1]", False),
        ("http://100.64.0.1", False),
        ("http://[2001:4860:4860::8888]", False),
    ],
)
def test_only_what_is_near_is_called_unless_it_is_said(url: str, near: bool) -> None:
    check_address(url, anywhere=True)
    if near:
        check_address(url, anywhere=False)
        return
    with pytest.raises(FailedError) as refused:
        check_address(url, anywhere=False)
    assert "--anywhere" in refused.value.fix


def test_a_name_is_near_only_if_all_its_addresses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(0, 0, 0, "", ("127.0.0.1", 80)), (0, 0, 0, "", ("93.184.216.34", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: rows)
    with pytest.raises(FailedError, match=re.escape("93.184.216.34")):
        check_address("http://both.example", anywhere=False)


def test_a_name_that_leads_elsewhere_later_is_called_no_more(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(gateway.url.rpartition(":")[2])
    leads_to = ["127.0.0.1"]
    found = socket.getaddrinfo

    def asked(_host: object, _port: object, *args: Any, **named: Any) -> Any:
        return found(leads_to[0], port, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    gateway.says("POST /x", "Thank you.")
    one = row(1).told
    url = f"http://near.example:{port}/x"
    for anywhere in (False, True):
        leads_to[0] = "127.0.0.1"
        gateway.asked.clear()
        with Caller(url, key_of(new_secret()), anywhere=anywhere) as caller:
            assert caller.call(one).taken
            # What the answer stands for is an address of nobody: here it is only looked up.
            leads_to[0] = "127.0.0.1" if anywhere else "192.0.2.1"
            answer = caller.call(one)
        assert (answer.taken, len(gateway.asked)) == (anywhere, 2 if anywhere else 1)
        assert anywhere or "192.0.2.1" in answer.error


def test_what_was_looked_at_is_dialled_though_the_name_leads_elsewhere_the_next_time(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(gateway.url.rpartition(":")[2])
    answers = ["127.0.0.1"]
    found = socket.getaddrinfo

    def asked(host: object, *args: Any, **named: Any) -> Any:
        if host == "near.example":
            # Whoever looks it up once more is led to the other one.
            host = answers.pop() if answers else "127.0.0.2"
        return found(host, *args, **named)  # type: ignore[arg-type]  # as it was asked

    gateway.says("POST /x", "Thank you.")
    with Gateway("127.0.0.2", port) as elsewhere:
        Thread(target=elsewhere.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            elsewhere.says("POST /x", "Thank you.")
            monkeypatch.setattr(socket, "getaddrinfo", asked)
            with Caller(f"http://near.example:{port}/x", key_of(new_secret())) as caller:
                assert caller.call(row(1).told).taken
                assert (len(gateway.asked), elsewhere.asked) == (1, [])
                assert gateway.hosts == [f"near.example:{port}"]
                assert caller.call(row(2).told).taken, "this machine, too"
                assert (len(gateway.asked), len(elsewhere.asked)) == (1, 1)
        finally:
            elsewhere.shutdown()


def test_the_next_address_of_a_name_is_called_where_one_cannot_be_reached(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(gateway.url.rpartition(":")[2])
    both = [row for at in ("127.0.0.3", "127.0.0.1") for row in socket.getaddrinfo(at, port, type=socket.SOCK_STREAM)]
    found = socket.getaddrinfo

    def asked(host: object, *args: Any, **named: Any) -> Any:
        return both if host == "near.example" else found(host, *args, **named)  # type: ignore[arg-type]  # likewise

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    gateway.says("POST /x", "Thank you.")
    with Caller(f"http://near.example:{port}/x", key_of(new_secret())) as caller:
        assert caller.call(row(1).told).taken


def test_tls_is_of_the_name_and_not_of_the_address_that_is_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Authority(tmp_path).issue("near", dns=["near.example"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    asked_for: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    found = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **named: found("127.0.0.1" if host == "near.example" else host, *args, **named),
    )
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with suppress(OSError):
                context.wrap_socket(server.accept()[0], server_side=True).close()

        greeting = Thread(target=greet)
        greeting.start()
        with Caller(f"https://near.example:{server.getsockname()[1]}/x", key_of(new_secret())) as caller:
            # Nobody trusts the authority: what is presented is looked at.
            assert "certificate verify failed" in caller.call(row(1).told).error.lower()
        greeting.join(60)
    assert asked_for == ["near.example"]


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "ftp://127.0.0.1", "http://", "http://a:b@127.0.0.1", "http://[::1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(FailedError):
        check_address(url, anywhere=True)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_short", "0123456789abcdef", "whsec_" + "A" * 87, "whsec_ä"])
def test_what_is_no_secret_is_refused(secret: str) -> None:
    with pytest.raises(FailedError, match="no secret"):
        key_of(secret)


def test_a_new_secret_is_one_and_no_other() -> None:
    assert key_of(new_secret()) != key_of(new_secret())
    assert len(base64.b64decode(new_secret().removeprefix("whsec_"))) == 32


def test_an_answer_without_an_end_and_a_redirect_are_answers(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    one = row(1).told
    with Caller(f"{gateway.url}/x", key_of(new_secret())) as caller:
        gateway.says("POST /x", 302)
        assert (caller.call(one).status, caller.call(one).taken) == (302, False)
        gateway.says("POST /x", "long " * 10_000)
        assert len(caller.call(one).text) <= 4_096
    assert {name for name, _ in gateway.asked} == {"POST /x"}


class _AtOnce(Queue[Any]):
    """Has taken what is put into it before whoever put it there goes on; or is full."""

    def __init__(self, *, full: bool) -> None:
        super().__init__(1)
        self._full = full

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self._full:
            raise Full
        item[0].answer = Answer(201, 1.0)


@pytest.mark.parametrize("full", [False, True])
def test_a_call_again_that_is_over_at_once_or_not_made_shows_an_answer(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "Queue", lambda _size: _AtOnce(full=full))
    session = listening._Session(Mock(), "here", Mock())
    one = row(1)
    session._watched.add(one)
    session._of_chosen("r")
    assert one.answer is not None
    assert one.answer.status == (200 if full else 201)


def test_a_program_that_says_nothing_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with Caller(url, key_of(new_secret())) as caller:
            assert caller.call(row(1).told).status == 0
        assert forwarding.listens(url, [])
        assert forwarding.listens(url, ["127.0.0.2", "127.0.0.1"])
    assert not forwarding.listens(url, ["127.0.0.1"])
