"""Publishing with acknowledgements, on a real nats-server."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from backhaul_common import jetstream
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.jetstream import Message, MessageRefusedError, NotStoredError, Publisher, headers_of
from backhaul_common.jetstream.publishing import RETRY_S
from backhaul_local.nats_server import NatsServer
from nats.aio.client import Client
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig
from nats.js.errors import NotFoundError


async def put(publisher: Publisher, *payloads: bytes, stream: str = "S", timeout_s: float = 5) -> None:
    async with publisher.together(timeout_s) as send:
        for payload in payloads:
            await send([("s.x", payload, headers_of(stream, payload[:20].hex(), "00-trace"))])


async def held(js: JetStreamContext) -> int:
    return (await js.stream_info("S")).state.messages


async def test_what_is_sent_together_is_stored_when_the_block_ends(client: Client, publisher: Publisher) -> None:
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="S", subjects=["s.>"]))
    await put(publisher, b"a", b"b", b"c")
    assert await held(js) == 3
    message = await js.get_msg("S", 1)
    assert message.headers == {"Nats-Msg-Id": b"a".hex(), "Nats-Expected-Stream": "S", "traceparent": "00-trace"}
    # The same again is stored already, which is as good.
    await put(publisher, b"a")
    assert await held(js) == 3


async def test_a_message_is_sent_again_while_no_server_responds(client: Client, publisher: Publisher) -> None:
    """As between two leaders: here the stream does not exist yet."""
    js = client.jetstream()
    putting = asyncio.create_task(put(publisher, b"a"))
    async with asyncio.timeout(60):
        while client.stats["in_msgs"] < 2:  # Each is the answer that nobody responded.
            await asyncio.sleep(0.01)
    assert not putting.done()
    await js.add_stream(StreamConfig(name="S", subjects=["s.>"]))
    async with asyncio.timeout(60):
        await putting
    assert await held(js) == 1


class _Unheard(Message):
    async def answered(self, refusal: NotStoredError | MessageRefusedError | None) -> None: ...


class _GivingUp(Publisher):
    """Whoever waits gives a message up in the turn of the loop in which it is due again, right after that."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up = asyncio.Event()

    def _again(self, message: Any) -> None:
        super()._again(message)
        self.forget(message)
        self.given_up.set()


async def test_what_is_given_up_while_it_is_about_to_be_sent_again_is_not_sent(client: Client) -> None:
    publisher = _GivingUp()
    await publisher.attach(client)
    await publisher.send(_Unheard("s.x", b"a", headers_of("S", "a")))
    sent = client.stats["out_msgs"]
    async with asyncio.timeout(60):
        await publisher.given_up.wait()  # Nobody responded, so it was due again.
    (retry,) = publisher._tasks
    await retry
    assert client.stats["out_msgs"] == sent


async def test_where_nobody_responds_in_time_it_is_unavailable_and_not_sent_any_more(
    client: Client, publisher: Publisher
) -> None:
    with pytest.raises(BackhaulError) as caught:
        await put(publisher, b"a", timeout_s=0.2)
    assert caught.value.code is Code.UNAVAILABLE
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="S", subjects=["s.>"]))
    with pytest.raises(nats.errors.TimeoutError):
        await (await client.subscribe("s.>")).next_msg(timeout=3 * RETRY_S)
    assert await held(js) == 0


async def test_a_full_stream_is_unavailable_and_a_message_that_never_fits_is_refused(
    client: Client, publisher: Publisher
) -> None:
    js = client.jetstream()
    await js.add_stream(
        StreamConfig(name="S", subjects=["s.>"], max_msgs=1, max_msg_size=1000, discard=DiscardPolicy.NEW)
    )
    await put(publisher, b"a")
    with pytest.raises(BackhaulError) as caught:
        await put(publisher, b"b")
    assert caught.value.code is Code.UNAVAILABLE
    assert isinstance(caught.value.__cause__, NotStoredError)
    assert "maximum messages exceeded" in str(caught.value.__cause__)
    with pytest.raises(MessageRefusedError, match="exceeds maximum"):
        await put(publisher, bytes(2000))
    with pytest.raises(BackhaulError, match="JetStream is away"):  # Another stream than the one that is meant.
        await put(publisher, b"c", stream="T")


async def test_before_it_is_attached_and_while_the_server_is_away_it_is_unavailable(
    fresh_nats: NatsServer, client: Client, publisher: Publisher
) -> None:
    with pytest.raises(BackhaulError) as caught:
        await put(Publisher(), b"a")
    assert caught.value.code is Code.UNAVAILABLE
    await client.jetstream().add_stream(StreamConfig(name="S", subjects=["s.>"]))
    fresh_nats.pause()
    with pytest.raises(BackhaulError) as caught:
        await put(publisher, b"a", timeout_s=0.1)
    assert caught.value.code is Code.UNAVAILABLE
    # The acknowledgement that comes after all belongs to nobody, and disturbs nobody.
    fresh_nats.resume()
    await put(publisher, b"b")


async def test_translated_lets_through_what_waiting_does_not_mend() -> None:
    for passes in (NotFoundError(), MaxPayloadError(), ValueError("mine")):
        with pytest.raises(type(passes)):
            async with jetstream.translated():
                raise passes
    for away in (nats.errors.NoServersError(), TimeoutError(), ConnectionResetError()):
        with pytest.raises(BackhaulError) as caught:
            async with jetstream.translated("the broker"):
                raise away
        assert caught.value.code is Code.UNAVAILABLE
        assert caught.value.__cause__ is away
