"""The connection to NATS, and the streams that every installation has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import nats
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from backhaul_common.logs import get_logger
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM
from backhaul_common.settings import CommonSettings

DUPLICATE_WINDOW_S = 120.0
"""How long JetStream remembers a Nats-Msg-Id."""


async def connect(
    settings: CommonSettings,
    name: str,
    *,
    buffer_while_away: bool = True,
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """A client that reconnects for ever. Returns when the first connection stands; cancel it to give up.

    With ``buffer_while_away`` false, publishing while the connection is down raises OutboundBufferLimitError at once
    instead of keeping the message for later: what was answered as not stored must not be stored behind one's back.
    """
    log = get_logger()

    async def disconnected() -> None:
        log.warning("nats_disconnected")

    async def reconnected() -> None:
        log.info("nats_reconnected", server=str(client.connected_url and client.connected_url.netloc))
        if on_reconnect is not None:
            await on_reconnect()

    async def failed(exc: Exception) -> None:
        log.warning("nats_error", error=repr(exc))

    client = Client()
    options: dict[str, object] = {"pending_size": 0} if not buffer_while_away else {}
    if settings.nats_credentials_file is not None:
        options["user_credentials"] = str(settings.nats_credentials_file)
    delay_s = 0.1
    while True:
        try:
            await client.connect(
                servers=[url.strip() for url in settings.nats_url.split(",")],
                name=name,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; fractions work and are only not declared
                connect_timeout=2,
                ping_interval=10,
                max_outstanding_pings=2,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                error_cb=failed,
                **options,  # type: ignore[arg-type]  # the options' values are typed one by one
            )
            return client
        except (TimeoutError, OSError, nats.errors.Error) as exc:
            log.warning("nats_unreachable", error=repr(exc), retry_in_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 5.0)
            client = Client()


def stream_configs(settings: CommonSettings) -> list[StreamConfig]:
    """The streams as they must be. When full they refuse what is new, so that nothing stored is ever dropped early."""
    return [
        StreamConfig(
            name=name,
            description=description,
            subjects=[f"{name.lower()}.>"],
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            storage=StorageType.FILE,
            max_age=settings.stream_max_age_s,
            max_bytes=settings.stream_max_bytes,
            num_replicas=settings.stream_replicas,
            duplicate_window=min(DUPLICATE_WINDOW_S, settings.stream_max_age_s),
            allow_direct=True,
        )
        for name, description in (
            (CALLBACKS_STREAM, "Requests of providers, verbatim: callbacks.<queue path>.<channel>"),
            (EVENTS_STREAM, "Normalised facts: events.<queue path>.<channel>.<kind>"),
        )
    ]


async def ensure_streams(js: JetStreamContext, settings: CommonSettings) -> None:
    """Create the streams that are missing, and bring those that differ in line. Any service may call it at any time."""
    for config in stream_configs(settings):
        assert config.name is not None  # noqa: S101  # narrows the type; set in stream_configs
        try:
            present = (await js.stream_info(config.name)).config
        except NotFoundError:
            await js.add_stream(config)
            continue
        wanted = (config.max_age, config.max_bytes, config.num_replicas)
        if (present.max_age, present.max_bytes, present.num_replicas) != wanted:
            await js.update_stream(config)
