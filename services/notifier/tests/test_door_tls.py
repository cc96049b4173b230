"""The door and TLS: whom it trusts, what it shows, and to whom."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from backhaul_notifier.door.contexts import MAX_CONTEXTS, Contexts
from backhaul_notifier.door.outcome import Failure, Outcome, RequestError, Tls
from door_rig import Authority, Call, Hanging, connect_proxy, door, endpoint, post, server_tls

NAMES = {"hook.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def answered(call: Call) -> None:
    shown = call.writer.get_extra_info("peercert") or {}
    name = dict(part[0] for part in shown.get("subject", ())).get("commonName", "nobody")
    await call.answer(f"{name} {call.number}".encode())


async def test_a_certificate_of_a_trusted_authority(tmp_path: Path, authority: Authority) -> None:
    tls = server_tls(tmp_path, authority.issue("hook.example"))
    async with endpoint(answered, tls) as there, door(Hanging(NAMES)) as sender:
        outcome = await sender.send(
            post(there.url(host="hook.example", scheme="https"), tls=Tls(authority=authority.pem))
        )
    assert (outcome.status, outcome.answer) == (200, "nobody 1")
    assert there.calls[0].headers["host"] == f"hook.example:{there.port}"


async def test_authorities_by_setting(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.pem").write_text(authority.pem, "utf-8")
    tls = server_tls(tmp_path, authority.issue("127.0.0.1"))
    async with endpoint(answered, tls) as there, door(notifier_ca_file=tmp_path / "ca.pem") as sender:
        assert (await sender.send(post(there.url(scheme="https")))).status == 200
        # An endpoint's own authority takes their place.
        refused = await sender.send(post(there.url(scheme="https"), tls=Tls(authority=Authority("Another").pem)))
    assert refused.failure is Failure.TLS_FAILED


@pytest.mark.parametrize(
    ("name", "days", "trusted", "said"),
    [
        ("other.example", 1, True, "not valid for 'hook.example'"),
        ("*.example.com", 1, True, "not valid for 'hook.example'"),
        ("hook.example", -1, True, "expired"),
        ("hook.example", 20, True, "not yet valid"),
        ("hook.example", 1, False, "unable to get local issuer certificate"),
    ],
)
async def test_a_certificate_that_is_not_valid(
    tmp_path: Path, authority: Authority, name: str, days: int, trusted: bool, said: str
) -> None:
    tls = server_tls(tmp_path, authority.issue(name, days=days))
    async with endpoint(answered, tls) as there, door(Hanging(NAMES)) as sender:
        outcome = await sender.send(
            post(
                there.url(host="hook.example", scheme="https"),
                tls=Tls(authority=authority.pem) if trusted else None,
            )
        )
        assert sender.open_connections == 0
    assert outcome.failure is Failure.TLS_FAILED
    assert said in outcome.sentence
    assert not there.calls


async def test_a_certificate_that_signs_itself(tmp_path: Path) -> None:
    own = Authority("hook.example").issue("hook.example")
    async with endpoint(answered, server_tls(tmp_path, own)) as there, door(Hanging(NAMES)) as sender:
        outcome = await sender.send(post(there.url(host="hook.example", scheme="https")))
    assert outcome.failure is Failure.TLS_FAILED
    assert not there.calls


async def test_an_endpoint_without_tls() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        await writer.drain()

    outcome = await sent_to(plain)
    assert outcome.failure is Failure.TLS_FAILED
    assert outcome.sentence.startswith("TLS with 127.0.0.1 failed: ")


async def test_an_endpoint_that_hangs_up_on_tls() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    assert (await sent_to(hang_up)).failure is Failure.TLS_FAILED


async def test_an_endpoint_that_never_agrees_on_tls() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass

    outcome = await sent_to(listen, timeout_s=1.0)
    assert outcome.failure is Failure.TLS_FAILED
    assert "in time" in outcome.sentence


async def sent_to(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], timeout_s: float = 20.0
) -> Outcome:
    """What becomes of a request by https to something that may not speak TLS."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
            while await reader.read(1024):
                pass
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with door() as sender:
        outcome = await sender.send(
            post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_s=timeout_s)
        )
    await asyncio.wait_for(over.wait(), 60)
    server.close()
    return outcome


async def test_each_tenant_shows_its_own_certificate_on_connections_of_its_own(
    tmp_path: Path, authority: Authority
) -> None:
    clients = Authority("Clients")
    tls = server_tls(tmp_path, authority.issue("127.0.0.1"), clients)
    shown = {
        name: Tls(issued.certificate, issued.key, authority.pem)
        for name in ("acme", "globex")
        for issued in [clients.issue(name)]
    }
    async with endpoint(answered, tls) as there, door() as sender:
        url = there.url(scheme="https")
        told = [(await sender.send(post(url, tls=shown[name]))).answer for name in ("acme", "globex", "acme", "globex")]
        # Each keeps the connection that it has; neither gets the other's.
        assert told == ["acme 1", "globex 2", "acme 1", "globex 2"]
        without = await sender.send(post(url, tls=Tls(authority=authority.pem)))
    assert without.failure in (Failure.TLS_FAILED, Failure.RESET)
    assert len(there.calls) == 4


async def test_a_certificate_is_shown_through_the_proxy(tmp_path: Path, authority: Authority) -> None:
    clients = Authority("Clients")
    issued = clients.issue("acme")
    tls = server_tls(tmp_path, authority.issue("hook.example"), clients)
    async with (
        endpoint(answered, tls) as there,
        connect_proxy() as proxy,
        door(Hanging(NAMES), notifier_proxy_url=f"http://127.0.0.1:{proxy.port}") as sender,
    ):
        request = post(
            there.url(host="hook.example", scheme="https"), tls=Tls(issued.certificate, issued.key, authority.pem)
        )
        assert [(await sender.send(request)).answer for _ in range(2)] == ["acme 1", "acme 1"]
        # The certificate is for the name, and the tunnel to the address.
        assert proxy.asked == [f"127.0.0.1:{there.port}"]


@pytest.mark.parametrize(
    "tls",
    [
        Tls("no certificate", "no key"),
        Tls(Authority().issue("a").certificate, Authority().issue("a").key),
        Tls(Authority().issue("a").certificate, ""),
        Tls(authority="no certificate"),
    ],
)
async def test_what_cannot_be_used(tls: Tls) -> None:
    async with door() as sender:
        outcome = await sender.send(post("https://127.0.0.1:1/", tls=tls))
    assert outcome.failure is Failure.REQUEST_INVALID
    assert tls.key == "" or tls.key not in outcome.sentence + repr(tls)


async def test_contexts_are_made_once_and_are_bounded(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = Contexts()
    tls = Tls(authority=authority.pem)
    first, same = await asyncio.gather(contexts.of(tls), contexts.of(tls))
    assert first is same
    assert first is await contexts.of(Tls(authority=authority.pem))
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    monkeypatch.setattr("backhaul_notifier.door.contexts.MAX_CONTEXTS", 2)
    assert MAX_CONTEXTS > 2
    for number in range(2):
        await contexts.of(Tls(authority=Authority(f"{number}").pem))
    assert await contexts.of(tls) is not first
    with pytest.raises(RequestError):
        await contexts.of(Tls(authority="none"))
