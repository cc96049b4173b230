"""Twilio's words and what they mean here. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from backhaul_channels.event import ConsentAction, EventKind

# https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
STATUSES: Final[Mapping[str, EventKind]] = {
    "accepted": EventKind.QUEUED,
    "scheduled": EventKind.QUEUED,
    "queued": EventKind.QUEUED,
    "sending": EventKind.QUEUED,
    "sent": EventKind.SENT,
    "delivered": EventKind.DELIVERED,
    "partially_delivered": EventKind.DELIVERED,
    "undelivered": EventKind.UNDELIVERED,
    "failed": EventKind.FAILED,
    "canceled": EventKind.CANCELED,
    "read": EventKind.READ,
    "receiving": EventKind.INBOUND,
    "received": EventKind.INBOUND,
}

# RCS and WhatsApp say in EventType that a message was read while MessageStatus may still show one of these.
# https://www.twilio.com/docs/messaging/guides/track-outbound-message-status
BEFORE_READ = frozenset({"sent", "delivered", "partially_delivered"})


# An inbound message, in the words of the product's callback service.
INCOMING_EVENT_TYPE = "INCOMINGMESSAGEEVENT"


class ErrorCode(NamedTuple):
    """What an error code means: a sentence for people, and its class. ``hard``: the address will never work;
    ``suppress``: the person does not want messages; ``transient``: another try may work; ``other``: none of these."""

    text: str
    error_class: str


# https://www.twilio.com/docs/api/errors - texts are ours; the class is our judgement.
ERROR_CODES: Final[Mapping[str, ErrorCode]] = {
    "21211": ErrorCode("The To number is invalid.", "hard"),
    "21217": ErrorCode("The phone number does not appear to be valid.", "hard"),
    "21610": ErrorCode("The recipient has unsubscribed.", "suppress"),
    "21614": ErrorCode("The To number is not a mobile number.", "hard"),
    "30001": ErrorCode("The sender's queue overflowed.", "transient"),
    "30002": ErrorCode("The account is suspended.", "other"),
    "30003": ErrorCode("The handset is unreachable.", "transient"),
    "30004": ErrorCode("The message was blocked.", "other"),
    "30005": ErrorCode("The handset is unknown.", "hard"),
    "30006": ErrorCode("The number is a landline, or its carrier is unreachable.", "hard"),
    "30007": ErrorCode("The message was filtered by Twilio or the carrier.", "other"),
    "30008": ErrorCode("The carrier gave no reason.", "transient"),
    "63016": ErrorCode("Outside of WhatsApp's customer service window, without a template.", "other"),
    "63024": ErrorCode("The recipient cannot receive messages on this channel.", "other"),
    "63036": ErrorCode("The recipient cannot be reached over RCS.", "other"),
}

# The codes that speak of the address itself rather than of one attempt to reach it.
INVALID_RECIPIENT = frozenset({"21211", "21614", "21217"})

# https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out
OPT_OUT_TYPES: Final[Mapping[str, ConsentAction]] = {
    "STOP": ConsentAction.OPT_OUT,
    "START": ConsentAction.OPT_IN,
    "HELP": ConsentAction.HELP,
}

# Form fields that somebody acts upon beside the common ones, and the attribute that each becomes. An event keeps the
# provider's own words whole, so what nobody acts upon (account, segments, …) is not repeated here. Media are numbered,
# so code adds them.
# https://www.twilio.com/docs/messaging/guides/track-outbound-message-status
STATUS_ATTRIBUTES: Final[Mapping[str, str]] = {
    "RawDlrDoneDate": "raw_dlr_done_date",
    "ChannelPrefix": "channel_prefix",
    "ChannelStatusMessage": "channel_status_message",
}

# https://www.twilio.com/docs/messaging/guides/webhook-request. The error is the webhook's: Twilio could not use the
# answer of the first address, and asks the fallback. https://www.twilio.com/docs/availability-reliability
INBOUND_ATTRIBUTES: Final[Mapping[str, str]] = {
    "ErrorCode": "webhook_error_code",
    "ErrorUrl": "webhook_error_url",
    "NumMedia": "num_media",
    "ChannelPrefix": "channel_prefix",
    "ChannelMetadata": "channel_metadata",
    "ButtonType": "button_type",
    "InteractiveData": "interactive_data",
    "FlowData": "flow_data",
    "Latitude": "latitude",
    "Longitude": "longitude",
    "Address": "address",
    "Label": "label",
    "FromCity": "from_city",
    "FromState": "from_state",
    "FromZip": "from_zip",
    "FromCountry": "from_country",
    "ProfileName": "profile_name",
    "WaId": "wa_id",
    "Forwarded": "forwarded",
    "FrequentlyForwarded": "frequently_forwarded",
    "OriginalRepliedMessageSender": "original_replied_message_sender",
    "ReferralBody": "referral_body",
    "ReferralHeadline": "referral_headline",
    "ReferralSourceId": "referral_source_id",
    "ReferralSourceType": "referral_source_type",
    "ReferralSourceUrl": "referral_source_url",
    "ReferralCtwaClid": "referral_ctwa_clid",
}

# Which field belongs to which event, by its status; what an event does not have is not read. A status that is not here
# may be a failure. Parts of the table in
# small letters, since each of their entries counts where it is used.
_always = frozenset(
    {"MessageSid", "SmsSid", "SmsMessageSid", "MessageStatus", "SmsStatus", "EventType", "AccountSid", "From", "To"}
    | {"ApiVersion", "MessagingServiceSid", "Timestamp"}
)
_status = _always | STATUS_ATTRIBUTES.keys() | {"ChannelInstallSid", "ChannelToAddress", "StructuredMessage"}
# Twilio gives an error to messages that failed or were not delivered, and to no other status.
_error = frozenset({"ErrorCode", "ErrorMessage"})
_reply = frozenset({"OriginalRepliedMessageSid", "ButtonPayload", "ButtonText"})
_inbound = _always | INBOUND_ATTRIBUTES.keys() | _reply | {"Body", "OptOutType", "NumSegments"}

FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "accepted": _status,
    "scheduled": _status,
    "queued": _status,
    "sending": _status,
    "sent": _status,
    "delivered": _status,
    "partially_delivered": _status,
    "undelivered": _status | _error,
    "failed": _status | _error,
    "canceled": _status,
    "read": _status,
    "receiving": _inbound,
    "received": _inbound,
}

# The beginnings of a message's SID: SMS (and all that is sent like one), and MMS.
MESSAGE_SIDS: Final = frozenset({"SM", "MM"})


class Product(NamedTuple):
    """One of Twilio's other products. ``subjects``: the fields whose value is a SID of its own kind, and how that
    begins. ``ids``: the fields that name what happened to what. ``words``: the fields that say what happened, where
    ``EventType`` does not. ``moments``: the fields that tell one happening from the next of its kind."""

    subjects: Mapping[str, str]
    ids: tuple[str, ...]
    words: tuple[str, ...] = ()
    moments: tuple[str, ...] = ()


PRODUCTS: Final[Mapping[str, Product]] = {
    # https://www.twilio.com/docs/conversations/conversations-webhooks
    "conversations": Product({"ConversationSid": "CH"}, ("ConversationSid",), moments=("DateUpdated", "Timestamp")),
    # https://www.twilio.com/docs/chat/webhook-events
    "chat": Product({"ChannelSid": "CH"}, ("ChannelSid",), moments=("DateUpdated", "Timestamp")),
    # https://www.twilio.com/docs/proxy/api/webhooks
    "proxy": Product(
        {"interactionSid": "KI"},
        ("interactionSid",),
        ("interactionType",),
        ("inboundResourceStatus", "outboundResourceStatus", "interactionDateUpdated"),
    ),
    # https://www.twilio.com/docs/notify/notify-delivery-callbacks
    "notify": Product({"NotificationSid": "NT"}, ("NotificationSid",), moments=("SequenceId",)),
    # https://www.twilio.com/docs/usage/troubleshooting/debugging-event-webhooks
    "debugger": Product({"Sid": "NO"}, ("Sid",), ("Level", "PayloadType")),
    # https://www.twilio.com/docs/taskrouter/api/event/reference
    "taskrouter": Product({"WorkspaceSid": "WS"}, ("ResourceSid", "Sid"), moments=("TimestampMs", "Timestamp")),
    # https://www.twilio.com/docs/studio/rest-api/v2/execution
    "studio": Product({"ExecutionSid": "FN", "FlowSid": "FW"}, ("ExecutionSid", "StepSid")),
    # https://www.twilio.com/docs/video/api/status-callbacks
    "video": Product(
        {"RoomSid": "RM", "CompositionSid": "CJ"},
        ("RoomSid", "CompositionSid", "ParticipantSid", "TrackSid", "RecordingSid"),
        ("StatusCallbackEvent",),
        ("SequenceNumber", "Timestamp"),
    ),
    # https://www.twilio.com/docs/voice/api/call-resource#statuscallback
    "voice": Product(
        {"CallSid": "CA", "ConferenceSid": "CF", "RecordingSid": "RE"},
        ("CallSid", "ConferenceSid", "RecordingSid"),
        ("StatusCallbackEvent", "CallStatus", "RecordingStatus"),
        ("SequenceNumber", "Timestamp"),
    ),
}

# What an event of Conversations or Chat is about, by the word after "on" in its EventType.
CONVERSATION_IDS: Final[Mapping[str, str]] = {
    "Message": "MessageSid",
    "Conversation": "ConversationSid",
    "Participant": "ParticipantSid",
    "Delivery": "DeliveryReceiptSid",
    "User": "UserSid",
    "Channel": "ChannelSid",
    "Member": "MemberSid",
}

# The second part of a CloudEvent's type behind com.twilio, where it is not the product's name.
EVENT_PRODUCTS: Final[Mapping[str, str]] = {
    "accountsecurity": "verify",
    "error-logs": "debugger",
}

# Event Streams. https://www.twilio.com/docs/events/event-types/messaging/outbound-message
STATUS_EVENT_PREFIX = "com.twilio.messaging.message."
INBOUND_EVENT_PREFIX = "com.twilio.messaging.inbound-message."

DATA_ATTRIBUTES: Final[Mapping[str, str]] = {
    "rawDlrDoneDate": "raw_dlr_done_date",
    "numMedia": "num_media",
    "mcc": "mcc",
    "mnc": "mnc",
    "fromCity": "from_city",
    "fromState": "from_state",
    "fromZip": "from_zip",
    "fromCountry": "from_country",
    "referralCtwaClid": "referral_ctwa_clid",
}

# https://www.twilio.com/docs/events/event-types/link-shortening/link: the type's last part, what happened, and which
# field says when.
LINK_EVENT_PREFIX = "com.twilio.daptbt.link-shortening."


class LinkEvent(NamedTuple):
    """What an event about a shortened link means, and the field with its time."""

    kind: EventKind
    time: str


LINK_EVENTS: Final[Mapping[str, LinkEvent]] = {
    "link-clicked": LinkEvent(EventKind.CLICKED, "click_time"),
    "link-shortened": LinkEvent(EventKind.UNKNOWN, "link_create_time"),
}

LINK_ATTRIBUTES: Final[Mapping[str, str]] = {
    "link": "url",
    "shortened_link": "shortened_url",
    "user_agent": "user_agent",
}
