"""What a model refuses of what somebody sent: each field by the path that they wrote, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from backhaul_common.errors import Violation
from pydantic import BaseModel

from backhaul_gateway.admission.refusals import field_error

Location = tuple[int | str, ...]


def violations(
    errors: Iterable[Mapping[str, Any]], model: type[BaseModel] | None, given: object, *path: int | str
) -> list[Violation]:
    """pydantic's ``errors`` about ``given``, which stands at ``path`` of the request and does not fit ``model``. Which
    names there are is only told where a model is given."""
    return [_violation(error, model, given, path) for error in errors]


def _violation(error: Mapping[str, Any], model: type[BaseModel] | None, given: object, path: Location) -> Violation:
    kind, message, location = error["type"], error["msg"], error["loc"]
    written = (*path, *_written(given, location))
    if kind.startswith("union_tag_"):
        # pydantic names the union; what is wrong is the field that tells its members apart.
        context = error["ctx"]
        expected = context.get("expected_tags")
        message = f"Input should be one of {expected}" if expected else "Field required"
        return field_error((*written, context["discriminator"].strip("'")), kind if expected else "missing", message)
    violation = field_error(written, kind, message)
    if kind == "extra_forbidden" and model is not None and (names := _names(model, location[:-1])):
        close = difflib.get_close_matches(str(location[-1])[:64].lower(), names, n=1)
        fix = f"Did you mean {close[0]}?" if close else f"Use one of: {', '.join(names)}."
        return Violation(violation.field, violation.message, fix)
    return violation


def _written(given: object, location: Location) -> Iterator[int | str]:
    """``location`` without what nobody wrote: pydantic puts the tag of a union's member between two fields."""
    for number, part in enumerate(location):
        if isinstance(given, Mapping) and part not in given and number < len(location) - 1:
            continue
        yield part
        if isinstance(given, Mapping):
            given = given.get(part)
        elif isinstance(given, Sequence) and isinstance(part, int) and part < len(given):
            given = given[part]


def _names(model: type[BaseModel], location: Location) -> list[str]:
    """The fields that there are at ``location`` of ``model``; none where the names are the sender's own."""
    models = [model]
    for part in location:
        if isinstance(part, int):
            continue
        fields = [one.model_fields[part] for one in models if part in one.model_fields]
        if fields:
            models = [one for field in fields for one in _models_in(field.annotation)]
        else:
            models = [one for one in models if _has_tag(one, part)]
    return list(dict.fromkeys(name for one in models for name in one.model_fields))


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _has_tag(model: type[BaseModel], tag: str) -> bool:
    return any(tag in get_args(field.annotation) for field in model.model_fields.values())
