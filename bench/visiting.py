"""What a page of the console takes in a full store, and how long it keeps the gateway from its callbacks."""

from __future__ import annotations

import time

import httpx
from backhaul_console.pages import ROUTES
from generators import LoadError
from installation import Installation
from report import Report

_VISITS = 20
_SAME_SITE = {"sec-fetch-site": "same-origin"}
_ANSWERED, _AWAY, _OF_ONE = 200, (501, 503), (404, 422)
_MS, _KB = "≤ 200", "≤ 100"


async def measure(site: Installation, report: Report, tenant: str, key: str, *, rounds: int, stored: int) -> None:
    """``console_page_…``: each page of ``tenant`` that can be opened without naming anything, one at a time. Those of
    services that do not run are left out, and those of one thing that the query names."""
    paths = [
        f"/console/t/{tenant}{page.path}"
        for page in ROUTES
        if page.method == "GET" and page.side == "tenant" and "{" not in page.path
    ]
    took: dict[str, list[float]] = {}
    blocked: dict[str, list[float]] = {}
    sizes: dict[str, float] = {}
    async with httpx.AsyncClient(base_url=site.stack.gateway_url, headers=_SAME_SITE, timeout=60) as browser:
        signed_in = await browser.post("/console/sign-in", data={"credential": key})
        if not signed_in.has_redirect_location:
            raise LoadError(f"nobody could sign in: {signed_in.status_code} {signed_in.text[:500]!r}")
        for _ in range(rounds):
            for path in paths:
                if (size := await _opened(browser, path)) is None:
                    continue
                sizes[path] = size / 1024
                before, times = site.meter.read(), []
                for _ in range(_VISITS):
                    began = time.perf_counter()
                    await _opened(browser, path)
                    times.append((time.perf_counter() - began) * 1000)
                took.setdefault(path, []).append(sorted(times)[_VISITS // 2])
                # Seconds for a thousand are milliseconds for one.
                blocked.setdefault(path, []).append(site.meter.read().per_1000(before, _VISITS).get("gateway", 0.0))
    slowest, longest, largest = (max(of, key=lambda path: max(of[path])) for of in (took, blocked, _each(sizes)))
    note = f"of {len(took)} pages the {{}} one, {{}}; {stored:,} events stored, one visit at a time"
    report.add("console_page_ms", took[slowest], "ms", aim=_MS, note=note.format("slowest", slowest))
    report.add("console_page_gateway_ms", blocked[longest], "ms of CPU", note=note.format("dearest", longest))
    report.add("console_page_kb", [sizes[largest]], "KB", aim=_KB, note=note.format("largest", largest))


def _each(sizes: dict[str, float]) -> dict[str, list[float]]:
    return {path: [size] for path, size in sizes.items()}


async def _opened(browser: httpx.AsyncClient, path: str) -> int | None:
    """The bytes of a page; None for one whose service is not there, that is of one thing, or that is no page."""
    async with browser.stream("GET", path) as answer:
        if answer.status_code in _AWAY + _OF_ONE or not answer.headers.get("content-type", "").startswith("text/html"):
            return None
        body = await answer.aread()
    if answer.status_code != _ANSWERED:
        raise LoadError(f"{path} was to show a page: {answer.status_code} {body[:500]!r}")
    return len(body)
