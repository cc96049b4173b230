"""What a request of communications says, checked field by field. Everything raises INVALID_ARGUMENT."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

from backhaul_channels.addresses import email
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.mailaddresses import ADDRESS_FIX, is_mail_address
from backhaul_common.names import channel_key
from backhaul_common.vocabulary import Words
from backhaul_proto.normalizer.v1 import communications_pb2 as pb

from backhaul_normalizer.communications.documents import (
    DEADLINE_S,
    MAX_ATTRIBUTES,
    MAX_DEADLINE_S,
    MAX_NAME,
    MAX_NOTIFIED,
    MAX_VALUE,
)
from backhaul_normalizer.facts import MAX_KEY

MIN_DEADLINE_S = 60
MAX_AUTHOR = 128
MAX_REASON = 2048
MAX_EXPECTED = 100_000_000
MAX_ENVIRONMENTS = 20

_COMPLETES_ON = Words(pb.CompletesOn.DESCRIPTOR)


class _Pair(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...


def invalid(field: str, message: str, fix: str) -> BackhaulError:
    """INVALID_ARGUMENT of one field."""
    return BackhaulError(Code.INVALID_ARGUMENT, message, field=field, fix=fix)


def checked_id(text: str, field: str) -> str:
    """An id of the sender's own: 1 to MAX_KEY characters."""
    if not text:
        raise invalid(field, "The id is missing.", f"Pass 1 to {MAX_KEY} characters.")
    if len(text) > MAX_KEY:
        raise invalid(field, f"The id has more than {MAX_KEY} characters.", "Pass a shorter one.")
    return text


def checked_text(text: str, field: str, most: int, *, required: bool = False) -> str:
    """A text of ``most`` characters at most."""
    if required and not text.strip():
        raise invalid(field, "It is missing.", f"Pass 1 to {most} characters.")
    if len(text) > most:
        raise invalid(field, f"It has more than {most} characters.", "Shorten it.")
    return text


def registered_of(settings: pb.CommunicationSettings, channels: Collection[str]) -> Document:
    """``communications.registered`` of what a sender tells; ``channels`` are the keys of the tenant's channels.

    Fields are named within ``settings``.
    """
    channel = channel_key(settings.channel)
    if channel and channel not in channels:
        raise invalid(
            "settings.channel",
            "The tenant has no such channel.",
            "Name one of the tenant's channels, or none where each destination names its own.",
        )
    return {
        "name": checked_text(settings.name, "settings.name", MAX_NAME),
        "mode": _mode(settings.mode, "settings.mode") if settings.mode else "",
        "channel": channel,
        "notify": _notified(settings.notify),
        "deadline_s": _deadline_s(settings.deadline_s),
        "completes_on": _completes_on(settings.completes_on),
        "environments": _environments(settings.environments),
    }


def default_registered() -> Document:
    """``communications.registered`` of one of which nothing is told."""
    return registered_of(pb.CommunicationSettings(), ())


def checked_expected(expected_members: int) -> int:
    """How many members a batch expects; 0: none."""
    if not 0 <= expected_members <= MAX_EXPECTED:
        raise invalid(
            "expected_members",
            f"It is not between 0 and {MAX_EXPECTED}.",
            "Pass how many members the batch will have, or 0 to close it by a call.",
        )
    return expected_members


def checked_deadline(deadline_at_us: int, now_us: int) -> int:
    """When a batch is due, in unix time."""
    if not now_us + MIN_DEADLINE_S * 1_000_000 <= deadline_at_us <= now_us + MAX_DEADLINE_S * 1_000_000:
        raise invalid(
            "deadline_at_us",
            f"The deadline is not between {MIN_DEADLINE_S} s and {MAX_DEADLINE_S // 86_400} days from now.",
            "Pass unix time in microseconds, or 0 for what the communication says.",
        )
    return deadline_at_us


def pairs_of(attributes: Iterable[_Pair], field: str, *, unique: bool = False) -> list[list[str]]:
    """Names and values as they are stored."""
    pairs = [[one.name, one.value] for one in attributes]
    check_pairs(pairs, field, unique=unique)
    return pairs


def check_pairs(pairs: Sequence[Sequence[str]], field: str, *, unique: bool = False) -> None:
    """That these names and values may be stored."""
    if len(pairs) > MAX_ATTRIBUTES:
        raise invalid(field, f"There are more than {MAX_ATTRIBUTES}.", "Leave some out.")
    for name, value in pairs:
        if not name or len(name) > MAX_NAME:
            raise invalid(field, f"A name has 1 to {MAX_NAME} characters.", "Name each one, shortly.")
        if len(value) > MAX_VALUE:
            raise invalid(field, f"The value of {name[:80]!r} has more than {MAX_VALUE} characters.", "Shorten it.")
    if unique and len({name for name, _ in pairs}) < len(pairs):
        raise invalid(field, "A name is there twice.", "Name each variable once.")


def _mode(mode: str, field: str) -> str:
    # A mode is the name of a field where its variables are stored: MongoDB takes neither NUL nor a leading dollar.
    if not mode or len(mode) > MAX_NAME or not mode.isprintable() or mode.startswith("$"):
        raise invalid(
            field,
            f"A mode has 1 to {MAX_NAME} printable characters, and does not begin with a dollar.",
            'Name it shortly, such as "live" or "test".',
        )
    return mode


def _notified(addresses: Sequence[str]) -> list[str]:
    if len(addresses) > MAX_NOTIFIED:
        raise invalid("settings.notify", f"There are more than {MAX_NOTIFIED} addresses.", "Use a mailing list.")
    kept: dict[str, str] = {}
    for number, address in enumerate(addresses):
        if not is_mail_address(address):
            raise invalid(f"settings.notify[{number}]", "It is no mail address.", ADDRESS_FIX)
        kept.setdefault(email(address), address)
    return list(kept.values())


def _deadline_s(seconds: int) -> int:
    if seconds and not MIN_DEADLINE_S <= seconds <= MAX_DEADLINE_S:
        raise invalid(
            "settings.deadline_s",
            f"The deadline is not between {MIN_DEADLINE_S} s and {MAX_DEADLINE_S} s.",
            f"Pass seconds from a batch's registration, or 0 for {DEADLINE_S}.",
        )
    return seconds or DEADLINE_S


def _completes_on(number: int) -> Any:
    if not number:
        return "processed"
    word = _COMPLETES_ON.by_number.get(number)
    if word is None:
        raise invalid("settings.completes_on", f"There is no value {number}.", "Pass PROCESSED or FINAL.")
    return word


def _environments(environments: Sequence[pb.Environment]) -> dict[str, list[list[str]]]:
    if len(environments) > MAX_ENVIRONMENTS:
        raise invalid("settings.environments", f"There are more than {MAX_ENVIRONMENTS}.", "Leave some out.")
    found: dict[str, list[list[str]]] = {}
    for number, one in enumerate(environments):
        field = f"settings.environments[{number}]"
        mode = _mode(one.mode, f"{field}.mode")
        if mode in found:
            raise invalid(f"{field}.mode", "The mode is there twice.", "Put its variables into one environment.")
        found[mode] = pairs_of(one.variables, f"{field}.variables", unique=True)
    return found
