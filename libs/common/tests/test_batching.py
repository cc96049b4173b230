"""Many messages as atomic batches, on a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import nats.errors
import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.jetstream import Message, MessageRefusedError, NotStoredError, Publisher, headers_of, parts
from backhaul_common.jetstream.batching import MAX_BATCH_BYTES, MAX_MEMBER_BYTES, MAX_MESSAGES, MIN_MESSAGES
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, StreamConfig
from structlog.testing import capture_logs

OPEN_AT_MOST = 50
"""The batches that nats-server has open of one stream."""


async def stream(client: Client, *, allow_atomic: bool = True, **more: object) -> None:
    await client.jetstream().add_stream(
        StreamConfig(name="S", subjects=["s.>"], allow_atomic=allow_atomic, **more)  # type: ignore[arg-type]  # per test
    )


async def put(publisher: Publisher, ids: Sequence[object], *, size: int = 10, timeout_s: float = 10) -> None:
    async with publisher.together(timeout_s) as send:
        await send([(f"s.{one}", b"x" * size, headers_of("S", f"id-{one}", "00-trace")) for one in ids])


async def held(client: Client) -> int:
    return (await client.jetstream().stream_info("S")).state.messages


async def subjects(client: Client) -> dict[str, int]:
    return (await client.jetstream().stream_info("S", subjects_filter=">")).state.subjects or {}


def each_once(ids: Sequence[object]) -> dict[str, int]:
    return {f"s.{one}": 1 for one in ids}


async def test_many_messages_are_stored_by_one_acknowledgement_each_as_its_own(
    client: Client, publisher: Publisher
) -> None:
    await stream(client)
    before = client.stats["in_msgs"]
    await put(publisher, range(MAX_MESSAGES))
    assert client.stats["in_msgs"] - before == 1
    assert await subjects(client) == each_once(range(MAX_MESSAGES))
    third = await client.jetstream().get_msg("S", 3)
    headers = third.headers or {}
    batch = headers.pop("Nats-Batch-Id")
    assert headers == {
        "Nats-Msg-Id": "id-2",
        "Nats-Expected-Stream": "S",
        "traceparent": "00-trace",
        "Nats-Batch-Sequence": "3",
    }
    assert third.data == b"x" * 10
    await put(publisher, range(MAX_MESSAGES, MAX_MESSAGES + MIN_MESSAGES))
    another = (await client.jetstream().get_msg("S", MAX_MESSAGES + 1)).headers or {}
    assert another["Nats-Batch-Id"] != batch


async def test_few_messages_go_singly(client: Client, publisher: Publisher) -> None:
    await stream(client)
    await put(publisher, range(MIN_MESSAGES - 1))
    assert await subjects(client) == each_once(range(MIN_MESSAGES - 1))
    assert "Nats-Batch-Id" not in ((await client.jetstream().get_msg("S", 1)).headers or {})


@given(
    st.lists(st.one_of(st.integers(0, MAX_MEMBER_BYTES + 1), st.just(100), st.just(MAX_MEMBER_BYTES)), max_size=200),
    st.integers(0, 1100),
)
def test_parts_hold_all_in_order_and_keep_to_the_limits(sizes: list[int], more: int) -> None:
    things = list(enumerate(sizes + [1] * more))
    found = list(parts(things, lambda thing: thing[1]))
    assert [thing for part in found for thing in part] == things
    for part in found:
        assert len(part) == 1 or MIN_MESSAGES <= len(part) <= MAX_MESSAGES
        assert len(part) == 1 or sum(size for _, size in part) <= MAX_BATCH_BYTES
    assert len(list(parts([MAX_MEMBER_BYTES] * MIN_MESSAGES, lambda size: size))) == 1


async def test_what_is_stored_already_does_not_keep_the_others(client: Client, publisher: Publisher) -> None:
    await stream(client)
    await put(publisher, [7])
    await put(publisher, range(100))
    assert await subjects(client) == each_once(range(100))
    # All of it again, as after an acknowledgement that was lost; and with one message twice in it.
    await put(publisher, range(100))
    await put(publisher, [*range(100, 150), 120])
    assert await subjects(client) == each_once(range(150))
    # That says nothing of the stream, and what comes next is a batch.
    before = client.stats["in_msgs"]
    await put(publisher, range(150, 200))
    assert client.stats["in_msgs"] - before == 1


async def test_two_copies_that_publish_the_same_at_once_store_it_once(
    fresh_nats: NatsServer, client: Client, publisher: Publisher
) -> None:
    await stream(client)
    second = await broker.connect(fresh_nats.uri)
    other = Publisher()
    await other.attach(second)
    for first in range(0, 1000, 100):
        ids = range(first, first + 100)
        await asyncio.gather(put(publisher, ids), put(other, list(reversed(ids))))
    assert await subjects(client) == each_once(range(1000))
    await second.close()


async def test_a_message_that_never_fits_is_refused_and_the_others_are_stored(
    client: Client, publisher: Publisher
) -> None:
    await stream(client, max_msg_size=1000)
    messages = [(f"s.{one}", b"x" * (2000 if one == 20 else 10), headers_of("S", f"{one}")) for one in range(40)]
    with capture_logs() as lines, pytest.raises(MessageRefusedError, match="exceeds maximum"):
        async with publisher.together(5) as send:
            await send(messages)
    assert await subjects(client) == each_once([one for one in range(40) if one != 20])
    assert [line["event"] for line in lines] == ["batch_refused"]


async def test_messages_that_nats_py_refuses_do_not_keep_the_others(client: Client, publisher: Publisher) -> None:
    await stream(client)
    for bad in ("s.a b", "s.a\r\nPUB s.evil 0\r\n", ""):
        with pytest.raises(nats.errors.BadSubjectError):
            async with publisher.together(5) as send:
                await send([(bad, b"x", headers_of("S", "bad")), *[(f"s.{n}", b"x", {}) for n in range(40)]])
    # A line's end in a header's value would begin another header; nats-py writes a blank.
    async with publisher.together(5) as send:
        await send([("s.h", b"x", {"a": "b\r\nNats-Rollup: all"}), *[(f"s.{n}", b"x", {}) for n in range(40)]])
    found = await subjects(client)
    assert found.keys() == {"s.h", *(f"s.{n}" for n in range(40))}
    last = await client.jetstream().get_last_msg("S", "s.h")
    assert last.headers == {"a": "b  Nats-Rollup: all"}


async def test_a_full_stream_stores_what_it_has_room_for_and_says_that_it_is_full(
    client: Client, publisher: Publisher
) -> None:
    await stream(client, max_msgs=50, discard=DiscardPolicy.NEW)
    await put(publisher, range(40))
    with capture_logs() as lines, pytest.raises(BackhaulError) as caught:
        await put(publisher, range(40, 80))
    assert caught.value.code is Code.UNAVAILABLE
    assert isinstance(caught.value.__cause__, NotStoredError)
    assert "maximum messages exceeded" in str(caught.value.__cause__)
    assert await subjects(client) == each_once(range(50))
    assert [line["event"] for line in lines] == ["batch_refused"]
    # For a while nobody tries a batch: each message is sent once, and not twice.
    before = client.stats["out_msgs"]
    with pytest.raises(BackhaulError):
        await put(publisher, range(80, 120))
    assert client.stats["out_msgs"] - before == 40


async def test_a_stream_that_takes_no_batches_gets_the_messages_singly(client: Client, publisher: Publisher) -> None:
    """One that an older version made, before any copy of this one has brought it in line."""
    await stream(client, allow_atomic=False)
    with capture_logs() as lines:
        await put(publisher, range(100))
    assert await subjects(client) == each_once(range(100))
    assert [line["event"] for line in lines] == ["batch_refused"]
    assert "atomic publish is disabled" in lines[0]["error"]


async def test_where_too_many_batches_are_open_messages_go_singly(client: Client, publisher: Publisher) -> None:
    await stream(client)
    for number in range(OPEN_AT_MOST):
        await client.publish("s.open", headers={"Nats-Batch-Id": f"open-{number}", "Nats-Batch-Sequence": "1"})
    with capture_logs() as lines:
        await put(publisher, range(100))
    assert await subjects(client) == each_once(range(100))
    assert [line["event"] for line in lines] == ["batch_refused"]


async def test_an_acknowledgement_of_the_last_message_alone_is_none_of_the_batch(
    client: Client, publisher: Publisher
) -> None:
    """As a server answers that passes over headers which it does not know."""
    heard: list[str] = []

    async def answer(message: Msg) -> None:
        heard.append(message.subject)
        if message.reply:
            await message.respond(b'{"stream":"S","seq":%d}' % len(heard))

    await client.subscribe("s.>", cb=answer)
    with capture_logs():
        await put(publisher, range(40))
    assert heard == [f"s.{one}" for one in range(40)] * 2


async def test_a_batch_is_sent_again_while_no_server_responds(client: Client, publisher: Publisher) -> None:
    putting = asyncio.create_task(put(publisher, range(100)))
    async with asyncio.timeout(60):
        while client.stats["in_msgs"] < 2:  # Each is the answer that nobody responded.
            await asyncio.sleep(0.01)
    assert not putting.done()
    with capture_logs():  # The stream may come in the middle of a batch.
        await stream(client)
        async with asyncio.timeout(60):
            await putting
    assert await subjects(client) == each_once(range(100))


class _Told(Message):
    def __init__(self, number: int, told: list[int], until: float) -> None:
        super().__init__(f"s.{number}", b"x", headers_of("S", f"id-{number}"), until)
        self._number = number
        self._told = told

    async def answered(self, refusal: NotStoredError | MessageRefusedError | None) -> None:
        assert refusal is None
        self._told.append(self._number)


async def test_what_is_given_up_is_told_nothing_and_not_sent_any_more(
    fresh_nats: NatsServer, client: Client, publisher: Publisher
) -> None:
    await stream(client)
    await put(publisher, [1])  # So that the batch is refused, and its messages go singly.
    told: list[int] = []
    now = asyncio.get_running_loop().time()
    messages = [_Told(number, told, until=now if number == 5 else now + 10) for number in range(40)]
    await publisher.send_all(messages)
    publisher.forget(messages[3])
    async with asyncio.timeout(60):
        while len(told) < 38:
            await asyncio.sleep(0.01)
    assert sorted(told) == [number for number in range(40) if number not in {3, 5}]
    assert await subjects(client) == each_once(sorted(told))
    publisher.forget(messages[5])
    # A batch of which nobody waits for anything leaves nothing behind.
    fresh_nats.pause()
    more = [_Told(number, told, now + 10) for number in range(100, 140)]
    await publisher.send_all(more)
    for message in more:
        publisher.forget(message)
    assert not publisher._in_flight
    # What is done is not sent, as where a whole list is sent again and some of it is answered meanwhile.
    sent = client.stats["out_msgs"]
    await publisher.send_all([*messages, *more])
    await publisher.send(messages[0])
    assert client.stats["out_msgs"] == sent
    assert not publisher._in_flight
    fresh_nats.resume()


async def test_before_it_is_attached_and_after_the_connection_closed_nothing_is_sent(
    fresh_nats: NatsServer, client: Client
) -> None:
    await stream(client)
    publisher = Publisher()
    with pytest.raises(BackhaulError, match="JetStream is away"):
        await put(publisher, range(40))
    own = await broker.connect(fresh_nats.uri, pending_size=0, allow_reconnect=False)
    await publisher.attach(own)
    await put(publisher, range(40))
    await fresh_nats.kill()
    async with asyncio.timeout(60):
        while own.is_connected:
            await asyncio.sleep(0.01)
    with pytest.raises(BackhaulError, match="JetStream is away"):
        await put(publisher, range(40, 80))
    await own.close()
    with pytest.raises(BackhaulError, match="JetStream is away"):
        await put(publisher, range(40, 80))
    await fresh_nats.start()
    again = await broker.connect(fresh_nats.uri)
    assert await subjects(again) == each_once(range(40))
    await again.close()


async def test_killed_right_after_the_acknowledgement_the_server_has_all_of_it(
    fresh_nats: NatsServer, client: Client, publisher: Publisher
) -> None:
    await stream(client)
    await put(publisher, range(MAX_MESSAGES), size=900)
    await fresh_nats.kill()
    await fresh_nats.start()
    again = await broker.connect(fresh_nats.uri)
    assert await subjects(again) == each_once(range(MAX_MESSAGES))
    await again.close()


async def test_killed_in_the_middle_the_server_has_none_of_it_or_all_and_the_retry_makes_it_whole(
    fresh_nats: NatsServer, client: Client
) -> None:
    await stream(client)
    count = 500
    for round_ in range(6):
        own = await broker.connect(fresh_nats.uri, allow_reconnect=False)
        publisher = Publisher()
        await publisher.attach(own)
        ids = range(round_ * count, (round_ + 1) * count)
        putting = asyncio.create_task(put(publisher, ids, size=900, timeout_s=0.5))
        await asyncio.sleep(0.005 * round_)  # Before, within or after the commit: nothing tells when that is.
        await fresh_nats.kill()
        with capture_logs():
            stored = not isinstance((await asyncio.gather(putting, return_exceptions=True))[0], BaseException)
        await own.close()
        await fresh_nats.start()
        own = await broker.connect(fresh_nats.uri)
        present = len((await subjects(own)).keys() & each_once(ids).keys())
        assert present == count or (present == 0 and not stored)
        publisher = Publisher()
        await publisher.attach(own)
        await put(publisher, ids, size=900)
        assert await subjects(own) == each_once(range((round_ + 1) * count))
        await own.close()
