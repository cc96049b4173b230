"""What an event says about being contacted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backhaul_common.ids import derived_id
from backhaul_common.tenants import SuppressionSettings
from backhaul_proto.event.v1.event_pb2 import Event

from backhaul_suppression.addresses import spellings
from backhaul_suppression.model import Fact

_KEPT = 24


def fact_of(event: Event, settings: SuppressionSettings, recorded_at_us: int) -> Fact | None:
    """What ``event`` says; None where it says nothing about being contacted.

    Of an event with ``revision`` > 0 that says nothing any more it is a fact without targets, which must be stored, as
    a lower revision may be there or on its way. Store ``spread`` of it. Never raises.
    """
    del event, settings, recorded_at_us
    return None


def spread(fact: Fact, settings: SuppressionSettings) -> Sequence[Fact]:
    """``fact``, and the same about every other address that the tenant's setting takes for the same one
    (``addresses.spellings``): all that is said, by an event or by a call, is recorded so."""
    return [fact, *(replace(fact, id=_of_another(fact.id), address=a) for a in spellings(fact.address, settings)[1:])]


def _of_another(fact_id: str) -> str:
    # Of facts of one moment the order of the ids decides, and must decide the same for both addresses.
    return fact_id[:_KEPT] + derived_id("suppression", fact_id)[_KEPT:]
