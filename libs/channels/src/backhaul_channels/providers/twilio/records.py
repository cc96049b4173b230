"""Rows of Twilio's API, and lines of its exports, as facts: those of the callback of the same status.

A row tells the latest status only, and nothing of the ones before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backhaul_channels.adapter import MalformedError
from backhaul_channels.event import EventKind
from backhaul_channels.providers.twilio.errors import explain
from backhaul_channels.providers.twilio.mapping import CALL_ROW, MESSAGE_ROW, MESSAGE_SIDS, STATUSES
from backhaul_channels.values import text_of

_CALL: Final = "CA"
_INBOUND: Final = "inbound"
_RECEIVED: Final = "received"
_COMPLETED: Final = "completed"


def is_row(content: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a message or a call as the API shows it; to be asked only of what the API told."""
    sid = text_of(content.get("sid"))[:2]
    return (sid in MESSAGE_SIDS or sid == _CALL) and "status" in content and "direction" in content


def fields_of_row(content: Mapping[str, Any]) -> dict[str, str]:
    """A row as the fields of the form that would have told the same. Raises MalformedError."""
    status = text_of(content.get("status")).lower()
    if not status:
        raise MalformedError("status is missing from a row of Twilio's API.")
    is_call = text_of(content["sid"]).startswith(_CALL)
    names = CALL_ROW if is_call else MESSAGE_ROW
    fields = {field: text for name, field in names.items() if (text := text_of(content.get(name)))}
    if is_call:
        # Callbacks have it of completed calls only; rows have "0" of calls that nobody answered.
        fields["CallDuration"] = text_of(content.get("duration")) if status == _COMPLETED else ""
        fields["Timestamp"] = _first(content, "end_time", "date_updated")
        return fields
    kind = STATUSES.get(status)
    if content.get("direction") == _INBOUND or kind is EventKind.INBOUND:
        # It is a reply, whatever became of it; its error is not one of the webhook, of which a callback tells.
        if kind is not EventKind.INBOUND:
            fields["MessageStatus"] = _RECEIVED
        for name in ("ErrorCode", "ErrorMessage"):
            fields.pop(name, None)
        fields["Timestamp"] = _first(content, "date_sent", "date_created")
        return fields
    if explain(fields.get("ErrorCode", "")) is not None:
        # Status callbacks bring the code alone, so that a row with a text would complete each that failed.
        fields.pop("ErrorMessage", None)
    # date_updated is of what a row tells last, which may be more than its status: its price, say. date_sent stays.
    fields["Timestamp"] = _first(content, *(("date_sent",) if kind is EventKind.SENT else ()), "date_updated")
    return fields


def _first(content: Mapping[str, Any], *names: str) -> str:
    return next((text for name in names if (text := text_of(content.get(name)))), "")
