"""The reads of events, messages and counts as anybody would write them who had all rows in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backhaul_channels import EventKind
from backhaul_common.documents import Document
from backhaul_normalizer.facts import message_key
from backhaul_normalizer.timeline import in_order
from backhaul_proto.event.v1.event_pb2 import Event
from books import Books

Span = tuple[int, int]


class BookReads:
    """``MongoReads`` of what ``books`` hold, all of it on one page. ``most`` events are in a timeline."""

    def __init__(self, books: Books, most: int) -> None:
        self._books = books
        self._most = most

    def events(self, filters: Document, span: Span) -> list[Document]:
        found = [row for row in self._counting() if _within(row["received_at_us"], span)]
        return [_shown(row) for row in _newest(found, "received_at_us") if self._fits(row, filters)]

    def replies(self, filters: Document, span: Span) -> list[Document]:
        found = [row for row in self._counting() if row["kind"] == "inbound" and _within(row["received_at_us"], span)]
        return [_shown(row) for row in _newest(found, "received_at_us") if _has(row, filters)]

    def messages(self, filters: Document, span: Span) -> list[Document]:
        found = [row for row in self._books.message_rows.values() if _within(row["created_at_us"], span)]
        return [_read(row) for row in _newest(found, "created_at_us") if _has(row, filters)]

    def message(self, channel: str, name: str) -> tuple[Document, list[Document], bool] | None:
        """LookupError where several messages have this reference."""
        message = self._named(channel, name)
        if message is None:
            return None
        own = [row for row in self._counting() if row.get("message") == message["_id"]]
        own.sort(key=lambda row: (row["occurred_at_us"], row["_id"]))
        return _read(message), [_shown(row) for row in in_order(own[: self._most])], len(own) > self._most

    def errors(self, channel: str, code: str, span: Span) -> list[Document]:
        found: dict[tuple[str, str], list[int]] = {}
        for row in self._counting():
            if not _within(row["received_at_us"], span):
                continue
            if row.get("error_code") and _has(row, {"channel": channel, "error_code": code}):
                found.setdefault((row["channel"], row["error_code"]), []).append(row["received_at_us"])
        rows = [
            {"channel": key[0], "error_code": key[1], "count": len(times), "last_received_at_us": max(times)}
            for key, times in found.items()
        ]
        rows.sort(key=lambda row: (row["channel"], row["error_code"]))
        return sorted(rows, key=lambda row: (row["count"], row["last_received_at_us"]), reverse=True)

    def communication(self, communication_id: str) -> dict[str, int] | None:
        """Its counts by their dotted names, without zeros."""
        counts = self._books.of_communication(communication_id)
        if not counts["messages"] and not any(counts[f"events.{kind.value}"] for kind in EventKind):
            return None
        for day, replies in self._books.reply_counts.items():
            if day.communication_id == communication_id:
                counts.update(replies)
        return {name: count for name, count in counts.items() if count}

    def _counting(self) -> Iterable[Document]:
        return [row for row in self._books.event_rows.values() if not row.get("duplicate_of")]

    def _fits(self, row: Document, filters: Document) -> bool:
        own = {name: value for name, value in filters.items() if name != "address"}
        message = self._books.message_rows[row["message"]] if row.get("message") else row
        return _has(row, own) and _has(message, {"address": filters.get("address", "")})

    def _named(self, channel: str, name: str) -> Document | None:
        key = message_key("acme.1", channel, name)
        seen: set[str] = set()
        while key not in self._books.message_rows and key not in seen:
            seen.add(key)
            key = self._books.join_rows.get(key, {}).get("message") or key
        if key in self._books.message_rows:
            return self._books.message_rows[key]
        referred = [row for row in self._books.message_rows.values() if _has(row, {"references": name})]
        referred = [row for row in referred if row["channel"] == channel]
        if len(referred) > 1:
            raise LookupError(name)
        return referred[0] if referred else None


def flat(document: Document) -> dict[str, int]:
    """The counts of a communication's document by their dotted names, without zeros."""
    counts: dict[str, int] = {"messages": document["messages"]}

    def take(prefix: str, some: Document) -> None:
        for name, value in some.items():
            if isinstance(value, dict):
                take(f"{prefix}{name}.", value)
            else:
                counts[f"{prefix}{name}"] = value

    take("", {name: value for name, value in document.items() if isinstance(value, dict)})
    return {name: count for name, count in counts.items() if count}


def shown(rows: Iterable[Document]) -> list[Document]:
    """What must be equal of events that were read."""
    return [{name: row[name] for name in ("_id", "received_at_us", "payload", "communication_id")} for row in rows]


def _shown(row: Document) -> Document:
    assert Event.FromString(row["payload"]).id == row["_id"]
    (one,) = shown([{"communication_id": "", **row}])
    return one


def _read(message: Document) -> Document:
    """A message as MongoDB gives it, which knows no tuples."""
    return {**message, "aliases": list(map(list, message["aliases"]))} if "aliases" in message else message


def _newest(rows: Sequence[Document], field: str) -> list[Document]:
    return sorted(rows, key=lambda row: (row[field], row["_id"]), reverse=True)


def _within(at_us: int, span: Span) -> bool:
    return span[0] <= at_us and (not span[1] or at_us < span[1])


def _has(row: Document, filters: Document) -> bool:
    return all(not value or _is(row.get(name, ""), value) for name, value in filters.items())


def _is(stored: Any, value: Any) -> bool:
    return value in stored if isinstance(stored, list) else bool(stored == value)
