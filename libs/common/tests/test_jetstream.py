"""The connection to a real nats-server, and the streams in it."""

from __future__ import annotations

import asyncio

import pytest
from backhaul_common import jetstream
from backhaul_common.jetstream.streams import DUPLICATE_WINDOW_S
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM
from backhaul_common.settings import CommonSettings
from backhaul_local.nats_server import NatsServer
from backhaul_testing import broker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import OutboundBufferLimitError
from nats.js.api import DiscardPolicy, PersistMode, StorageType, StreamConfig
from nats.js.errors import APIError
from structlog.testing import capture_logs


def settings_of(server: NatsServer, **values: object) -> CommonSettings:
    return CommonSettings(nats_url=server.uri, **values)  # type: ignore[arg-type]  # each test gives its own fields


async def test_it_waits_for_a_server_that_comes_later(fresh_nats: NatsServer) -> None:
    await fresh_nats.kill()
    client = Client()
    with capture_logs() as lines:
        connecting = asyncio.create_task(jetstream.connect(settings_of(fresh_nats), "test", client=client))
        async with asyncio.timeout(60):
            while not lines:  # the first refusal is only seen in the log
                await asyncio.sleep(0.01)
        assert not connecting.done()
        await fresh_nats.start()
        async with asyncio.timeout(60):
            assert await connecting is client
    assert client.is_connected
    # One line says that it is away, however many attempts failed alike.
    assert [line["event"] for line in lines] == ["nats_error"]
    await client.close()


async def test_waiting_can_be_given_up(fresh_nats: NatsServer) -> None:
    await fresh_nats.kill()
    client = Client()
    others = asyncio.all_tasks()
    with capture_logs() as lines:
        connecting = asyncio.create_task(jetstream.connect(settings_of(fresh_nats), "test", client=client))
        async with asyncio.timeout(60):
            while not lines:  # As above: after a refusal it tries on.
                await asyncio.sleep(0.01)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await client.close()
    assert asyncio.all_tasks() == others


async def test_any_of_several_servers_will_do(fresh_nats: NatsServer) -> None:
    settings = CommonSettings(nats_url=f"nats://127.0.0.1:9 , {fresh_nats.uri}")
    with capture_logs():
        async with asyncio.timeout(60):
            client = await jetstream.connect(settings, "test")
    assert client.is_connected
    await client.close()


async def test_it_reconnects_and_a_failing_callback_does_not_stop_that(fresh_nats: NatsServer) -> None:
    back = asyncio.Event()
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def on_reconnect() -> None:
        back.set()
        raise RuntimeError("the refresh failed")

    async def hear(message: Msg) -> None:
        await heard.put(message.data)

    with capture_logs() as lines:
        client = await jetstream.connect(settings_of(fresh_nats), "test", on_reconnect=on_reconnect)
        await client.subscribe("news", cb=hear)
        for _ in range(2):
            back.clear()
            await fresh_nats.kill()
            await fresh_nats.start()
            async with asyncio.timeout(60):
                await back.wait()
                # Subscriptions stand again, and the connection carries.
                await client.publish("news", b"x")
                assert await heard.get() == b"x"
        async with asyncio.timeout(60):
            await client.close()
    events = [line["event"] for line in lines]
    assert events.count("on_reconnect_failed") == 2
    assert events.count("nats_reconnected") == 2
    assert events.count("nats_disconnected") >= 2


@pytest.mark.timed
async def test_without_a_buffer_publishing_fails_at_once_while_away(fresh_nats: NatsServer) -> None:
    back = asyncio.Event()

    async def on_reconnect() -> None:
        back.set()

    settings = settings_of(fresh_nats)
    with capture_logs():
        client = await jetstream.connect(settings, "test", buffer_while_away=False, on_reconnect=on_reconnect)
        js = client.jetstream()
        await jetstream.ensure_streams(js, settings)
        assert (await js.publish("callbacks.acme.twilio", b"1")).seq == 1
        await fresh_nats.kill()
        async with asyncio.timeout(60):
            while client.is_connected:  # its callback for this comes later than the state
                await asyncio.sleep(0.005)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(OutboundBufferLimitError):
            await js.publish("callbacks.acme.twilio", b"2")
        # At once, where a buffered publish would have waited out its timeout of five seconds.
        assert loop.time() - began < 1
        await fresh_nats.start()
        async with asyncio.timeout(10):
            await back.wait()
        assert (await js.publish("callbacks.acme.twilio", b"3")).seq == 2
        stored = [(await js.get_msg(CALLBACKS_STREAM, seq)).data for seq in (1, 2)]
    assert stored == [b"1", b"3"]
    await client.close()


async def test_with_a_buffer_what_was_published_while_away_arrives(fresh_nats: NatsServer) -> None:
    settings = settings_of(fresh_nats)
    with capture_logs():
        client = await jetstream.connect(settings, "test")
        js = client.jetstream()
        await jetstream.ensure_streams(js, settings)
        await fresh_nats.kill()
        async with asyncio.timeout(60):
            while client.is_connected:  # as above
                await asyncio.sleep(0.005)
        publishing = asyncio.create_task(js.publish("events.acme.twilio.sent", b"1", timeout=60))
        await asyncio.sleep(0)
        await fresh_nats.start()
        assert (await publishing).seq == 1
    await client.close()


async def test_streams_are_made_once_and_changed_when_they_differ(fresh_nats: NatsServer) -> None:
    client = await broker.connect(fresh_nats.uri)
    js = client.jetstream()
    first = settings_of(fresh_nats, stream_max_age_s=3600.5)
    # Several services start at the same time.
    await asyncio.gather(*(jetstream.ensure_streams(js, first) for _ in range(4)))
    for name in (CALLBACKS_STREAM, EVENTS_STREAM):
        config = (await js.stream_info(name)).config
        assert config.subjects == [f"{name.lower()}.>"]
        assert config.discard == DiscardPolicy.NEW
        assert config.storage == StorageType.FILE
        assert config.max_age == 3600.5
        assert config.max_bytes == -1
        assert config.duplicate_window == DUPLICATE_WINDOW_S
    await js.publish("callbacks.acme.twilio", b"kept")

    changes: asyncio.Queue[str] = asyncio.Queue()

    async def changed(message: Msg) -> None:
        await changes.put(message.subject)

    await client.subscribe("$JS.EVENT.ADVISORY.STREAM.UPDATED.>", cb=changed)
    await client.flush()
    await jetstream.ensure_streams(js, first)
    await client.flush()
    assert changes.empty(), "streams that are as they must be were updated"

    await jetstream.ensure_streams(js, settings_of(fresh_nats, stream_max_age_s=60, stream_max_bytes=1 << 20))
    info = await js.stream_info(CALLBACKS_STREAM)
    assert (info.config.max_age, info.config.max_bytes, info.config.duplicate_window) == (60, 1 << 20, 60)
    assert info.state.messages == 1
    await client.close()


async def test_a_stream_that_would_drop_is_put_right_and_the_operators_settings_stay(fresh_nats: NatsServer) -> None:
    client = await broker.connect(fresh_nats.uri)
    js = client.jetstream()
    await js.add_stream(
        StreamConfig(
            name=CALLBACKS_STREAM, subjects=["callbacks.old.>"], discard=DiscardPolicy.OLD, max_msg_size=2 << 20
        )
    )
    await jetstream.ensure_streams(js, settings_of(fresh_nats))
    config = (await js.stream_info(CALLBACKS_STREAM)).config
    assert config.discard == DiscardPolicy.NEW
    assert config.subjects == ["callbacks.>"]
    assert config.max_msg_size == 2 << 20
    assert config.allow_atomic
    await client.close()


async def test_a_stream_that_acknowledges_before_it_writes_is_brought_in_line_but_takes_no_batches(
    fresh_nats: NatsServer,
) -> None:
    """The server has one or the other; which, the operator chose."""
    client = await broker.connect(fresh_nats.uri)
    js = client.jetstream()
    await js.add_stream(StreamConfig(name=EVENTS_STREAM, subjects=["old.>"], persist_mode=PersistMode.ASYNC))
    await jetstream.ensure_streams(js, settings_of(fresh_nats))
    config = (await js.stream_info(EVENTS_STREAM)).config
    assert (config.subjects, config.persist_mode) == (["events.>"], PersistMode.ASYNC)
    assert not config.allow_atomic
    await client.close()


async def test_a_full_stream_refuses_what_is_new_and_keeps_what_is_stored(fresh_nats: NatsServer) -> None:
    client = await broker.connect(fresh_nats.uri)
    js = client.jetstream()
    await jetstream.ensure_streams(js, settings_of(fresh_nats, stream_max_bytes=4096))
    stored = 0

    async def fill() -> None:
        nonlocal stored
        for _ in range(10):
            await js.publish("callbacks.acme.twilio", b"x" * 1000)
            stored += 1

    with pytest.raises(APIError, match="maximum bytes exceeded"):
        await fill()
    state = (await js.stream_info(CALLBACKS_STREAM)).state
    assert 0 < stored < 5
    assert (state.messages, state.first_seq) == (stored, 1)
    # A smaller limit than what is stored drops nothing either.
    await jetstream.ensure_streams(js, settings_of(fresh_nats, stream_max_bytes=1024))
    assert (await js.stream_info(CALLBACKS_STREAM)).state.messages == stored
    # One full stream is not the other's business.
    assert (await js.publish("events.acme.twilio.sent", b"x")).seq == 1
    await client.close()
