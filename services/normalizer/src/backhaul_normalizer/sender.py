"""What a sender has given to a message, as two callbacks of one event tell it: what the message is of, and parameters.

A provider repeats it and has no say in it, so it stands beside whatever else of the two counts. A provider's API may
not know it at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from backhaul_channels import NormalizedEvent

from backhaul_normalizer.facts import is_default
from backhaul_normalizer.model import NOWHERE, Fact, Place

MAX_VARS = 1024
"""Custom parameters up to which duplicates add theirs to an event. A callback brings a few hundred at most."""

Pair = tuple[str, str]


def with_senders_words(best: Fact, other: Fact) -> Fact:
    """``best``, of the same event and trusted better, with what the sender has given as ``other`` tells it; ``best``
    itself where that is nothing new. Its payload and its digest are as they were."""
    own = Place(best.batch_id, best.member_key)
    communication_id = joined(best, best.communication_id, other, other.told_communication_id)
    place = placed(own, other.told_place)
    defaults = defaults_of(best, other)
    parameters = vars_of(best, other, defaults)
    missing = [name for name in best.event.missing_parameters if name in other.event.missing_parameters]
    event = msgspec.structs.replace(
        best.event, vars=parameters, default_parameters=defaults, missing_parameters=missing
    )
    if (communication_id, place, event) == (best.communication_id, own, best.event):
        return best
    return msgspec.structs.replace(
        best,
        event=event,
        communication_id=communication_id,
        batch_id=place.batch_id,
        member_key=place.member_key,
        told_communication_id=joined(best, best.told_communication_id, other, other.told_communication_id),
        told_place=placed(best.told_place, other.told_place),
    )


def joined(kept: Fact, own: str, told: Fact, other: str) -> str:
    """Of the communications that two facts name: one that a sender named before one of a channel's default, and of two
    alike the least."""
    by_default = is_default(kept, own)
    if own and other and by_default is not is_default(told, other):
        return other if by_default else own
    return least(own, other)


def placed(own: Place, other: Place) -> Place:
    """The least of two that both name a member, or neither; as a whole, since half of each would be a place that nobody
    has named. A member comes before a batch alone."""
    if other in (own, NOWHERE):
        return own
    return other if own == NOWHERE else min(own, other, key=_vagueness)


def _vagueness(place: Place) -> tuple[bool, bool, Place]:
    return not place.member_key, not place.batch_id, place


def vars_of(kept: Fact, told: Fact, defaults: Sequence[str]) -> list[Pair]:
    """Those of the event and of the callback's URL; of a duplicate's URL only where the provider signed it. Of the
    channel's defaults only ``defaults``."""
    own, other = _without_defaults(kept.event, defaults), _without_defaults(told.event, defaults)
    parameters = told.origin.parameters if told.origin.url_is_signed else ()
    missing = {*other, *parameters}.difference(own, kept.origin.parameters)
    room = max(0, MAX_VARS - len(own) - len(kept.origin.parameters))
    return [*own, *sorted(missing)[:room]] if missing and room else own


def defaults_of(kept: Fact, told: Fact) -> list[str]:
    """The parameters that have the channel's default, since neither of the two has another value."""
    names = _united_names(kept.event.default_parameters, told.event.default_parameters)
    if not names:
        return kept.event.default_parameters
    given = {
        name.lower()
        for fact in (kept, told)
        for name, value in (
            *_without_defaults(fact.event, ()),
            *(fact.origin.parameters if fact is kept or fact.origin.url_is_signed else ()),
        )
        if value
    }
    return [name for name in names if name.lower() not in given]


def _united_names(kept: list[str], told: list[str]) -> list[str]:
    return sorted({*kept, *told}) if kept or told else kept


def _without_defaults(event: NormalizedEvent, but: Sequence[str]) -> list[Pair]:
    """The parameters of ``event`` without those that are there by default, ``but`` for these."""
    gone = {name for name in event.default_parameters if name not in but}
    return [pair for pair in event.vars if pair[0] not in gone or not pair[1]] if gone else event.vars


def least(own: str, other: str) -> str:
    """The one that is not empty; of two, the least: any rule will do that does not depend on which came first."""
    return min(own, other) if own and other else own or other
