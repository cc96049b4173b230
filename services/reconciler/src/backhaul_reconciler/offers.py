"""What a provider does not offer to a channel's account, by the channel's document: it is asked for once a day, and
nothing waits for it meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from backhaul_channels.pull import Listing
from backhaul_common.documents import Document

from backhaul_reconciler.model import DAY_US

SINGLE: Final = "single messages"
"""Beside the names of lists, which have no spaces: messages that are asked for one by one."""

AGAIN_US: Final = DAY_US
"""After which it is asked for again: somebody may have bought it."""


def is_offered(row: Document, name: str) -> bool:
    """Whether it was not refused for good when it was asked for last."""
    return name not in row.get("never", {})


def is_asked(row: Document, name: str, now_us: int) -> bool:
    """Whether it is to be asked for now."""
    return is_offered(row, name) or now_us - int(row["never"][name]["at_us"]) >= AGAIN_US


def refused(row: Document, name: str, why: str, now_us: int) -> Mapping[str, Any]:
    """What is stored when the provider says that it will never tell it."""
    return {"never": {**row.get("never", {}), name: {"text": why, "at_us": now_us}}}


def told(row: Document, name: str) -> Mapping[str, Any]:
    """What is stored when it has told it; nothing where it was offered before."""
    if is_offered(row, name):
        return {}
    return {"never": {other: one for other, one in row["never"].items() if other != name}}


def why_not(row: Document, name: str) -> str:
    """What the provider said of what it does not offer."""
    return str(row["never"][name]["text"])


def lacking(row: Document) -> str:
    """What is not offered, and why, for people; empty where all is."""
    by_reason: dict[str, list[str]] = {}
    for name, one in sorted(row.get("never", {}).items()):
        by_reason.setdefault(one["text"], []).append(name if name == SINGLE else f"the list {name}")
    return " ".join(f"Of this account is not told: {', '.join(names)}. {text}" for text, names in by_reason.items())


def discovered_us(row: Document, listings: Iterable[Listing]) -> int:
    """Up to when all lists are known that are offered; 0 where one of them is not known at all, or none is offered."""
    lists = row.get("lists", {})
    offered = [one.name for one in listings if one.discovers and is_offered(row, one.name)]
    return min((int(lists.get(name, {}).get("to_us", 0)) for name in offered), default=0)
