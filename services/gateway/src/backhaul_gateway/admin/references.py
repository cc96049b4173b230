"""Secrets of a document, which has references in their place: their values come beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul_common.errors import BackhaulError, Code
from pydantic import SecretStr

from backhaul_gateway.admin.configmodels import REF, Json

MAX_DEPTH = 10
"""Levels of a subscription. What lies deeper is none of it, and refused as it is."""

Values = Mapping[str, str | dict[str, str]]
"""By their references."""


def plain(value: SecretStr | Mapping[str, SecretStr]) -> str | dict[str, str]:
    """A value as it was sent."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return {name: one.get_secret_value() for name, one in value.items()}


def resolve(given: Json, name: str, secrets: Values, kept: Any) -> None:
    """Put values in the place of the references at ``name`` of a channel, or take them out where ``kept`` stays."""
    value = given.get(name)
    if not value:
        return
    many = name == "secrets"
    places = list(value) if many and isinstance(value, list) else [value]
    refs = [one.get(REF) if isinstance(one, dict) and len(one) == 1 else None for one in places]
    if any(not isinstance(ref, str) for ref in refs) or many != isinstance(value, list):
        message = f'Secrets stand in a document as references: {{"{REF}": "…"}}.'
        raise BackhaulError(Code.INVALID_ARGUMENT, message, field=name, fix="Pass the values beside it, in secrets.")
    found = [secrets.get(str(ref)) for ref in refs]
    if not any(found) and kept and (not many or len(kept) == len(refs)):
        del given[name]
        return
    for ref, one in zip(refs, found, strict=True):
        if not one:
            raise _without_value(str(ref), name)
    given[name] = found if many else found[0]


class Filled:
    """A subscription with values in the place of its references, empty where there is none."""

    def __init__(self, given: Json, secrets: Values) -> None:
        self.any = False
        """Whether there was a value."""
        self._secrets = secrets
        self._missing: list[tuple[tuple[str | int, ...], str]] = []
        self.value: Json = self._of(given, ())

    def require(self, before: Json | None) -> None:
        """INVALID_ARGUMENT names a secret that has no value, where ``before`` has none either that could stay."""
        for place, ref in self._missing:
            kept: Any = before
            for name in place:
                kept = kept.get(name) if isinstance(kept, dict) else None
            if kept is None and place != ("secret",):
                raise _without_value(ref, ".".join(map(str, place)))

    def _of(self, given: Any, place: tuple[str | int, ...]) -> Any:
        if len(place) > MAX_DEPTH:
            return given
        if isinstance(given, dict):
            ref = given.get(REF)
            if len(given) == 1 and isinstance(ref, str):
                return self._filled(ref, place)
            return {name: self._of(one, (*place, name)) for name, one in given.items()}
        if isinstance(given, list):
            return [self._of(one, (*place, number)) for number, one in enumerate(given)]
        return given

    def _filled(self, ref: str, place: tuple[str | int, ...]) -> str:
        value = self._secrets.get(ref, "")
        if not isinstance(value, str):
            message = f"The value of {ref[:200]!r} must be a text."
            at = ".".join(map(str, place))
            raise BackhaulError(Code.INVALID_ARGUMENT, message, field=at, fix="Pass a text in secrets.")
        if value:
            self.any = True
        else:
            self._missing.append((place, ref))
        return value


def _without_value(ref: str, field_: str) -> BackhaulError:
    message = f"There is no value of {ref[:200]!r}, and none is stored that could stay."
    return BackhaulError(Code.INVALID_ARGUMENT, message, field=field_, fix="Pass it in secrets of the document.")
