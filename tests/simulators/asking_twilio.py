"""A client of Twilio's API that knows nothing but its documentation."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from backhaul_testing.apis.twilio_rows import Text


@contextmanager
def client(api: TwilioApi, account: TwilioAccount, auth: tuple[str, str] | None = None) -> Iterator[httpx.Client]:
    """Asks as ``account``, with its token, unless told otherwise."""
    # Nothing is encrypted, and to load certificates would take longer than what is asked.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with httpx.Client(base_url=api.url, verify=tls, auth=auth or (account.sid, account.auth_token)) as http:
        yield http


def path(account: TwilioAccount, rest: str = "Messages.json") -> str:
    """Of a resource of ``account``."""
    return f"/2010-04-01/Accounts/{account.sid}/{rest}"


def pages(http: httpx.Client, address: str, params: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Every page, each by the address that the one before has told."""
    answer = http.get(address, params=params)
    while True:
        page: dict[str, Any] = answer.raise_for_status().json()
        yield page
        if page["next_page_uri"] is None:
            return
        answer = http.get(page["next_page_uri"])


def sids(http: httpx.Client, account: TwilioAccount, **params: str) -> list[str]:
    """The SIDs of all messages that a list has; ``DateSent_before`` and ``_after`` stand for ``<`` and ``>``."""
    named = {name.replace("_before", "<").replace("_after", ">"): value for name, value in params.items()}
    return [row["sid"] for page in pages(http, path(account), named) for row in page["messages"]]


def delivered(account: TwilioAccount, at: datetime, to: str = "+15005550001", **fields: Any) -> Text:
    """A message that was created, sent and delivered within two seconds."""
    times = (at, at + timedelta(seconds=1), at + timedelta(seconds=2))
    return account.text(to, list(zip(times, ("queued", "sent", "delivered"), strict=True)), **fields)
