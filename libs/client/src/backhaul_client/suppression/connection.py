"""How a call gets to a copy of suppression: targets, TLS, what travels with each call, and when it is repeated."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import grpc
from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceStub
from opentelemetry import trace

from backhaul_client.errors import BackhaulError, RateLimitedError, UnreachableError
from backhaul_client.retries import Retries
from backhaul_client.suppression.errors import error_of, repeatable

MAX_ANSWER_BYTES = 32 << 20
"""What is taken as one answer; a page ends long before."""

_FIRST_PAUSE_S = 0.02
_MAX_PAUSE_S = 1.0
_TAKEN_UP_S = 5.0

INTERVAL_S, PATIENCE_S = 4.0, 3.0
"""A connection over which nothing was heard for so long is asked whether it is alive, and how long the answer may take:
one that died without a word is noticed within seven seconds, also by a watch that hears nothing."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Internal services are never reached through a web proxy, whatever the environment names.
    ("grpc.enable_http_proxy", 0),
    # A name may stand for several copies.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files in PEM: ``ca_file`` proves the service; ``cert_file`` and ``key_file``, if given, this caller."""

    ca_file: str | Path
    cert_file: str | Path | None = None
    key_file: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) is not (self.key_file is None):
            raise ValueError("A certificate needs its key, and a key its certificate.")

    def credentials(self) -> grpc.ChannelCredentials:
        """As gRPC takes them. OSError for what cannot be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=Path(self.ca_file).read_bytes(),
            private_key=Path(self.key_file).read_bytes() if self.key_file else None,
            certificate_chain=Path(self.cert_file).read_bytes() if self.cert_file else None,
        )


class Target(NamedTuple):
    """One of the addresses that were given, with its channel."""

    channel: grpc.aio.Channel
    stub: Any


class Headers(NamedTuple):
    """What travels with a call, and the id of the trace that it belongs to; empty without one."""

    pairs: tuple[tuple[str, str], ...]
    trace_id: str


class Pauses:
    """The pauses between the tries of one call, until ``ends_at`` by the loop's clock."""

    def __init__(self, retries: Retries, ends_at: float) -> None:
        self._retries = retries
        self._ends_at = ends_at
        self._tries_left = retries.tries
        self._next_s = _FIRST_PAUSE_S

    async def after(self, error: BackhaulError) -> None:
        """Wait before the next try; raises ``error`` where there is none."""
        self._tries_left -= 1
        if not self._tries_left or not repeatable(error):
            raise error
        pause_s = self._next_s * (0.5 + self._retries.jitter())
        self._next_s = min(self._next_s * 2, _MAX_PAUSE_S)
        # When a copy that is away may be back says nothing of the others. A limit holds with all of them.
        if isinstance(error, RateLimitedError):
            pause_s = max(pause_s, error.retry_after_s or 0.0)
        if asyncio.get_running_loop().time() + pause_s >= self._ends_at:
            raise error
        await asyncio.sleep(pause_s)


class Connection:
    """The channels of one client. They belong to the event loop in which it is made."""

    _process: ClassVar[int] = 0
    """Which process has used gRPC. In one that was forked from it gRPC would hang: the thread that it waits for is not
    there."""

    def __init__(self, targets: str | Sequence[str], token: str, tls: Tls | None, retries: Retries) -> None:
        """``targets`` is host:port, several of them, or a name that gRPC resolves (``dns:///name:port``)."""
        self.targets = tuple(targets.split(",")) if isinstance(targets, str) else tuple(targets)
        if not self.targets or not all(self.targets):
            raise ValueError("A target is host:port, or dns:///name:port.")
        # What no header can hold is refused here: the error of whoever sends it would show the token.
        if token and (not token.isascii() or not token.isprintable() or " " in token):
            raise ValueError("The token holds a character that none has, such as a line's end.")
        self._pairs = (("authorization", f"Bearer {token}"),) if token else ()
        self._retries = retries
        if Connection._process not in (0, os.getpid()):
            raise RuntimeError("This process was forked from one that had made a client: make the first one after.")
        self._pid = Connection._process = os.getpid()
        self._closed = False
        credentials = tls.credentials() if tls else None
        self._all = [Target(channel, SuppressionServiceStub(channel)) for channel in self._channels(credentials)]
        self._next = 0

    def _channels(self, credentials: grpc.ChannelCredentials | None) -> Iterator[grpc.aio.Channel]:
        options = [
            *_OPTIONS,
            ("grpc.keepalive_time_ms", round(INTERVAL_S * 1000)),
            ("grpc.keepalive_timeout_ms", round(PATIENCE_S * 1000)),
            ("grpc.http2.ping_timeout_ms", round(PATIENCE_S * 1000)),
        ]
        for target in self.targets:
            if credentials is None:
                yield grpc.aio.insecure_channel(target, options=options)
            else:
                yield grpc.aio.secure_channel(target, credentials, options=options)

    async def close(self) -> None:
        """End every call, and the connections."""
        self._closed = True
        await asyncio.gather(*(target.channel.close() for target in self._all))

    async def unary(self, method: str, request: Any, ends_at: float) -> Any:
        """The answer to a call that may be repeated, until ``ends_at`` by the loop's clock. Raises a BackhaulError."""
        pauses: Pauses | None = None
        now = asyncio.get_running_loop().time
        headers = self.headers()
        while True:
            left_s = ends_at - now()
            if left_s <= 0:
                raise UnreachableError(f"{method}: there was no time left.")
            try:
                return await getattr(self.pick().stub, method)(request, timeout=left_s, metadata=headers.pairs)
            except grpc.aio.AioRpcError as exc:
                error = error_of(exc, method, headers.trace_id)
                error.__cause__ = exc
            except asyncio.CancelledError:
                self.check_cancelled(method)
                raise
            pauses = pauses or Pauses(self._retries, ends_at)
            await pauses.after(error)

    def pick(self) -> Target:
        """The next target in turn that is not known to be away. RuntimeError of a client that cannot be used."""
        if self._closed:
            raise RuntimeError("The client is closed.")
        if self._pid != os.getpid():
            raise RuntimeError("The client was made before this process was forked: fork first, then make clients.")
        count = len(self._all)
        first, self._next = self._next, (self._next + 1) % count
        for offset in range(count):
            target = self._all[(first + offset) % count]
            if count == 1 or target.channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return target
        return self._all[first]

    def headers(self) -> Headers:
        """The token, and the current span's trace."""
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return Headers(self._pairs, "")
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return Headers((*self._pairs, ("traceparent", traceparent)), f"{context.trace_id:032x}")

    def jittered(self, pause_s: float) -> float:
        """About ``pause_s``: clients that failed together must not come back together."""
        return pause_s * (0.5 + self._retries.jitter())

    @property
    def closed(self) -> bool:
        """Whether nothing can be called any more."""
        return self._closed

    @staticmethod
    def check_cancelled(method: str) -> None:
        """Called where a call was cancelled. gRPC tells whoever waits for a call that was closed as if their task had
        been cancelled. Nobody wants to end the task then, so it hears of it by an error."""
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise UnreachableError(f"{method}: the call was closed.") from None


async def taken_up(call: Any, method: str) -> None:
    """Returns when the service has begun with a stream, or the stream has ended."""
    try:
        async with asyncio.timeout(_TAKEN_UP_S):
            await call.initial_metadata()
    except TimeoutError:
        raise UnreachableError(f"{method}: the service did not take the call up in time.") from None
