"""What the door dials through a proxy, and what settings say of it."""

from __future__ import annotations

import socket
from base64 import b64encode

import pytest
from backhaul_notifier.door.outcome import Failure
from backhaul_notifier.door.settings import DoorSettings
from door_rig import Call, Hanging, connect_proxy, door, endpoint, post
from pydantic import ValidationError

SHORT_S = 0.6
"""The time of an attempt that is to run out: what it waits for never comes."""


async def answered(call: Call) -> None:
    await call.answer(str(call.number).encode())


class TestProxy:
    """It is given addresses that were checked; what it fails at is not the endpoint's."""

    @pytest.mark.parametrize("credentials", ["", "us%40er:pass%3Aword@"])
    async def test_plain_http_goes_through_a_tunnel_to_the_address(self, credentials: str) -> None:
        names = Hanging({"hook.example": [["127.0.0.1"]]})
        async with endpoint(answered) as there, connect_proxy() as proxy:
            url = f"http://{credentials}127.0.0.1:{proxy.port}"
            async with door(names, notifier_proxy_url=url) as sender:
                request = post(there.url("/a?b", host="hook.example"))
                assert [(await sender.send(request)).answer for _ in range(2)] == ["1", "1"]
        assert proxy.asked == [f"127.0.0.1:{there.port}"]
        assert there.calls[0].head.startswith("POST /a?b HTTP/1.1")
        assert there.calls[0].headers["host"] == f"hook.example:{there.port}"
        assert "proxy-authorization" not in there.calls[0].headers
        shown = f"Proxy-Authorization: Basic {b64encode(b'us@er:pass:word').decode()}"
        assert (shown in proxy.heads[0]) == bool(credentials)

    @pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://inside.example/", "http://[::ffff:a9fe:a9fe]/"])
    async def test_what_is_refused_never_reaches_it(self, url: str) -> None:
        async with connect_proxy() as proxy:
            proxy_url = f"http://127.0.0.1:{proxy.port}"
            names = Hanging({"inside.example": [["192.168.0.1"]]})
            async with door(names, notifier_proxy_url=proxy_url) as sender:
                assert (await sender.send(post(url))).failure is Failure.ADDRESS_REFUSED
        assert not proxy.heads

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 403 Forbidden\r\n\r\n",
            b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
            b"HTTP/1.1 504 Gateway Timeout\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
            b"rubbish\r\n\r\n",
            b"HTTP/1.1 2",
            b"x" * 100_000,
        ],
    )
    async def test_its_failures_are_its_own(self, answer: bytes) -> None:
        async with endpoint(answered) as there, connect_proxy() as proxy:
            proxy.answer = answer
            async with door(notifier_proxy_url=f"http://user:s3cret@127.0.0.1:{proxy.port}") as sender:
                outcome = await sender.send(post(there.url()))
        assert outcome.failure is Failure.PROXY_FAILED
        assert not outcome.failure.endpoints
        assert "s3cret" not in outcome.sentence
        assert not there.connections

    @pytest.mark.parametrize(
        ("header", "failure"),
        [
            ('Proxy-Status: egress; error=connection_refused; details="no"', Failure.CONNECT_FAILED),
            ("Proxy-Status: egress; error=connection_timeout", Failure.CONNECT_TIMEOUT),
            ("X-Squid-Error: ERR_CONNECT_FAIL 111", Failure.CONNECT_FAILED),
            ("Proxy-Status: egress; error=proxy_internal_error", Failure.PROXY_FAILED),
            ("X-Squid-Error: ERR_ACCESS_DENIED 0", Failure.PROXY_FAILED),
        ],
    )
    async def test_it_may_say_that_the_endpoint_failed(self, header: str, failure: Failure) -> None:
        async with connect_proxy() as proxy:
            proxy.answer = f"HTTP/1.1 503 Service Unavailable\r\n{header}\r\n\r\n".encode()
            async with door(notifier_proxy_url=f"http://127.0.0.1:{proxy.port}") as sender:
                assert (await sender.send(post("http://127.0.0.1:1/"))).failure is failure

    async def test_it_does_not_answer_in_time(self) -> None:
        async with connect_proxy() as proxy:
            proxy.answer = b""
            async with door(notifier_proxy_url=f"http://127.0.0.1:{proxy.port}") as sender:
                outcome = await sender.send(post("http://127.0.0.1:1/", timeout_s=SHORT_S))
        assert outcome.failure is Failure.PROXY_FAILED

    async def test_it_is_away(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
            async with door(notifier_proxy_url=url) as sender:
                assert (await sender.send(post("http://127.0.0.1:1/"))).failure is Failure.PROXY_FAILED
        async with door(notifier_proxy_url="http://nowhere.example:3128") as sender:
            assert (await sender.send(post("http://127.0.0.1:1/"))).failure is Failure.PROXY_FAILED

    async def test_the_next_address_is_tried_where_it_cannot_connect_to_one(self) -> None:
        names = Hanging({"hook.example": [["127.0.0.9", "127.0.0.1"]]})
        async with (
            endpoint(answered) as there,
            connect_proxy() as proxy,
            door(names, notifier_proxy_url=f"http://127.0.0.1:{proxy.port}") as sender,
        ):
            assert (await sender.send(post(there.url(host="hook.example")))).status == 200
        assert proxy.asked == [f"127.0.0.9:{there.port}", f"127.0.0.1:{there.port}"]


class TestSettings:
    """As the environment has them."""

    def test_lists_are_comma_separated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BACKHAUL_NOTIFIER_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8")
        monkeypatch.setenv("BACKHAUL_NOTIFIER_ALLOWED_PORTS", "443, 8443")
        monkeypatch.setenv("BACKHAUL_NOTIFIER_ALLOWED_HOSTS", "a.example,B.example.")
        settings = DoorSettings()
        assert [str(one) for one in settings.notifier_allowed_networks] == ["10.0.0.0/8", "fd00::/8"]
        assert settings.door_limits().ports == {443, 8443}
        assert settings.door_limits().hosts == {"a.example", "b.example"}
        assert settings.door_proxy() is None

    @pytest.mark.parametrize(
        "url",
        [
            "https://proxy.example.com:3128",
            "socks5://proxy.example.com:1080",
            "http://proxy.example.com",
            "http://proxy.example.com:99999",
            "http://proxy.example.com:3128/path",
            "proxy.example.com:3128",
        ],
    )
    def test_a_proxy_is_an_http_one(self, url: str) -> None:
        with pytest.raises(ValidationError, match="must be like http://user"):
            DoorSettings.model_validate({"notifier_proxy_url": url})

    @pytest.mark.parametrize(
        ("name", "value"),
        [("allowed_networks", "10.0.0.1/8"), ("refused_networks", "all"), ("allowed_ports", "443,https")],
    )
    def test_what_is_none_is_refused(self, name: str, value: str) -> None:
        with pytest.raises(ValidationError):
            DoorSettings.model_validate({f"notifier_{name}": value})

    @pytest.mark.parametrize("value", ["0", "65536", "-443", "https", "443 8443"])
    def test_a_port_that_nobody_has_does_not_close_the_door_in_silence(self, value: str) -> None:
        with pytest.raises(ValidationError, match="numbers from 1 to 65535"):
            DoorSettings.model_validate({"notifier_allowed_ports": value})
