"""How much of what is sent here may be under way. The API has bounds of its own, but a form is held here before it.

The console runs in the process that takes callbacks in: neither strangers nor visitors may take its memory, its time or
its connections.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from backhaul_console.texts import _

MAX_BODY = "backhaul.max_body"
"""By which name the server in front takes other bodies than it does otherwise; see ``Page``."""
STEADY_BODY = "backhaul.steady_body"
"""By which name it takes one for as long as it keeps coming."""
STRANGERS_BODY = "backhaul.strangers_body"
"""By which name it ends a body's connection where it needs the place: nobody knows whose it is."""

MAX_FORM_BYTES = 256 << 10
"""What the server in front takes where nothing else is said."""
MAX_FIELDS = 1000
MAX_FILES = 2

STRANGERS = 64
"""Forms of whoever is not signed in that are read at once."""
STRANGERS_S = 5.0
"""How long one may take. A browser sends it with its head."""
STRANGERS_BYTES = 16 << 10
STRANGERS_FIELDS = 16

FORMS = 8
"""Of one session at once, until they are answered."""
IMPORTS = 2
"""Files of one tenant that are passed on at once."""
ROOM_BYTES = 64 << 20
"""For all forms under way together."""
SHARE_BYTES = 16 << 20
"""For those of one tenant, or of one of the platform team."""
LEAST_BYTES = 64 << 10
"""What the smallest form counts, for what it costs beside its bytes."""


async def form_of(request: Request, max_fields: int = MAX_FIELDS, max_files: int = MAX_FILES) -> FormData:
    """The form that was sent, read once. 400 for more fields than a page has: to take them apart takes long, empty ones
    too."""
    in_parts = request.headers.get("content-type", "").lower().startswith("multipart/")
    if not in_parts and (await request.body()).count(b"&") >= max_fields:
        raise HTTPException(400, _("The form has more fields than its page."))
    return await request.form(max_fields=max_fields, max_files=max_files)


class Strangers:
    """Reads forms before anybody is known. Where many are read at once the oldest is given up for the newest: one that
    a browser has sent is read in a moment, so those that stay do it on purpose."""

    def __init__(self) -> None:
        self._reading: dict[asyncio.Timeout, None] = {}

    async def form(self, request: Request) -> FormData:
        """What was sent. Raises the answer where it is too large, or does not come."""
        request.scope[MAX_BODY] = STRANGERS_BYTES
        if len(self._reading) >= STRANGERS:
            oldest = next(iter(self._reading))
            del self._reading[oldest]
            if not oldest.expired():
                oldest.reschedule(0)
        bound = asyncio.timeout(STRANGERS_S)
        try:
            async with bound:
                self._reading[bound] = None
                return await form_of(request, STRANGERS_FIELDS, max_files=0)
        except TimeoutError:
            raise HTTPException(408, _("The form did not come in time. Send it once more.")) from None
        finally:
            self._reading.pop(bound, None)


class Visitors:
    """Counts what those who are signed in have under way."""

    def __init__(self) -> None:
        self._forms: Counter[str] = Counter()
        self._imports: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    @contextmanager
    def form(self, scope: Scope, session: str, whose: str) -> Iterator[None]:
        """While a form of ``session`` is read and answered. Raises the answer where there are too many."""
        size = self._size(scope)
        if self._forms[session] >= FORMS or self._bytes[whose] + size > SHARE_BYTES:
            raise HTTPException(429, _("Other forms of yours are still under way. Send this one again in a moment."))
        if self._bytes.total() + size > ROOM_BYTES:
            raise HTTPException(503, _("Too many forms are under way. Send this one again in a moment."))
        with _counted(self._forms, session, 1), _counted(self._bytes, whose, size):
            yield

    @contextmanager
    def file(self, whose: str) -> Iterator[None]:
        """While a file is passed on."""
        if self._imports[whose] >= IMPORTS:
            raise HTTPException(429, _("Other files are still under way. Send this one when they have come."))
        with _counted(self._imports, whose, 1):
            yield

    @staticmethod
    def _size(scope: Scope) -> int:
        most: int = scope.get(MAX_BODY, MAX_FORM_BYTES)
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        # What is larger than that is refused as soon as it is read.
        return max(min(int(length), most) if length.isdigit() else most, LEAST_BYTES)


@contextmanager
def _counted(counter: Counter[str], key: str, count: int) -> Iterator[None]:
    counter[key] += count
    try:
        yield
    finally:
        counter[key] -= count
        if not counter[key]:
            del counter[key]
