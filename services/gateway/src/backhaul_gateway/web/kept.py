"""What is kept of a provider's request: no credential, and nothing of its signature."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from backhaul_common.sizes import MAX_HEADER_BYTES

from backhaul_gateway.web.masking import masked_bytes
from backhaul_gateway.web.refusals import headers_too_large

_MAX_REMEMBERED_BYTES = 512


def kept_headers(headers: Iterable[tuple[bytes, bytes]], not_kept: Collection[bytes]) -> bytes:
    """The headers that are stored with the callback, one a line: without those that are ``not_kept``, not masked yet.
    TOO_LARGE when they exceed ``MAX_HEADER_BYTES``."""
    parts: list[bytes] = []
    for name, value in headers:
        if name not in not_kept:
            parts += name, b": ", value, b"\r\n"
    kept = b"".join(parts)
    if len(kept) > MAX_HEADER_BYTES:
        raise headers_too_large()
    return kept


def shown_address(address: bytes) -> str:
    """Path and query without credentials."""
    return _remembered_address(address) if len(address) <= _MAX_REMEMBERED_BYTES else _mask_address(address)


def _mask_address(address: bytes) -> str:
    return masked_bytes(address).decode("latin-1")


# A campaign's callbacks all come to one address. Long ones are not kept, so that nobody fills the memory with them.
_remembered_address = lru_cache(maxsize=4096)(_mask_address)
