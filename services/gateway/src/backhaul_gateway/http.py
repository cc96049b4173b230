"""uvicorn's HTTP protocol, with the bound on a request's head that httptools lacks."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 << 10
"""Bytes that a head may take beyond the read in which it began. Before it is complete nobody knows whose request it is,
so nothing else bounds what a stranger may have kept here."""

_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\n"
    b"content-length: 34\r\n"
    b"connection: close\r\n\r\n"
    b"The headers are larger than 64 KB."
)


class BoundedHeadProtocol(HttpToolsProtocol):
    """Closes a connection whose request head does not end."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have arrived."""
        scope = self.scope  # uvicorn makes a new one when a request begins, and a new cycle when its head is complete.
        super().data_received(data)
        if self.scope is not scope:
            self._head_bytes = 0
        elif getattr(self.cycle, "scope", None) is not scope:  # There is no cycle until the first head is complete.
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_REFUSAL)
                self.transport.close()
