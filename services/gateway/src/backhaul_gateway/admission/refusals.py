"""The refusals that several doors share. Each names the field at fault, and says what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.tenants import Tenant

UNENCODABLE = "It holds NUL, or half a character (a lone surrogate)."
NOT_UTF_8 = "It holds \ufffd, which stands for what is not UTF-8."
DELETING = "The tenant is being deleted."

NO_TIME = "A time is written as RFC 3339 has it."
_TIME = "Send a time such as 2026-11-01T00:00:00Z; the + of an offset is written %2B in an address."
_BRACES = 'Send it in braces, as {"name": …}.'
_BRACKETS = 'Send it in brackets, as ["…"].'

_FIXES = {
    "missing": "Add it.",
    "extra_forbidden": "Remove it, or check its spelling.",
    "model_type": _BRACES,
    "dict_type": _BRACES,
    "list_type": _BRACKETS,
    "tuple_type": _BRACKETS,
    "model_attributes_type": 'Send it in braces, as {"name": …}; a body with Content-Type: application/json.',
    UNENCODABLE: "Take the character out, or write it whole.",
    NOT_UTF_8: "Escape its bytes in UTF-8, such as %C3%BC for ü.",
    NO_TIME: _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": "Add the offset from UTC, as in 2026-11-01T00:00:00Z.",
    "body missing": "Send a JSON object, {} if there is nothing to say, with Content-Type: application/json.",
    "id string_pattern_mismatch": "Use lower-case letters, digits, - and _, with a letter or a digit at both ends.",
    "queue_path string_pattern_mismatch": "Use letters, digits, - and _.",
    "file_id string_pattern_mismatch": "Pass the id of a file, 32 lower-case hex digits, as files are listed.",
    "report_id string_pattern_mismatch": "Pass the id of a report, 32 lower-case hex digits, as reports are listed.",
    "day string_pattern_mismatch": "Pass a day of UTC, such as 2026-11-25.",
    "channel too_short": "Name one of the tenant's channels.",
    "head string_pattern_mismatch": "Pass the hash of a digest whole: 64 lower-case hex digits.",
}
"""How to mend what pydantic refuses, by the field, without a place in a list, and the kind of error; else by the kind
alone, or by what a check of ours says."""

_MESSAGES = {
    "extra_forbidden": "There is no such field here.",
    "model_type": "Input should be an object.",
    "dict_type": "Input should be an object.",
    "tuple_type": "Input should be a valid list.",
    "model_attributes_type": "Input should be a JSON object.",
}
"""What is said in place of pydantic's words, which are about its own parts."""


def no_channel(tenant: Tenant, label: str, field: str = "channelLabel") -> BackhaulError:
    """Why a label leads to none of the tenant's channels, and what to do about it. ``label`` is empty where the query
    has none; ``field`` is where the label stands in the request."""
    configured = ", ".join(sorted(channel.label for channel in tenant.channels.values())) or "none yet"
    if not label:
        return BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The query parameter channelLabel is missing. Configured channels: {configured}.",
            field=field,
            fix="Add ?channelLabel=<label of the channel> to the URL.",
        )
    return BackhaulError(
        Code.NOT_FOUND,
        f"The tenant has no channel {label[:100]!r}. Configured channels: {configured}.",
        field=field,
        fix="Use one of the configured labels, or PUT the channel first.",
    )


def not_active(tenant: Tenant) -> BackhaulError:
    """Why a tenant may do nothing, although its credential is right: it is suspended, or being deleted."""
    if tenant.status == "deleting":
        return BackhaulError(
            Code.FORBIDDEN,
            DELETING,
            fix="Stop calling, and take its addresses out of the providers' settings: a deletion cannot be taken back.",
        )
    return BackhaulError(Code.FORBIDDEN, f"The tenant is {tenant.status}.", fix="Ask the platform team to activate it.")


def field_error(location: Sequence[int | str], kind: str, message: str) -> Violation:
    """What pydantic says of one field, with a way to mend it."""
    parts = [part for part in location if part not in ("body", "query", "path", "header")] or [location[0]]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    # What goes is pydantic's own words before those of a check of ours.
    message = _MESSAGES.get(kind) or message.removeprefix("Value error, ").replace(" after validation", "")
    message = f"{message.removesuffix('.')}."  # pydantic's words have none.
    known = _FIXES.get(f"{field.partition('[')[0]} {kind}") or _FIXES.get(kind, _FIXES.get(message))
    return Violation(field, message, known or "Change it to what the message asks for.")
