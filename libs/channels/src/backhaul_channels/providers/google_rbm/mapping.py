"""The words of RCS for Business and what they mean here. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backhaul_channels.event import ConsentAction, ErrorClass, ErrorMeaning, EventKind

_REFERENCE = "https://developers.google.com/business-communications/rcs-business-messaging/reference/rest/v1"

# UserEvent.EventType and ServerEvent.EventType. A message that has expired and could not be taken back may still be
# delivered, so that this is no end of it.
EVENTS: Final[Mapping[str, EventKind]] = {
    "delivered": EventKind.DELIVERED,
    "read": EventKind.READ,
    "unsubscribe": EventKind.UNSUBSCRIBED,
    "subscribe": EventKind.SUBSCRIBED,
    "ttl_expiration_revoked": EventKind.EXPIRED,
    "ttl_expiration_revoke_failed": EventKind.UNKNOWN,
}

CONSENTS: Final[Mapping[str, ConsentAction]] = {
    "unsubscribe": ConsentAction.OPT_OUT,
    "subscribe": ConsentAction.OPT_IN,
}

# Events that nobody keeps, and the reason under which they are counted.
IGNORED: Final[Mapping[str, str]] = {"is_typing": "typing"}

# What the platform says went wrong with a message. Its other errors are answers to the sending, and in no event. The
# texts are ours; the class is our judgement.
ERROR_CODES: Final[Mapping[str, ErrorMeaning]] = {
    "TTL_EXPIRATION_REVOKED": ErrorMeaning(
        "The message could not be delivered within its time to live, and was taken back.",
        ErrorClass.TRANSIENT,
        f"{_REFERENCE}/ServerEvent.EventType",
    ),
    "TTL_EXPIRATION_REVOKE_FAILED": ErrorMeaning(
        "The message was not delivered within its time to live and could not be taken back; it may still arrive.",
        ErrorClass.TRANSIENT,
        f"{_REFERENCE}/ServerEvent.EventType",
    ),
}

# SuggestionResponse.SuggestionType: a button that opens or calls something. All others are answers.
ACTION = "ACTION"

# The events of an agent's launch, and the names of their attributes.
# https://developers.google.com/business-communications/rcs-business-messaging/guides/build/events/receive-events
LAUNCH = "newLaunchState"
LAUNCH_ATTRIBUTES: Final[Mapping[str, str]] = {
    "newLaunchState": "new_launch_state",
    "oldLaunchState": "old_launch_state",
    "regionId": "region_id",
    "brandId": "brand_id",
    "brandDisplayName": "brand_display_name",
    "botDisplayName": "agent_display_name",
    "actingParty": "acting_party",
    "comment": "comment",
}
