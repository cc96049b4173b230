"""Forms that are shown again where the API refuses them: with what was typed, and its words beside each field.

A page names its inputs as the API names its fields (``http.url``), so that what is refused finds its place by itself::

    async def _add(visit: Visit) -> Response:
        form = await visit.filled()
        try:
            made = await visit.api.subscriptions.create(form.lines("types"), http={"url": form["http.url"]})
        except REFUSED as exc:
            return _form(visit, form.refused(exc))
        return visit.to(f"/subscriptions/{made.id}", said="saved")

and shows them with the macros of ``templates/forms.html``, in a page of the status ``form.status``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from backhaul_client import (
    ConflictError,
    FailedPreconditionError,
    FieldError,
    InvalidArgumentError,
    ProblemError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
    moments,
)

from backhaul_console.texts import _

MISTYPED = (InvalidArgumentError, ConflictError, FailedPreconditionError, TooLargeError)
"""What whoever filled in the form can mend. Anything else is a page of its own; see ``failing.py``."""
REFUSED = (*MISTYPED, RateLimitedError, UnavailableError)
"""Of a form that is posted, also what is over in a while: it comes back with what was typed, to be sent again. One that
asks for a list has it in its address, and an empty list must not stand for one that nobody could read."""


@dataclass(frozen=True)
class Filled:
    """What was typed into a form, and what is wrong with it. ``values`` has all values of each name."""

    values: Mapping[str, Sequence[str]]
    error: ProblemError | None = None

    @classmethod
    def of(cls, **values: object) -> Filled:
        """What stands in a form before anybody types: texts, numbers, and lists, which are one to a line."""
        return cls({name: _texts(value) for name, value in values.items()})

    @property
    def status(self) -> int:
        """That of the page which shows it."""
        return self.error.status if self.error is not None else 200

    def __getitem__(self, name: str) -> str:
        """The last value of a field, without the space around it; empty where there is none."""
        given = self.values.get(name, ())
        return given[-1].strip() if given else ""

    def raw(self, name: str) -> str:
        """A text as it was typed, its lines ended as programs end them: browsers send others."""
        given = self.values.get(name, ())
        return given[-1].replace("\r\n", "\n") if given else ""

    def all(self, name: str) -> list[str]:
        """Every value of a field, such as those of checkboxes that are ticked."""
        return [value for value in self.values.get(name, ()) if value]

    def lines(self, name: str) -> list[str]:
        """A field of several lines, each without the space around it; without the empty ones."""
        return [line for typed in self[name].splitlines() if (line := typed.strip())]

    def headers(self, name: str = "headers") -> dict[str, str]:
        """Headers, one to a line. Raises as the API would."""
        found: dict[str, str] = {}
        for line in self.lines(name):
            header, colon, value = line.partition(":")
            if not colon:
                raise wrong(name, _("A line has no colon."), _("Write each as Name: value, on a line of its own."))
            found[header.strip()] = value.strip()
        return found

    def number(self, name: str, default: int = 0) -> int:
        """A whole number; ``default`` where nothing was typed. Raises as the API would."""
        typed = self[name]
        if not typed:
            return default
        if not typed.isascii() or not typed.isdecimal() or len(typed) > _MAX_DIGITS:
            raise wrong(name, _("This is no whole number."), _("Type digits alone."))
        return int(typed)

    def moment(self, name: str) -> datetime | None:
        """A time: ISO 8601, and UTC where nothing else is said, or how long ago, such as ``2h``. None where nothing was
        typed. Raises as the API would."""
        return moment_of(name, self[name])

    def refused(self, error: ProblemError) -> Filled:
        """The same, with what the API says of it."""
        return replace(self, error=error)

    def wrong(self, name: str) -> list[FieldError]:
        """What is wrong with a field, or with a part of it that has no field of its own: ``types[2]`` is a part of
        ``types``."""
        found = self.error.errors if self.error is not None else ()
        nearer = [other for other in self.values if _is_part(other, name)]
        return [
            one
            for one in found
            if (one.field == name or _is_part(one.field, name))
            and not any(one.field == other or _is_part(one.field, other) for other in nearer)
        ]

    def described(self, name: str, hint: str = "") -> dict[str, str]:
        """The attributes of an input: its name, whether it is wrong, and where that and its ``hint`` stand."""
        found = {"name": name}
        if hint or self.wrong(name):
            found["aria-describedby"] = f"about-{name}"
        if self.wrong(name):
            found["aria-invalid"] = "true"
        return found


def wrong(field: str, message: str, fix: str) -> InvalidArgumentError:
    """An error of the console's own about a field, as the API would raise it."""
    return InvalidArgumentError(
        status=422, code="invalid_argument", detail=message, errors=(FieldError(field, message, fix),)
    )


def moment_of(name: str, typed: str, now: datetime | None = None) -> datetime | None:
    """The time that somebody typed, or that an address has; see ``Filled.moment``."""
    if not typed:
        return None
    try:
        return moments.moment_of(typed, now or datetime.now(UTC))
    except ValueError:
        fix = _("Write it like 2026-03-01T12:30Z or 2026-03-01, or how long ago: 90m, 2h, 3d.")
        raise wrong(name, _("This is no time."), fix) from None


_MAX_DIGITS = 18


def _is_part(name: str, of: str) -> bool:
    return name.startswith((of + "[", of + "."))


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return ["\n".join(str(one) for one in value)]
    return [str(value)] if value not in (None, False, 0) else []
