"""The connection to NATS, and the streams that every installation has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from backhaul_common.connection import MOST_OUTSTANDING_PINGS, PING_INTERVAL_S, Connection
from backhaul_common.logs import get_logger
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM
from backhaul_common.settings import CommonSettings

DUPLICATE_WINDOW_S = 120.0
"""How long JetStream remembers a Nats-Msg-Id."""


_KEPT_IN_LINE = (
    "description",
    "subjects",
    "discard",
    "max_age",
    "max_bytes",
    "num_replicas",
    "duplicate_window",
    "allow_direct",
)


async def connect(
    settings: CommonSettings,
    name: str,
    *,
    client: Client | None = None,
    buffer_while_away: bool = True,
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> Client:
    """A client that reconnects for ever. Returns when the first connection stands; cancel it to give up.

    Pass ``client`` to hold on to it before: nats-py connects the object that it is called on.
    With ``buffer_while_away`` false, publishing while the connection is down raises OutboundBufferLimitError at once
    instead of keeping the message for later: what was answered as not stored must not be stored behind one's back.
    A connection that carries nothing any more is given up within 10 seconds, and another of the servers is tried.
    """
    log = get_logger(component="nats")
    connecting = client if client is not None else Connection(keep_unsent=buffer_while_away)
    last_error = ""

    async def disconnected() -> None:
        log.warning("nats_disconnected")

    async def reconnected() -> None:
        nonlocal last_error
        last_error = ""
        log.info("nats_reconnected")
        if on_reconnect is not None:
            try:
                await on_reconnect()
            except Exception as exc:  # noqa: BLE001  # raised into nats-py, it would end the reconnecting for good
                log.warning("on_reconnect_failed", error=repr(exc))

    async def failed(exc: Exception) -> None:
        # While a server is away every attempt fails alike; one line says it.
        nonlocal last_error
        if repr(exc) != last_error:
            last_error = repr(exc)
            log.warning("nats_error", error=last_error)

    options: dict[str, object] = {} if buffer_while_away else {"pending_size": 0}
    if settings.nats_credentials_file is not None:
        options["user_credentials"] = str(settings.nats_credentials_file)
    pause_s = 0.1
    while True:
        try:
            await connecting.connect(
                servers=[url.strip() for url in settings.nats_url.split(",")],
                name=name,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; fractions work and are only not declared
                connect_timeout=2,
                ping_interval=PING_INTERVAL_S,  # type: ignore[arg-type]  # as above
                max_outstanding_pings=MOST_OUTSTANDING_PINGS,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                error_cb=failed,
                **options,  # type: ignore[arg-type]  # the options' values are typed one by one
            )
        except (OSError, TimeoutError, nats.errors.Error) as exc:
            await failed(exc)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)
        else:
            return connecting


def stream_configs(settings: CommonSettings) -> list[StreamConfig]:
    """The streams as they must be. When full they refuse what is new, and JetStream drops nothing before its age."""
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
        # What an operator set besides (placement, compression) stays as it is; storage and retention cannot change.
        wanted = present.evolve(**{name: getattr(config, name) for name in _KEPT_IN_LINE})
        if wanted != present:
            await js.update_stream(wanted)
