"""The words of Pointer's RCS API v3 and what they mean here. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backhaul_channels.event import ErrorClass, ErrorMeaning, EventKind

DOCUMENTATION = "https://doc-pointer-rcs-api-node.pontaltech.com.br/api-docv3/en-us/api-reference/callbacks"

# All words of this file are compared in lower case: the documentation writes a type as "delivered" and as "DELIVERED".

# What became of a message.
STATUSES: Final[Mapping[str, EventKind]] = {
    "delivered": EventKind.DELIVERED,
    "read": EventKind.READ,
    "prepaid_blocked": EventKind.BLOCKED_CREDIT,
    "exception": EventKind.FAILED,
    "error": EventKind.FAILED,
}

# What a message consists of. Whether it was sent or received, the direction says.
CONTENTS: Final = frozenset(
    {
        "text",
        "image",
        "video",
        "audio",
        "document",
        "contact",
        "location",
        "richcard",
        "carousel",
        "basic",
        "conversational",
        "conversacional",
        "single",
        "suggestion",
    }
)

DIRECTIONS: Final[Mapping[str, EventKind]] = {"outbound": EventKind.SENT, "inbound": EventKind.INBOUND}

SUGGESTION_RESPONSE = "suggestionresponse"

# What a person did with a button. A reply is a message of theirs; the others are clicks in the sender's message.
SUGGESTIONS: Final[Mapping[str, EventKind]] = {
    "reply": EventKind.INBOUND,
    "openurl": EventKind.CLICKED,
    "call": EventKind.CLICKED,
}

# The HTTP statuses that stand in the text of an exception or error. The texts are ours; the class is our judgement. A
# device without RCS says nothing about the person, who may have one tomorrow, and gets SMS today.
ERROR_CODES: Final[Mapping[str, ErrorMeaning]] = {
    "401": ErrorMeaning("The provider could not get its access token.", ErrorClass.ACCOUNT, DOCUMENTATION),
    "403": ErrorMeaning("The device does not support RCS.", ErrorClass.CHANNEL, DOCUMENTATION),
    "404": ErrorMeaning("The device does not support RCS.", ErrorClass.CHANNEL, DOCUMENTATION),
    "502": ErrorMeaning("The RCS platform gave the provider a bad answer.", ErrorClass.TRANSIENT, DOCUMENTATION),
    "503": ErrorMeaning("The RCS platform was not available.", ErrorClass.TRANSIENT, DOCUMENTATION),
}

# Fields that are kept as they are, and the names of their attributes.
ATTRIBUTES: Final[Mapping[str, str]] = {
    "event_id": "event_id",
    "direction": "direction",
    "session_id": "session_id",
    "channel": "channel",
}
