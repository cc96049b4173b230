"""A client of SendGrid's API that knows nothing but its documentation."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import httpx
from backhaul_testing.apis.sendgrid import SendGridApi


@contextmanager
def client(api: SendGridApi, key: str, **headers: str) -> Iterator[httpx.Client]:
    """Asks with the API key ``key``."""
    # Nothing is encrypted, and to load certificates would take longer than what is asked.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with httpx.Client(base_url=api.url, verify=tls, headers={"Authorization": f"Bearer {key}", **headers}) as http:
        yield http


def between(begin: datetime, end: datetime) -> str:
    """The query for mails whose last event is within a span."""
    moments = [f'TIMESTAMP "{moment:%Y-%m-%dT%H:%M:%SZ}"' for moment in (begin, end)]
    return f"last_event_time BETWEEN {' AND '.join(moments)}"


def messages(http: httpx.Client, query: str, limit: int = 1000) -> list[dict[str, Any]]:
    """What the Email Activity lists."""
    answer = http.get("/v3/messages", params={"query": query, "limit": str(limit)})
    found: list[dict[str, Any]] = answer.raise_for_status().json()["messages"]
    return found


def suppressions(http: httpx.Client, name: str, **params: int) -> list[dict[str, Any]]:
    """All rows of a list, page by page of ``limit``, 500 unless told otherwise."""
    limit, found = params.get("limit", 500), list[dict[str, Any]]()
    while True:
        asked = {**params, "limit": limit, "offset": len(found)}
        rows = http.get(f"/v3/suppression/{name}", params=asked).raise_for_status().json()
        found += rows
        if len(rows) < limit:
            return found
