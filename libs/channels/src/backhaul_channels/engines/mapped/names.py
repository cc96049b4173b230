"""The usual names of fields in webhooks. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

USUAL_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("eventid", "eventuuid", "callbackid"), "event_id"),
    **dict.fromkeys(("messageid", "msgid", "messageuuid", "messagesid", "smsid", "id"), "message_id"),
    **dict.fromkeys(("status", "messagestatus", "deliverystatus", "eventtype", "event", "state"), "status"),
    **dict.fromkeys(("direction", "messagedirection"), "direction"),
    **dict.fromkeys(("recipient", "to", "destination"), "recipient"),
    **dict.fromkeys(
        ("phone", "phonenumber", "mobile", "mobilenumber", "mobilephone", "msisdn", "email", "emailaddress"), "person"
    ),
    **dict.fromkeys(("sender", "from", "originator", "shortcode"), "sender"),
    **dict.fromkeys(
        ("timestamp", "eventtimestamp", "eventtime", "occurredat", "datetime", "time", "date", "createdat"), "timestamp"
    ),
    **dict.fromkeys(("text", "message", "messagetext", "body", "content", "keyword"), "text"),
    **dict.fromkeys(("inreplyto", "originalmessageid"), "reply_to"),
    **dict.fromkeys(("errorcode", "reasoncode", "failurecode"), "error_code"),
    **dict.fromkeys(
        ("errormessage", "errortext", "errordescription", "failurereason", "reason", "error"), "error_text"
    ),
    **dict.fromkeys(("communicationid", "campaignid", "campaignname", "campaign"), "communication"),
    **dict.fromkeys(("customparameters", "customfields", "metadata", "vars"), "vars"),
}
"""Names, squeezed, the likeliest of a field first, each with the field that it is."""
