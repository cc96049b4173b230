"""The catalogue as tenants read it: each type with its schema and an example."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.schemas import schema_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.fields import JsonSchema
from backhaul_notifier.payloads import Form, Renderer, Told


@dataclass(frozen=True, slots=True)
class Entry:
    """A type. ``schema`` and ``sample`` are of the form ``full``; the sample is JSON."""

    type: str
    title: str
    description: str
    kinds: tuple[int, ...]
    schema: JsonSchema
    sample: bytes

    @property
    def schema_json(self) -> bytes:
        """The schema as JSON."""
        return msgspec.json.encode(self.schema)


def listed(renderer: Renderer) -> Iterator[Entry]:
    """Every type, in the order of the catalogue."""
    for each in TYPES.values():
        sample = renderer.body(Form.FULL, [Told(each.name, sample_of(each))]).content
        yield Entry(each.name, each.title, each.description, tuple(sorted(each.kinds)), schema_of(each), sample)
