"""The door against endpoints that behave, and what it does not send at all, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from backhaul_notifier.door.outcome import MAX_ANSWER_BYTES, OWN_HEADERS, Failure, Request
from door_rig import Call, Hanging, door, endpoint, post

SECRET = "s3cret"
"""In the URL and the headers of each request that fails: no sentence may have it."""


async def answered(call: Call) -> None:
    await call.answer()


class TestWhatIsSent:
    """And what comes back."""

    async def test_a_post_arrives_as_it_was_given(self) -> None:
        async with endpoint(answered) as there, door() as sender:
            outcome = await sender.send(
                post(there.url("/hook/a%2Fb?x=%41&y=1"), headers={"Webhook-Id": "one", "X-Empty": ""}, body=b'{"a": 1}')
            )
        assert (outcome.status, outcome.answer, outcome.failure) == (200, "ok", None)
        assert outcome.duration_ms > 0
        (call,) = there.calls
        assert call.head.split("\r\n")[0] == "POST /hook/a%2Fb?x=%41&y=1 HTTP/1.1"
        assert call.body == b'{"a": 1}'
        assert call.headers == {
            "host": f"127.0.0.1:{there.port}",
            "accept-encoding": "identity",
            "webhook-id": "one",
            "x-empty": "",
            "content-length": "8",
        }

    async def test_a_get_has_no_body(self) -> None:
        async with endpoint(answered) as there, door() as sender:
            outcome = await sender.send(Request("GET", there.url("/?batch=7"), body=b"left out"))
        assert outcome.status == 200
        (call,) = there.calls
        assert call.head.startswith("GET /?batch=7 HTTP/1.1")
        assert call.body == b""
        assert "content-length" not in call.headers

    async def test_a_large_body_arrives_whole(self) -> None:
        body = b"0123456789abcdef" * (1 << 17)
        async with endpoint(answered) as there, door() as sender:
            outcome = await sender.send(post(there.url(), body=body))
        assert outcome.status == 200
        assert there.calls[0].body == body

    async def test_a_literal_address_is_dialled_as_it_is_read_and_named_so(self) -> None:
        async with endpoint(answered) as there, door() as sender:
            outcome = await sender.send(post(f"http://2130706433:{there.port}/"))
        assert outcome.status == 200
        assert there.calls[0].headers["host"] == f"127.0.0.1:{there.port}"

    @pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 308, 400, 410, 429, 503, 599])
    async def test_every_status_is_an_answer(self, status: int) -> None:
        async def answer(call: Call) -> None:
            body = b"" if status == 204 else b"body"
            await call.answer(body, status, "Location: http://169.254.169.254/latest/\r\n")

        async with endpoint(answer) as there, door() as sender:
            outcome = await sender.send(post(there.url()))
        assert (outcome.status, outcome.failure) == (status, None)
        assert len(there.calls) == 1

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("120", 120.0),
            (" 0 ", 0.0),
            ("9" * 1000, 9_999_999_999.0),
            (format_datetime(datetime.fromtimestamp(1_000_060, UTC), usegmt=True), 60.0),
            (format_datetime(datetime.fromtimestamp(999_000, UTC), usegmt=True), 0.0),
            ("-5", None),
            ("soon", None),
            ("Mon, 99 Foo 2026 99:99:99 GMT", None),
            ("Fri, 31 Dec 9999 23:59:59 -2359", 253_401_387_139.0),
            ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None),
            ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
            ("", None),
        ],
    )
    async def test_retry_after(self, value: str, expected: float | None) -> None:
        async def answer(call: Call) -> None:
            await call.answer(b"", 429, f"Retry-After: {value}\r\n")

        async with endpoint(answer) as there, door(now=lambda: 1_000_000.0) as sender:
            assert (await sender.send(post(there.url()))).retry_after_s == expected

    async def test_an_answer_is_told_as_text(self) -> None:
        async def answer(call: Call) -> None:
            await call.answer(b"a\x00b\x1b[31m\xff\r\n\tend \xc3\xa9")

        async with endpoint(answer) as there, door() as sender:
            outcome = await sender.send(post(there.url()))
        assert outcome.answer == "a\ufffdb\ufffd[31m\ufffd\r\n\tend é"

    async def test_garbage_with_a_200_is_a_200(self) -> None:
        async def answer(call: Call) -> None:
            await call.answer(b"\xff" * 4096, more="Content-Type: \xff/\x80\r\n")

        async with endpoint(answer) as there, door() as sender:
            outcome = await sender.send(post(there.url()))
        assert (outcome.status, outcome.failure) == (200, None)
        assert len(outcome.answer.encode()) <= MAX_ANSWER_BYTES

    async def test_what_is_compressed_is_not_inflated(self) -> None:
        bomb = gzip.compress(b"\x00" * (100 << 20), compresslevel=1)

        async def answer(call: Call) -> None:
            await call.answer(bomb, more="Content-Encoding: gzip\r\n")

        async with endpoint(answer) as there, door() as sender:
            outcome = await sender.send(post(there.url()))
        assert (outcome.status, outcome.failure) == (200, None)
        assert outcome.answer.startswith("(compressed")

    async def test_cookies_are_not_kept(self) -> None:
        async def answer(call: Call) -> None:
            await call.answer(more="Set-Cookie: who=somebody; Path=/\r\n")

        async with endpoint(answer) as there, door() as sender:
            for _ in range(2):
                assert (await sender.send(post(there.url()))).status == 200
        assert "cookie" not in there.calls[1].headers

    async def test_the_environments_proxy_and_credentials_are_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        async with endpoint(answered) as there, door() as sender:
            assert (await sender.send(post(there.url()))).status == 200


class TestRequests:
    """What is not sent at all."""

    @pytest.mark.parametrize("name", sorted(OWN_HEADERS))
    async def test_headers_that_are_the_doors_own(self, name: str) -> None:
        async with endpoint(answered) as there, door() as sender:
            outcome = await sender.send(post(there.url(), headers={name.title(): "5"}))
        assert outcome.failure is Failure.REQUEST_INVALID
        assert name in outcome.sentence
        assert not there.connections

    @pytest.mark.parametrize(
        ("name", "value"),
        [("X", "a\r\nHost: b"), ("X", "a\nb"), ("X", "a\x00b"), ("X", " a"), ("X", "\u0416"), ("X Y", "a"), ("", "a")],
    )
    async def test_headers_that_cannot_be_sent(self, name: str, value: str) -> None:
        async with endpoint(answered) as there, door() as sender:
            outcome = await sender.send(post(there.url(), headers={name: value}))
        assert outcome.failure is Failure.REQUEST_INVALID
        assert not there.connections

    @pytest.mark.parametrize(
        ("url", "failure"),
        [
            (f"http://{SECRET}@127.0.0.1/", Failure.REQUEST_INVALID),
            (f"gopher://127.0.0.1/{SECRET}", Failure.REQUEST_INVALID),
            (f"http://10.0.0.1/{SECRET}?{SECRET}#{SECRET}", Failure.ADDRESS_REFUSED),
            (f"http://[::ffff:169.254.169.254]/{SECRET}", Failure.ADDRESS_REFUSED),
            (f"http://nowhere.example/{SECRET}", Failure.DNS_FAILED),
            (f"http://inside.example/{SECRET}", Failure.ADDRESS_REFUSED),
            (f"http://127.0.0.1:1/{SECRET}", Failure.CONNECT_FAILED),
        ],
    )
    async def test_no_sentence_tells_a_secret(self, url: str, failure: Failure) -> None:
        async with door(Hanging({"inside.example": [["10.1.2.3"]]})) as sender:
            request = post(url, headers={"Authorization": SECRET}, body=SECRET.encode())
            outcome = await sender.send(request)
        assert outcome.failure is failure
        assert SECRET not in outcome.sentence
        assert "10.1.2.3" not in outcome.sentence
        assert SECRET not in repr(request)
        assert outcome.failure.endpoints

    async def test_plain_http_needs_the_setting(self) -> None:
        async with endpoint(answered) as there, door(notifier_plain_http=False) as sender:
            assert (await sender.send(post(there.url()))).failure is Failure.URL_REFUSED
        assert not there.connections


async def test_the_loop_is_the_deployed_ones() -> None:
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
