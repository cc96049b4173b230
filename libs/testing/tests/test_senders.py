"""The stand-ins for providers sign as the providers document it, and tell what became of a post."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

from backhaul_testing.posts import Post
from backhaul_testing.sendgrid import OAuthClient, SendGridSimulator, bearing
from backhaul_testing.twilio import RetryRules, TwilioSimulator
from backhaul_testing.wire import Wire, encoded
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key


def test_twilio_signs_as_documented() -> None:
    # The example of https://www.twilio.com/docs/usage/webhooks/webhooks-security
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675310",
        "Digits": "1234",
        "From": "+14158675310",
        "To": "+18005551212",
    }
    post = TwilioSimulator("12345").form("https://example.com/myapp.php?foo=1&bar=2", fields)
    assert dict(post.headers)["X-Twilio-Signature"] == "L/OH5YylLD5NRKLltdqwSvS0BnU="


def test_a_call_is_told_alike_by_a_form_and_by_a_stream() -> None:
    twilio, moment = TwilioSimulator("12345"), "Tue, 25 Nov 2025 10:00:00 +0000"
    post = twilio.call("https://example.com/in", "CA1", "busy", 2, Timestamp=moment, SipResponseCode="486")
    event = twilio.call_event("CA1", "busy", 2, Timestamp=moment, SipResponseCode="486")
    assert event["type"] == "com.twilio.voice.status-callback.call.completed"
    assert dict(parse_qsl(post.body.decode())) == event["data"]["request"]["parameters"]
    assert dict(parse_qsl(twilio.machine("https://example.com/in", "CA1", "human").body.decode()))["CallSid"] == "CA1"
    recorded = dict(parse_qsl(twilio.recording("https://example.com/in", "CA1", "RE1").body.decode()))
    assert (recorded["CallSid"], recorded["RecordingStatus"]) == ("CA1", "completed")


def test_sendgrid_signs_the_time_and_the_body() -> None:
    sendgrid = SendGridSimulator()
    post = sendgrid.batch("https://example.com/in", [sendgrid.event("m", "open"), sendgrid.event("m", "click")])
    headers = {name.removeprefix("X-Twilio-Email-Event-Webhook-"): value for name, value in post.headers}
    key = load_der_public_key(base64.b64decode(sendgrid.public_key))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signed = headers["Timestamp"].encode() + post.body
    key.verify(base64.b64decode(headers["Signature"]), signed, ec.ECDSA(hashes.SHA256()))


def test_sendgrid_asks_for_a_token_as_the_rfc_has_it() -> None:
    client = OAuthClient("my client", "a:b&c=d")
    by_header, by_form = (client.asking("https://example.com/token#x", by_form=by_form) for by_form in (False, True))
    assert by_header.url == by_form.url == "https://example.com/token"
    basic = dict(by_header.headers)["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(basic) == b"my+client:a%3Ab%26c%3Dd"
    assert by_header.body == b"grant_type=client_credentials"
    assert "Authorization" not in dict(by_form.headers)
    assert by_form.body == b"grant_type=client_credentials&client_id=my+client&client_secret=a%3Ab%26c%3Dd"
    assert dict(bearing(by_header, "t").headers)["Authorization"] == "Bearer t"
    assert "a:b" not in repr(client)


def test_user_and_fragment_of_an_address_are_neither_signed_nor_sent() -> None:
    plain, decorated = "https://a.example/in?b=c", "https://user:pass@a.example/in?b=c#rc=2&rp=all"
    one, other = (TwilioSimulator("12345").form(address, {"A": "b"}) for address in (plain, decorated))
    assert dict(one.headers)["X-Twilio-Signature"] == dict(other.headers)["X-Twilio-Signature"]
    assert other.url == "https://user:pass@a.example/in?b=c"
    rules = RetryRules.of(decorated)
    assert (rules.count, rules.allow(503), RetryRules().allow(503)) == (2, True, False)


def test_a_post_on_the_wire() -> None:
    post = Post("http://a.example:81/in?b=%20c", (("X-One", "1"),), b"body")
    assert encoded(post) == (
        b"POST /in?b=%20c HTTP/1.1\r\nHost: a.example:81\r\nX-One: 1\r\nContent-Length: 4\r\n\r\nbody"
    )


@asynccontextmanager
async def serving(answers: Callable[[int], bytes]) -> AsyncIterator[tuple[Post, list[int]]]:
    """A server that gives each request of a connection the bytes of ``answers``, and hangs up where there are none;
    a post to it, and how many connections it has had."""
    seen, connections = [0], [0]
    handlers: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        connections[0] += 1
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            seen[0] += 1
            answer = answers(seen[0])
            writer.write(answer)
            if not answer:
                break
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield Post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", (), b""), connections
        await asyncio.gather(*(handler for handler in handlers if handler is not None))


async def test_one_connection_serves_until_the_server_ends_it() -> None:
    def answers(number: int) -> bytes:
        closing = b"Connection: close\r\n" if number == 2 else b""
        return b"HTTP/1.1 503 Away\r\nContent-Length: 2\r\n" + closing + b"\r\nno"

    async with serving(answers) as (post, connections), Wire() as wire:
        assert [await wire.once(post) for _ in range(3)] == [503, 503, 503]
        assert connections == [2]


async def test_a_connection_that_is_cut_is_a_read_error() -> None:
    async with serving(lambda _: b"") as (post, _), Wire() as wire:
        assert await wire.once(post) == "ReadError"


async def test_nobody_there_is_a_connect_error() -> None:
    async with serving(lambda _: b"") as (post, _):
        pass
    async with Wire() as wire:
        assert await wire.once(post) == "ConnectError"
