"""Pages that several subjects have: one that asks first, and one that shows a secret once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from backhaul_console.visits import Visit


def asks(
    visit: Visit,
    title: str,
    *texts: str,
    action: str,
    label: str,
    back: str,
    kind: str = "danger",
    fields: Sequence[tuple[str, str]] = (),
    figures: Sequence[tuple[str, object]] = (),
) -> Response:
    """Before what destroys, or concerns many: what it will do, with a form to ``action`` that carries ``fields`` and
    nothing else. An empty ``action`` has no form: there is nothing to do."""
    values: dict[str, Any] = {
        "title": title,
        "texts": texts,
        "action": action,
        "label": label,
        "back": back,
        "kind": kind,
    }
    return visit.page("asking.html", **values, fields=fields, figures=figures)


def shows_once(visit: Visit, title: str, secrets: Sequence[tuple[str, str]], *texts: str, back: str) -> Response:
    """The answer to the form that made ``secrets``, pairs of name and text. No address leads to it, and the edge has
    nobody keep it."""
    return visit.page("once.html", title=title, secrets=secrets, texts=texts, back=back)
