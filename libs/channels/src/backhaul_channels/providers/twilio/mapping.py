"""Twilio's words and what they mean here. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from backhaul_channels.event import AddressFamily, ConsentAction, EventKind

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

# The codes that speak of the address itself rather than of one attempt to reach it. What codes mean is in errors.py.
INVALID_RECIPIENT = frozenset({"21211", "21614", "21217"})

# https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out
OPT_OUT_TYPES: Final[Mapping[str, ConsentAction]] = {
    "STOP": ConsentAction.OPT_OUT,
    "START": ConsentAction.OPT_IN,
    "HELP": ConsentAction.HELP,
}

# WhatsApp's ids of a person that are no number: of this business, and of the group of businesses that it belongs to.
# https://www.twilio.com/docs/whatsapp/bsuid
_person = {
    "ExternalUserId": "external_user_id",
    "ExternalUserIdentifier": "external_user_id",
    "ParentExternalUserId": "parent_external_user_id",
    "ProfileUsername": "profile_username",
}

# Form fields that somebody acts upon beside the common ones, and the attribute that each becomes. An event keeps the
# provider's own words whole, so what nobody acts upon (account, segments, …) is not repeated here. Media are numbered,
# so code adds them.
# https://www.twilio.com/docs/messaging/guides/track-outbound-message-status
STATUS_ATTRIBUTES: Final[Mapping[str, str]] = {
    "RawDlrDoneDate": "raw_dlr_done_date",
    "ChannelPrefix": "channel_prefix",
    "ChannelStatusMessage": "channel_status_message",
    **_person,
}

# https://www.twilio.com/docs/messaging/guides/webhook-request. The error is the webhook's: Twilio could not use the
# answer of the first address, and asks the fallback. https://www.twilio.com/docs/availability-reliability
INBOUND_ATTRIBUTES: Final[Mapping[str, str]] = {
    "ErrorCode": "webhook_error_code",
    "ErrorUrl": "webhook_error_url",
    "NumMedia": "num_media",
    "MessageType": "message_type",
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
    "ReferralMediaId": "referral_media_id",
    "ReferralMediaContentType": "referral_media_content_type",
    "ReferralMediaUrl": "referral_media_url",
    "ReferralNumMedia": "referral_num_media",
    **_person,
}

# https://www.twilio.com/docs/voice/api/call-resource#call-status-values
CALL_STATUSES: Final[Mapping[str, EventKind]] = {
    "queued": EventKind.QUEUED,
    "initiated": EventKind.INITIATED,
    "ringing": EventKind.RINGING,
    "in-progress": EventKind.ANSWERED,
    "completed": EventKind.COMPLETED,
    "busy": EventKind.BUSY,
    "no-answer": EventKind.NO_ANSWER,
    "failed": EventKind.FAILED,
    "canceled": EventKind.CANCELED,
}

# The directions in which the person is the caller: into Twilio, or through a trunk of the tenant's.
FROM_THE_PERSON = frozenset({"inbound", "trunking-originating"})

# https://www.twilio.com/docs/voice/twiml#request-parameters and
# https://www.twilio.com/docs/voice/api/call-resource#statuscallbackevent
CALL_ATTRIBUTES: Final[Mapping[str, str]] = {
    "Direction": "direction",
    "ParentCallSid": "parent_call_sid",
    "CallDuration": "call_duration",
    "SipResponseCode": "sip_response_code",
    "AnsweredBy": "answered_by",
    "MachineDetectionDuration": "machine_detection_duration",
    "RecordingSid": "recording_sid",
    "RecordingUrl": "recording_url",
    "RecordingDuration": "recording_duration",
    "RecordingStatus": "recording_status",
    "RecordingChannels": "recording_channels",
    "RecordingStartTime": "recording_start_time",
    "TranscriptionSid": "transcription_sid",
    "TranscriptionUrl": "transcription_url",
    "ForwardedFrom": "forwarded_from",
    "CallerName": "caller_name",
    "StirVerstat": "stir_verstat",
    "FromCountry": "from_country",
    "ToCountry": "to_country",
}


class CallReport(NamedTuple):
    """What a field with a word says of a call beside its state: ``name`` of the report, the fields that tell one from
    the next (``ids``), and whether the field also comes along with a state, which then counts."""

    name: str
    ids: tuple[str, ...] = ()
    with_a_state: bool = False


# https://www.twilio.com/docs/voice/api/recording#recordingstatuscallback,
# https://www.twilio.com/docs/voice/twiml/record#transcribecallback, https://www.twilio.com/docs/voice/twiml/transcription,
# https://www.twilio.com/docs/voice/twiml/stream and https://www.twilio.com/docs/voice/answering-machine-detection
CALL_REPORTS: Final[Mapping[str, CallReport]] = {
    "RecordingStatus": CallReport("recording", ("RecordingSid",)),
    "TranscriptionStatus": CallReport("transcription", ("TranscriptionSid",)),
    "TranscriptionEvent": CallReport("transcription", ("TranscriptionSid", "SequenceId")),
    "StreamEvent": CallReport("stream", ("StreamSid",)),
    "AnsweredBy": CallReport("amd", with_a_state=True),
}

# Event Streams: the last part of the type as a state, where the fields of the form are left out. Every end of a call is
# "completed" there, so that without the form's word nothing is known of it but that it ended.
# https://www.twilio.com/docs/events/event-types/voice/status-callback
CALL_EVENT_STATUSES: Final[Mapping[str, str]] = {"answered": "in-progress", "completed": "ended"}

# Rows of the API and of BulkExport's files: which field of a form each of theirs is. What a form does not have, such as
# a price, is not read. https://www.twilio.com/docs/messaging/api/message-resource
MESSAGE_ROW: Final[Mapping[str, str]] = {
    "sid": "MessageSid",
    "status": "MessageStatus",
    "from": "From",
    "to": "To",
    "body": "Body",
    "num_media": "NumMedia",
    "messaging_service_sid": "MessagingServiceSid",
    "error_code": "ErrorCode",
    "error_message": "ErrorMessage",
}

# https://www.twilio.com/docs/voice/api/call-resource
CALL_ROW: Final[Mapping[str, str]] = {
    "sid": "CallSid",
    "status": "CallStatus",
    "from": "From",
    "to": "To",
    "direction": "Direction",
    "parent_call_sid": "ParentCallSid",
    "answered_by": "AnsweredBy",
    "forwarded_from": "ForwardedFrom",
    "caller_name": "CallerName",
}

# Which field belongs to which event, by its status; what an event does not have is not read. A status that is not here
# may be a failure. Parts of the table are in small letters, since each of their entries counts where it is used.
_always = frozenset(
    {"MessageSid", "SmsSid", "SmsMessageSid", "MessageStatus", "SmsStatus", "EventType", "AccountSid", "From", "To"}
    | {"ApiVersion", "MessagingServiceSid", "Timestamp"}
)
_status = _always | frozenset(STATUS_ATTRIBUTES) | {"ChannelInstallSid", "ChannelToAddress", "StructuredMessage"}
# Twilio gives an error to messages that failed or were not delivered, and to no other status.
_error = frozenset({"ErrorCode", "ErrorMessage"})
_reply = frozenset({"OriginalRepliedMessageSid", "ButtonPayload", "ButtonText", "ListId", "ListTitle"})
_inbound = _always | frozenset(INBOUND_ATTRIBUTES) | _reply | {"Body", "OptOutType", "NumSegments"}

_call = frozenset({"CallSid", "CallStatus", "CallbackSource", "SequenceNumber", "Timestamp", "From", "To"})
_call |= frozenset({"Caller", "Called", "AccountSid", "ApiVersion", "ErrorUrl"}) | frozenset(CALL_ATTRIBUTES)

# Three words are states of messages and of calls; which of the two an event is, its SID says.
FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "initiated": _call,
    "ringing": _call,
    "in-progress": _call,
    "completed": _call,
    "busy": _call | _error,
    "no-answer": _call | _error,
    "accepted": _status,
    "scheduled": _status,
    "queued": _status | _call,
    "sending": _status,
    "sent": _status,
    "delivered": _status,
    "partially_delivered": _status,
    "undelivered": _status | _error,
    "failed": _status | _error | _call,
    "canceled": _status | _call,
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
    # https://www.twilio.com/docs/sync/webhooks
    "sync": Product(
        {"DocumentSid": "ET", "ListSid": "ES", "MapSid": "MP", "StreamSid": "TO"},
        ("DocumentSid", "ListSid", "MapSid", "StreamSid"),
        moments=("DocumentRevision", "ListItemIndex", "ListItemRevision", "MapItemKey", "MapItemRevision"),
    ),
    # https://www.twilio.com/docs/video/api/status-callbacks
    "video": Product(
        {"RoomSid": "RM", "CompositionSid": "CJ"},
        ("RoomSid", "CompositionSid", "ParticipantSid", "TrackSid", "RecordingSid"),
        ("StatusCallbackEvent",),
        ("SequenceNumber", "Timestamp"),
    ),
    # What is told of conferences, and of recordings without a call; calls are events of their own.
    # https://www.twilio.com/docs/voice/api/conference-resource#statuscallback
    "voice": Product(
        {"ConferenceSid": "CF", "RecordingSid": "RE"},
        ("CallSid", "ConferenceSid", "RecordingSid"),
        ("StatusCallbackEvent", "CallStatus", "RecordingStatus"),
        ("SequenceNumber", "Timestamp"),
    ),
}

# Whose webhook one is that has no row in PRODUCTS, by the beginning of a SID in it.
# https://www.twilio.com/docs/glossary/what-is-a-sid
SID_PRODUCTS: Final[Mapping[str, str]] = {
    "VE": "verify",
    "VL": "verify",
    "VA": "verify",
    "YF": "verify",
    "YC": "verify",
    "FX": "fax",
    "DE": "wireless",
    "HS": "wireless",
    "DC": "wireless",
    "BU": "trusthub",
    "BN": "a2p",
    "QE": "a2p",
    "TK": "trunking",
    "GT": "intelligence",
    "GA": "intelligence",
    "FO": "flex",
    "ZS": "functions",
    "PK": "pay",
}

# Fields that say what happened, wherever they are; the first that is there counts.
WORDS = ("EventType", "StatusCallbackEvent", "event_type", "type", "Status", "status")

# Fields that differ when the same webhook is sent again.
OF_A_RETRY = frozenset({"RetryCount"})

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

# https://www.twilio.com/docs/events/event-types/verify/message-status: messages that Verify sends, each under the id of
# its attempt.
VERIFY_EVENT_PREFIX = "com.twilio.accountsecurity.verify.message."

# The family of the recipient's address, by Verify's channel. What is not here is a message to a number.
VERIFY_FAMILIES: Final[Mapping[str, AddressFamily]] = {
    "email": AddressFamily.EMAIL,
    "call": AddressFamily.VOICE,
}

VERIFY_ATTRIBUTES: Final[Mapping[str, str]] = {
    "verification_sid": "verification_sid",
    "service_sid": "service_sid",
    "channel": "channel",
    "mcc": "mcc",
    "mnc": "mnc",
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
