"""Where a sample goes: the address that the provider has, which its signature may be over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote_plus, urlsplit

_TOKEN = "{ingest_token}"  # noqa: S105  # a place for one
_PATH = "/api/postevents"


class Address(NamedTuple):
    """A channel's. ``signed`` is the provider's, without a fragment. ``path``, with its query, leads to the same place
    behind any address of the installation's."""

    signed: str
    path: str


def address(callback_url: str, ingest_token: str = "", parameters: Sequence[str] = ()) -> Address:
    """Where callbacks go of the channel that has ``callback_url``, with parameters ``name=value`` of the tenant's own:
    by an ingest token, or without one, so that a header has to say whose they are."""
    url = callback_url.partition("#")[0]
    url = url.replace(_TOKEN, ingest_token) if ingest_token else url.replace(f"/in/{_TOKEN}", "")
    base, _, query = url.partition("?")
    pairs = [query, *("=".join(map(quote_plus, one.split("=", 1))) for one in parameters)]
    # In the order of their names: Twilio may sort what it has signed.
    signed = f"{base}?{'&'.join(sorted(filter(None, pairs)))}"
    parts = urlsplit(signed)
    within = parts.path.rfind(f"/in/{ingest_token}" if ingest_token else _PATH)
    return Address(signed, f"{parts.path[within:]}?{parts.query}")
