"""The log of changes: what an entry says. docs/decisions/0042 tells why it is written twice, by changestore.py.

The gateway logs what is asked of it over HTTP and reads the log; services log what service accounts ask of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from backhaul_common.documents import Document

MASK = "***"

MAX_SIDE_BYTES = 8 << 10
"""Of what was before, and of what is after, as JSON. Larger fields are left out, and the entry says so."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What an entry says of a request: ``kind`` is what changes. Of the body ``shows`` are the fields that are shown,
    with all that is in them, and ``hides`` those that are masked, as the address in a path is; both by paths such as
    ``http.method``. What is in neither is left out. Of a ``file`` it has size and hash."""

    kind: str
    shows: frozenset[str] = frozenset()
    hides: frozenset[str] = frozenset()
    file: bool = False

    @property
    def has_body(self) -> bool:
        """Whether anything of the request's body is kept."""
        return bool(self.shows or self.hides)

    def asked(self, body: Mapping[str, Any], above: str = "") -> dict[str, Any]:
        """``body``, masked."""
        found: dict[str, Any] = {}
        for name, value in body.items():
            path = above + name
            if path in self.shows:
                found[name] = _origin(value) if name == "url" else value
            elif path in self.hides:
                found[name] = MASK if value else value
            elif isinstance(value, dict) and self.looks_into(path):
                found[name] = self.asked(value, f"{path}.")
        return found

    def decides(self, path: str) -> bool:
        """Whether it says what is kept of this field."""
        return path in self.shows or path in self.hides

    def looks_into(self, path: str) -> bool:
        """Whether it says what is kept of fields in this one."""
        return any(one.startswith(f"{path}.") for one in self.shows | self.hides)


def logged(kind: str, shows: str = "", hides: str = "", *, file: bool = False) -> Logged:
    """One whose fields are words of a text."""
    return Logged(kind, frozenset(shows.split()), frozenset(hides.split()), file)


def _origin(url: object) -> str:
    """Scheme and host of an address that is called: the path of some is a secret, and so may be the rest."""
    try:
        parts = urlsplit(str(url))
        return f"{parts.scheme}://{parts.hostname}/{MASK}"
    except ValueError:
        return MASK


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of a change before it. ``registration`` is that of the tenant that it is about, both empty where it
    is about none; ``own`` says that it is the tenant itself who changes. ``application`` is the id of the entry of the
    request that changes this beside other things; empty of a request's own entry."""

    id: str
    at: datetime
    author: str
    client: str
    tenant_id: str
    registration: str
    own: bool
    action: str
    kind: str
    target: Mapping[str, str]
    trace_id: str
    application: str = ""


def time_of(id_: str) -> datetime:
    """When an entry was begun, as its id says it, by which entries are in order."""
    return datetime.fromtimestamp((int(id_, 16) >> 80) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change: the answer's status, as HTTP has it, and texts of JSON, empty for what was or is not.
    Where ``tenant`` is given, it is the id and registration of the tenant, known only now."""

    status: int
    target: Mapping[str, str]
    before: str
    after: str
    cut: bool
    tenant: tuple[str, str] | None = None


class ChangeStore(Protocol):
    """Where entries are kept. UNAVAILABLE from every method while it is away."""

    async def begin(self, begun: Begun, outcome: Outcome | None = None) -> None:
        """Return when the entry is durable. What a tenant changes of itself is refused once it is being deleted."""
        ...

    async def complete(self, id_: str, outcome: Outcome) -> None:
        """Add what became of it. One that is gone with its tenant stays gone."""
        ...


def bounded(side: Document | None) -> tuple[str, bool]:
    """The JSON of ``side``, and whether fields were left out: the largest, until the rest is small enough."""
    if side is None:
        return "", False
    texts = {name: orjson.dumps(value) for name, value in side.items()}
    sizes = sorted(texts, key=lambda name: len(texts[name]), reverse=True)
    total = sum(len(name) + len(text) + 4 for name, text in texts.items()) + 2
    cut = set()
    for name in sizes:
        if total <= MAX_SIDE_BYTES:
            break
        cut.add(name)
        total -= len(texts[name])
    shown = {name: value for name, value in side.items() if name not in cut}
    return orjson.dumps(shown).decode(), bool(cut)
