"""What a subscription wants to be told: types or wildcards, and a filter; checked once, and then looked up quickly.

An event is told to a subscription once, under one type. Where several fit, one that the subscription names comes before
those that a wildcard covers, and the kind's own before a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from backhaul_common.names import channel_key
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.notice.v1.notice_pb2 import Notice

from backhaul_notifier.catalogue.types import KINDS, NAME, OF_SUBSCRIPTIONS, TYPES, EventType, Part
from backhaul_notifier.wrong import Wrong

MAX_TYPES: Final = 100
"""Types and wildcards of one subscription."""

MAX_FILTER: Final = 100
"""Entries of one list of a filter."""

MAX_FILTER_TEXT: Final = 2048
"""Characters of an entry."""

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Filter:
    """What passes every list that is not empty. ``channels`` are canonical keys, ``kinds`` words of events' kinds;
    ``attributes`` are names and values, each of which must be among an event's vars and attributes, or a notice's
    attributes."""

    channels: tuple[str, ...] = ()
    communication_ids: tuple[str, ...] = ()
    error_codes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    attributes: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """What a subscription wants, as it is stored. Types that this copy does not know match nothing here."""

    types: tuple[str, ...]
    filter: Filter = Filter()


def selection_of(
    types: Iterable[str],
    *,
    channels: Iterable[str] = (),
    communication_ids: Iterable[str] = (),
    error_codes: Iterable[str] = (),
    kinds: Iterable[str] = (),
    attributes: Iterable[Pair] = (),
    field: str = "definition",
) -> Selection:
    """A selection as it is to be stored: names in lower case, channels as their keys, everything sorted and once.

    INVALID_ARGUMENT names each entry, within ``field``, that means nothing, and each type that is named and could never
    pass the filter.
    """
    wrong = Wrong(field, "The subscription's choice is not valid.")
    chosen = _types(list(types), wrong)
    selected = Selection(
        chosen,
        Filter(
            channels=_texts([channel_key(label.strip()) for label in channels], "channels", wrong),
            communication_ids=_texts(communication_ids, "communication_ids", wrong),
            error_codes=_texts([code.strip() for code in error_codes], "error_codes", wrong),
            kinds=_kinds([kind.strip().lower() for kind in kinds], wrong),
            attributes=_pairs(list(attributes), wrong),
        ),
    )
    wrong.raise_any()
    for name in selected.types:
        if name in TYPES:
            _check_possible(TYPES[name], selected.filter, wrong)
    wrong.raise_any()
    return selected


class Matcher:
    """Says under which types a subscription is told of an event or a notice."""

    def __init__(self, selection: Selection, subscription_id: str = "") -> None:
        self._own_id = subscription_id
        self._patterns = selection.types
        self._filter = selection.filter
        self._pairs = frozenset(selection.filter.attributes)
        known = sorted(TYPES.values(), key=lambda each: each.name not in selection.types)
        covered = [each for each in known if any(covers(pattern, each.name) for pattern in selection.types)]
        kinds = {KINDS.number(word) for word in selection.filter.kinds}
        self._by_kind: Mapping[int, Sequence[tuple[str, Callable[[Event], bool] | None]]] = {
            number: [(each.name, each.holds) for each in covered if number in each.kinds]
            for number in KINDS.by_number
            if not kinds or number in kinds
        }

    def types(self, said: Event | Notice) -> tuple[str, ...]:
        """The types, the one to tell it by first; empty where it is not told. An event of a kind that this copy does
        not know is not, nor is one that another stands for (``duplicate_of``)."""
        if isinstance(said, Notice):
            return self._types_of_notice(said)
        return self._types_of_event(said)

    def types_if_known(self, event: Event) -> tuple[str, ...]:
        """The types of an event that names no communication, were its message of one that is asked for: that may become
        known later. Empty where it would not be told then either."""
        if not self._filter.communication_ids or event.communication_id or not event.message_id:
            return ()
        return self._types_of_event(event, of_any=True)

    def asks_for(self, communication_id: str) -> bool:
        """Whether the filter names a communication."""
        return communication_id in self._filter.communication_ids

    def _types_of_event(self, event: Event, *, of_any: bool = False) -> tuple[str, ...]:
        if event.duplicate_of:
            return ()
        found = tuple(name for name, holds in self._by_kind.get(event.kind, ()) if holds is None or holds(event))
        return found if found and self._passes(event, of_any=of_any) else ()

    def _passes(self, event: Event, *, of_any: bool = False) -> bool:
        wanted = self._filter
        return (
            (not wanted.channels or event.channel in wanted.channels)
            and (of_any or not wanted.communication_ids or event.communication_id in wanted.communication_ids)
            and (not wanted.error_codes or event.error_code in wanted.error_codes)
            and (not self._pairs or self._pairs <= {*_named(event.vars), *_named(event.attributes)})
        )

    def _types_of_notice(self, notice: Notice) -> tuple[str, ...]:
        if not any(covers(pattern, notice.type) for pattern in self._patterns):
            return ()
        if notice.type.startswith(OF_SUBSCRIPTIONS) and notice.about.reference == self._own_id:
            return ()
        wanted, about = self._filter, notice.about
        passes = (
            not wanted.kinds
            and not wanted.error_codes
            and (not wanted.channels or about.channel in wanted.channels)
            and (not wanted.communication_ids or about.communication_id in wanted.communication_ids)
            and (not self._pairs or self._pairs <= {*_named(notice.attributes)})
        )
        return (notice.type,) if passes else ()


def covers(pattern: str, name: str) -> bool:
    """Whether a type, ``message.*`` or ``*`` covers the type ``name``."""
    return pattern in (name, "*") or (pattern.endswith(".*") and name.startswith(pattern[:-1]))


def known_types(types: Iterable[str]) -> list[EventType]:
    """The types of the catalogue that ``types`` and wildcards cover."""
    patterns = list(types)
    return [each for each in TYPES.values() if any(covers(pattern, each.name) for pattern in patterns)]


def _types(given: Sequence[str], wrong: Wrong) -> tuple[str, ...]:
    if not 1 <= len(given) <= MAX_TYPES:
        wrong.add(
            "types", f"There are {len(given)}, and not 1 to {MAX_TYPES}.", 'Name types, such as "message.delivered".'
        )
        return ()
    names = [name.strip().lower() for name in given]
    for place, name in enumerate(names):
        if known_types([name]):
            continue
        where = f"types[{place}]"
        stem = name.removesuffix(".*")
        if not NAME.fullmatch(stem if "." in stem else f"{stem}.x"):
            wrong.add(
                where,
                f"{given[place]!r} is spelled as no type is.",
                "Letters, digits and underscores, with full stops between them; a wildcard is its last part.",
            )
            continue
        near = get_close_matches(name, TYPES, n=3) or sorted({each.partition(".")[0] + ".*" for each in TYPES})
        wrong.add(
            where, f"There is no type {given[place]!r}.", f"Did you mean {', '.join(near)}? All are at /v1/event-types."
        )
    return tuple(sorted(set(names)))


def _texts(given: Iterable[str], name: str, wrong: Wrong) -> tuple[str, ...]:
    texts = list(given)
    if len(texts) > MAX_FILTER:
        wrong.add(f"filter.{name}", f"It has more than {MAX_FILTER} entries.", "Make several subscriptions.")
    for place, text in enumerate(texts[:MAX_FILTER]):
        if not text or len(text) > MAX_FILTER_TEXT:
            wrong.add(
                f"filter.{name}[{place}]",
                f"It does not have 1 to {MAX_FILTER_TEXT} characters.",
                "Leave it out, or pass a text of that length.",
            )
    return tuple(sorted(set(texts)))


def _kinds(given: Sequence[str], wrong: Wrong) -> tuple[str, ...]:
    for place, kind in enumerate(given):
        if KINDS.number(kind) is None:
            wrong.add(f"filter.kinds[{place}]", f"There is no kind {kind!r}.", f"Known are: {', '.join(KINDS.words)}.")
    return tuple(sorted(set(given)))


def _pairs(given: Sequence[Pair], wrong: Wrong) -> tuple[Pair, ...]:
    _texts([name for name, _ in given], "attributes", wrong)
    for place, (_, value) in enumerate(given[:MAX_FILTER]):
        if len(value) > MAX_FILTER_TEXT:
            wrong.add(f"filter.attributes[{place}]", f"It has more than {MAX_FILTER_TEXT} characters.", "Shorten it.")
    return tuple(sorted(set(given)))


def _check_possible(each: EventType, wanted: Filter, wrong: Wrong) -> None:
    """That something of a type that is named can pass. What a wildcard covers need not: it asks for what there is."""
    alone = "Make a subscription of its own for it, or leave the filter out."
    never = f"{each.name} could never be told:"
    if each.of_events:
        if wanted.kinds and not {KINDS.number(kind) for kind in wanted.kinds} & each.kinds:
            words = ", ".join(KINDS.word(number) for number in sorted(each.kinds))
            wrong.add("filter.kinds", f"{never} it is of the kinds {words}.", "Choose of these, or leave the type out.")
        return
    for name, given, has in (
        ("kinds", wanted.kinds, False),
        ("error_codes", wanted.error_codes, False),
        ("channels", wanted.channels, Part.CHANNEL in each.parts),
        ("communication_ids", wanted.communication_ids, Part.COMMUNICATION in each.parts),
        ("attributes", wanted.attributes, {key for key, _ in wanted.attributes} <= each.attributes.keys()),
    ):
        if given and not has:
            wrong.add(f"filter.{name}", f"{never} it has no such {name}.", alone)


def _named(pairs: Iterable[Attribute]) -> Iterable[Pair]:
    return ((pair.name, pair.value) for pair in pairs)
