"""One provider's POST on its way through the gateway."""

from __future__ import annotations

import time
from collections.abc import Sequence

from backhaul_common.tracing import trace_id_of
from starlette.types import Receive, Scope

_MAX_LENGTH_DIGITS = 20


class Request:
    """What came, and what has been found out about it so far. Made once a request, and passed along.

    What is not known yet is empty, or 0. ``outcome`` is the word under which the request is counted and logged; it
    stays empty until the request has been answered for, so that nothing passes for a success by default.
    """

    __slots__ = (
        "began",
        "callback_id",
        "channel",
        "complete_at",
        "declared",
        "headers",
        "label",
        "method",
        "named",
        "outcome",
        "query",
        "receive",
        "scope",
        "size",
        "tenant",
        "token",
        "traceparent",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.query: bytes = scope["query_string"]
        self.token: str | None = scope["path_params"].get("token")
        """The ingest token of the path; None where the path has none."""
        self.headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        # If a header is repeated, its last value counts here. A repeated credential is refused before anything is read.
        self.named = dict(self.headers)
        length = self.named.get(b"content-length", b"")
        self.declared = int(length[:_MAX_LENGTH_DIGITS]) if length.isdigit() else -1
        """Bytes that the head announces; -1 where it announces none. Reading the body shows whether that is true."""
        self.traceparent = ""
        self.tenant = ""
        """The tenant's id."""
        self.label = ""
        """The channel's label, as the query has it."""
        self.channel = ""
        """The channel's key."""
        self.callback_id = ""
        """Of the callback that was stored."""
        self.size = 0
        """Of the body, in bytes."""
        self.complete_at = 0.0
        """When the last byte was there, by ``time.perf_counter``."""
        self.outcome = ""

    @property
    def address(self) -> bytes:
        """Path and query as they were sent."""
        path: bytes = self.scope["raw_path"]
        return path + b"?" + self.query if self.query else path

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return trace_id_of(self.traceparent)
