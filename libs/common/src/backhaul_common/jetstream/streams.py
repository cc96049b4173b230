"""The streams that every installation has, and a tenant's part of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM, NOTICES_STREAM
from backhaul_common.settings import StreamSettings

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
    "allow_atomic",
)


def stream_configs(settings: StreamSettings) -> list[StreamConfig]:
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
            allow_atomic=True,
        )
        for name, description in (
            (CALLBACKS_STREAM, "Requests of providers, verbatim: callbacks.<queue path>.<channel>"),
            (EVENTS_STREAM, "Normalised facts: events.<queue path>.<channel>.<kind>[.<code>]"),
            (NOTICES_STREAM, "What Backhaul itself has to say: notices.<queue path>.<type>"),
        )
    ]


# https://github.com/nats-io/nats-server/blob/main/server/errors.json: a server that is alone, and too few of them.
_TOO_FEW_SERVERS = (10074, 10005)


async def ensure_streams(js: JetStreamContext, settings: StreamSettings) -> None:
    """Create the streams that are missing, and bring those that differ in line. Any service may call it at any time.

    ConnectionError where there are fewer servers than each stream is to have copies: more of them may come.
    """
    try:
        await _ensure_streams(js, settings)
    except APIError as exc:
        if exc.err_code not in _TOO_FEW_SERVERS:
            raise
        raise ConnectionError(
            f"BACKHAUL_STREAM_REPLICAS is {settings.stream_replicas}, and NATS has too few servers for that "
            f"({exc.description}). Add servers to its cluster, or set fewer copies on every service."
        ) from exc


async def _ensure_streams(js: JetStreamContext, settings: StreamSettings) -> None:
    for config in stream_configs(settings):
        assert config.name is not None  # noqa: S101  # narrows the type; set in stream_configs
        try:
            present = (await js.stream_info(config.name)).config
        except NotFoundError:
            await js.add_stream(config)
            continue
        # What an operator set besides (placement, compression) stays as it is; storage and retention cannot change.
        wanted = present.evolve(**{name: getattr(config, name) for name in _KEPT_IN_LINE})
        if present.persist_mode == PersistMode.ASYNC:
            # The server refuses both together. Where it takes no batches, messages are published singly.
            wanted.allow_atomic = present.allow_atomic
        if wanted != present:
            await js.update_stream(wanted)


async def ends(js: JetStreamContext, streams: Iterable[str]) -> dict[str, int]:
    """The last position of each of ``streams``; 0 for one that is not there."""
    found = dict.fromkeys(streams, 0)
    for stream in found:
        with suppress(NotFoundError):
            found[stream] = (await js.stream_info(stream)).state.last_seq
    return found


async def subjects(js: JetStreamContext, stream: str, within: str) -> Mapping[str, int]:
    """The subjects of ``stream`` that the filter ``within`` covers, each with its number of messages."""
    return (await js.stream_info(stream, subjects_filter=within)).state.subjects or {}


async def holds_messages(js: JetStreamContext, parts: Mapping[str, str]) -> bool:
    """Whether there is any message in ``parts``, which are filters of subjects by stream."""
    for stream, within in parts.items():
        with suppress(NotFoundError):
            if await subjects(js, stream, within):
                return True
    return False


async def purge(js: JetStreamContext, parts: Mapping[str, str], up_to: Mapping[str, int]) -> None:
    """Delete ``parts``, filters of subjects by stream, up to the positions ``up_to``, also by stream. Idempotent."""
    for stream, within in parts.items():
        # The broker takes 0 for no limit. Its limit is the first position that stays.
        if up_to[stream]:
            with suppress(NotFoundError):
                await js.purge_stream(stream, seq=up_to[stream] + 1, subject=within)


def lacks_room(info: StreamInfo, size: int) -> str:
    """``"5 of at most 8 bytes"`` where the stream has no room for one more message of ``size`` bytes; else empty."""
    config, state = info.config, info.state
    if config.discard != DiscardPolicy.NEW:
        return ""
    for present, more, limit, unit in (
        (state.bytes, size, config.max_bytes, "bytes"),
        (state.messages, 1, config.max_msgs, "messages"),
    ):
        if limit is not None and 0 < limit < present + more:
            return f"{present} of at most {limit} {unit}"
    return ""
