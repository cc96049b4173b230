"""Asks a simulated provider by an adapter's puller, as the reconciler does but for its pace."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from backhaul_channels import Adapter, Context, Ignored, NormalizedEvent, RawCallback, Source
from backhaul_channels.pull import Ask, Response, Span, answered, is_among


class HttpTransport:
    """Asks the simulator in place of the provider, as its ``origins`` lead. AssertionError for whatever is not among
    those that the puller says that it ``may_ask``."""

    def __init__(self, http: httpx.AsyncClient, origins: Mapping[str, str], may_ask: frozenset[str]) -> None:
        self._http = http
        self._origins = origins
        self._may_ask = may_ask
        self.asked = 0

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        # Of an address with a query of its own httpx makes one without, where it is given empty params.
        return await self._ask("GET", url, headers, params=dict(params) or None)

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        return await self._ask("POST", url, headers, data=dict(form))

    async def lines(self, url: str, headers: Mapping[str, str], skip: int, most: int) -> tuple[Sequence[bytes], bool]:
        response = answered(await self.get(url, {}, headers))
        lines = gzip.decompress(response.body).splitlines()[skip:]
        return lines[:most], len(lines) > most

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], **given: Any) -> Response:
        assert is_among(url, self._may_ask), url
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        target = self._origins[origin] + url.removeprefix(origin)
        self.asked += 1
        answer = await self._http.request(method, target, headers=dict(headers), **given)
        return Response(
            answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content
        )


class Reading:
    """What a channel is told: by pages, each of which may be asked for again."""

    def __init__(self, adapter: Adapter[Any], transport: HttpTransport, ask: Ask[Any, Any]) -> None:
        assert adapter.puller is not None
        self._adapter = adapter
        self._puller = adapter.puller
        self._ask = ask
        self.transport = transport
        self.waited_s = 0.0

    async def page(self, listing: str, span: Span, cursor: str = "") -> tuple[list[NormalizedEvent], str]:
        """The facts of one page, and where the next one is."""
        page = await self._puller.window(self.transport, self._ask, listing, span, cursor)
        self.waited_s = page.wait_s
        return self._facts(page.records), page.cursor

    async def window(self, listing: str, span: Span) -> list[NormalizedEvent]:
        """The facts of all pages."""
        facts, cursor = await self.page(listing, span)
        while cursor:
            more, cursor = await self.page(listing, span, cursor)
            facts += more
        return facts

    async def message(self, message_id: str) -> list[NormalizedEvent]:
        """The facts of one message."""
        return self._facts((await self._puller.message(self.transport, self._ask, message_id)).records)

    def _facts(self, records: Sequence[bytes]) -> list[NormalizedEvent]:
        context = Context(self._ask.settings, source=Source.BACKFILL)
        facts = []
        for record in records:
            for part in self._adapter.split(RawCallback("GET", "", [], record), self._ask.settings):
                fact = self._adapter.normalize(part, context)
                assert not isinstance(fact, Ignored)
                facts.append(fact)
        return facts
