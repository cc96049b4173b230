"""For how long what is stored of a tenant is kept: what may be asked for, and what is shown of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Retention
from pydantic import BaseModel, ConfigDict, Field

_DAY_S = 86_400
MAX_DAYS = 36_500

_EVENTS, _MESSAGES, _ADDRESSES = Retention.model_fields
"""The names of the settings, in the order in which what they end goes."""


class RetentionIn(BaseModel):
    """For how many days things are kept: what is to change. What is left out, or null, stays; 0 keeps for ever."""

    model_config = ConfigDict(extra="forbid")

    event_retention_days: int | None = Field(
        None, ge=0, le=MAX_DAYS, description="Events, with what the provider sent, so long after they arrived."
    )
    message_retention_days: int | None = Field(
        None,
        ge=0,
        le=MAX_DAYS,
        description="Messages of which nothing was told for so long. Not before their events: these must end, too.",
    )
    address_retention_days: int | None = Field(
        None,
        ge=0,
        le=MAX_DAYS,
        description="Recipients and senders of messages, so long after they were first heard of. With the messages "
        "unless given.",
    )

    def given(self) -> dict[str, Any]:
        """The settings, as a tenant has them, that are to change."""
        return {name: days or None for name, days in self.model_dump(exclude_none=True).items()}


class RetentionOut(BaseModel):
    """For how many days events, messages and their addresses are kept; null is for ever."""

    event_retention_days: int | None
    message_retention_days: int | None
    address_retention_days: int | None

    @classmethod
    def of(cls, kept: Retention) -> RetentionOut:
        """The settings that this version knows. A newer version may have stored more."""
        return cls(**{name: getattr(kept, name) for name in cls.model_fields})


def changed_retention(present: Retention, changes: Mapping[str, Any], stream_max_age_s: float) -> Retention:
    """``present`` with ``changes``.

    INVALID_ARGUMENT names the setting that does not fit; of two that do not fit each other one that is to change.
    Nothing may go that the streams still have: what is replayed from them is known by what is stored of it, and would
    count again without.
    """
    after = present.model_copy(update=changes)
    if not changes:
        return after
    least = math.ceil(stream_max_age_s / _DAY_S)
    for name in (_EVENTS, _MESSAGES, _ADDRESSES):
        days = getattr(after, name)
        if days is not None and days < least:
            raise _refused(
                name,
                f"The streams keep callbacks and events for {least} days, and what is replayed must be known: "
                f"{name} would be {_shown(days)}.",
                f"Send {least} or more, or 0 to keep for ever.",
            )
    events, messages, addresses = (_days(getattr(after, name)) for name in (_EVENTS, _MESSAGES, _ADDRESSES))
    if messages < events:
        longer = "" if events == math.inf else f"{events:g} or more, or of "
        raise _refused(
            _MESSAGES if _MESSAGES in changes else _EVENTS,
            f"Messages are kept as long as their events at least: {_EVENTS} would be {_shown(events)}, "
            f"{_MESSAGES} {_shown(messages)}.",
            f"Send an {_EVENTS} of {messages:g} or less, or a {_MESSAGES} of {longer}0: for ever.",
        )
    if addresses > messages and after.address_retention_days is not None:
        raise _refused(
            _ADDRESSES if _ADDRESSES in changes else _MESSAGES,
            f"Addresses go with their messages at the latest: {_ADDRESSES} would be {_shown(addresses)}, "
            f"{_MESSAGES} {_shown(messages)}.",
            f"Send an {_ADDRESSES} of {messages:g} or less, or of 0: then they go with their messages.",
        )
    return after


def _days(days: int | None) -> float:
    return math.inf if days is None else days


def _shown(days: float) -> str:
    return "for ever" if days == math.inf else f"{days:g} days"


def _refused(name: str, detail: str, fix: str) -> BackhaulError:
    return BackhaulError(Code.INVALID_ARGUMENT, detail, field=f"retention.{name}", fix=fix)
