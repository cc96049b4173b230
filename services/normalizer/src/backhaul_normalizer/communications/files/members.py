"""What a file says of a member, and what no member can have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import msgspec
from backhaul_common.errors import BackhaulError, Violation
from backhaul_common.lines.json_lines import LONE_SURROGATE, LONE_SURROGATE_FIX, encodable
from backhaul_common.lines.line import UNREADABLE, Line
from backhaul_common.names import channel_key, check_label

from backhaul_normalizer.communications.documents import MAX_ATTRIBUTES, MAX_DESTINATIONS, MAX_NAME, MAX_VALUE
from backhaul_normalizer.facts import MAX_KEY

MEMBER_KEY, CHANNEL, RECIPIENT, MESSAGE_ID = "member_key", "channel", "recipient", "message_id"

Attribute: TypeAlias = tuple[str, str]
"""Name and value."""

Destination: TypeAlias = tuple[str, str, str]
"""The channel's canonical key, the recipient as it is written, and the message's id; each may be empty."""

_UNREADABLE = re.compile(rf"[\x00-\x1f\x7f-\x9f{UNREADABLE}]")


class Refused(NamedTuple):
    """A line of which no member is made, and why."""

    line: Line
    problem: Violation


class Member(msgspec.Struct, gc=False):
    """A member as lines tell of it. ``number`` is the first one's, from 1; names of attributes are there once each.

    ``source`` is the text of its only line, or its lines.
    """

    number: int
    key: str
    attributes: list[Attribute]
    destinations: list[Destination]
    source: bytes | list[Line]

    @property
    def lines(self) -> int:
        """Of how many lines it was made."""
        return 1 if isinstance(self.source, bytes) else len(self.source)

    @property
    def size(self) -> int:
        """How large what it was made of is, in bytes or characters."""
        return len(self.source) if isinstance(self.source, bytes) else sum(len(line.text) for line in self.source)

    def refuse(self, problem: Violation) -> list[Refused]:
        """Its lines, refused for ``problem``."""
        if isinstance(self.source, bytes):
            return [Refused(Line(self.number, {}, self.source.strip().decode()), problem)]
        return [Refused(line, problem) for line in self.source]


class MemberError(Exception):
    """No member is made of a line, and why."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.problem = Violation(field, message, fix)


@lru_cache(maxsize=512)
def known_channel(label: str) -> str | None:
    """The canonical key of a channel's label; None where it can be none."""
    try:
        return channel_key(check_label(label))
    except BackhaulError:
        return None


def checked_key(text: str) -> str:
    """A member's key. MemberError."""
    if not text.strip():
        raise MemberError(
            MEMBER_KEY, "The member has no key.", "Write in member_key by what you know the member, such as a number."
        )
    return checked_id(text, MEMBER_KEY)


def checked_id(text: str, field: str) -> str:
    """A recipient, or the id of a member or a message. MemberError."""
    if len(text) > MAX_KEY:
        raise MemberError(field, f"It has more than {MAX_KEY} characters.", "Check it; no such id is so long.")
    _check_readable(text, field)
    return text


def checked_channel(text: str, field: str) -> str:
    """The canonical key of a channel's label; empty where there is none. MemberError."""
    if not text:
        return ""
    key = known_channel(text) if len(text) <= MAX_NAME else None
    if key is None:
        raise MemberError(
            field, f"{text[:80]!r} is no channel's label.", "Write the label that the channel has, or nothing."
        )
    return key


def checked_name(text: str, field: str) -> str:
    """An attribute's name. MemberError."""
    if not text:
        raise MemberError(field, "An attribute has no name.", "Name it, or take it out.")
    if len(text) > MAX_NAME:
        raise MemberError(
            field, f"The name {text[:80]!r}… has more than {MAX_NAME} characters.", "Give the attribute a shorter name."
        )
    _check_readable(text, field)
    return text


def checked_value(text: str, field: str) -> str:
    """An attribute's value. MemberError."""
    if len(text) > MAX_VALUE:
        raise MemberError(field, f"The value has more than {MAX_VALUE} characters.", "Shorten it.")
    _check_encodable(text, field)
    return text


def checked_attributes(attributes: list[Attribute], field: str) -> list[Attribute]:
    """Not too many. MemberError."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise MemberError(field, f"A member has {MAX_ATTRIBUTES} attributes at most.", "Leave out what is not needed.")
    return attributes


def checked_destinations(destinations: Sequence[Destination], field: str) -> list[Destination]:
    """Each once, and not too many. MemberError."""
    different = list(dict.fromkeys(destinations))
    if len(different) > MAX_DESTINATIONS:
        raise MemberError(
            field, f"A member has {MAX_DESTINATIONS} destinations at most.", "Register the others in another batch."
        )
    return different


def _check_readable(text: str, field: str) -> None:
    _check_encodable(text, field)
    if _UNREADABLE.search(text):
        raise MemberError(
            field, "It holds characters that cannot be read or cannot be seen.", "Write it anew, without copying it."
        )


def _check_encodable(text: str, field: str) -> None:
    if not encodable(text):
        raise MemberError(field, LONE_SURROGATE, LONE_SURROGATE_FIX)
