"""The callback service as the product's documentation describes it: its labels and paths, Twilio's states, what people
reply, surveys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from backhaul_client import ProblemError
from backhaul_client.models import Event
from backhaul_testing.posts import Post
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from simulators.people import Tenant, Town

LABELS = ("SendGrid", "mPulse", "Twilio", "Outbound Delivery")
STATES = {
    "queued": "Queued",
    "sent": "Sent",
    "delivered": "Delivered",
    "undelivered": "Undelivered",
    "failed": "Failed",
}
STOP = ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPTOUT", "OPT-OUT", "REVOKE")
START = ("START", "YES", "UNSTOP")
HELP = ("HELP", "INFO")


async def _replies(tenant: Tenant, count: int) -> dict[str, Event]:
    """The inbound events by their texts, as soon as they are ``count``."""

    async def there() -> list[Event] | None:
        found = await tenant.events(kind="inbound")
        return found if len(found) >= count else None

    return {event.text: event for event in await until(f"{count} replies", there)}


@pytest.mark.parametrize("path", ["api/postevents", "api/PostEvents"])
async def test_each_channel_is_known_by_its_label_in_any_case(town: Town, path: str) -> None:
    tenant = await town.platform.register()
    for label in ("mPulse", "Outbound Delivery"):
        await town.platform.client.put_channel(tenant.id, label)
    assert (await tenant.client.test()).status == "ok"
    event = json.dumps([{"messageId": "m-1", "status": "delivered", "email": "ann@example.com"}]).encode()
    for label in LABELS:
        for spelled in (label, label.upper(), label.lower()):
            url = f"{tenant.base_url}/in/{tenant.ingest_token}/{path}?channelLabel={quote(spelled)}"
            if label == "SendGrid":
                post = tenant.sendgrid.signed(url, b"[]")
            elif label == "Twilio":
                post = tenant.twilio.status(url, new_sid(), "sent")
            else:
                post = Post(url, (("Content-Type", "application/json"),), event)
            answer = await tenant.send(post)
            assert answer.status_code == 200, answer.text
            status = await tenant.client.channel_status(spelled)
            assert status.parts.callbacks.state == "OK"
    for channel in ("mpulse", "outbound-delivery"):
        assert (await tenant.message_with(channel, "m-1", 1)).fulfilment_state == "Delivered"


async def test_twilios_states_are_the_fulfilment_states(town: Town) -> None:
    tenant = await town.platform.register()
    address = tenant.address("Twilio", offerId="offer-9")
    sids = {status: new_sid() for status in STATES}
    for status, sid in sids.items():
        await tenant.send(tenant.twilio.status(address, sid, status))
    invalid = new_sid()
    wrong = {"ErrorCode": "21211", "ErrorMessage": "Invalid 'To' Phone Number"}
    await tenant.send(tenant.twilio.status(address, invalid, "failed", **wrong))
    for status, sid in sids.items():
        assert (await tenant.message_with("twilio", sid, 1)).fulfilment_state == STATES[status]
    message = await tenant.message_with("twilio", invalid, 1)
    assert (message.fulfilment_state, message.error_code, message.error_class) == ("InvalidNumber", "21211", "hard")

    async def counted() -> bool:
        found = await tenant.communication("offer-9")
        return found is not None and found.fulfilment == dict.fromkeys((*STATES.values(), "InvalidNumber"), 1)

    await until("each state once", counted)


async def test_each_keyword_is_recognised_as_a_form_and_as_json(town: Town) -> None:
    tenant = await town.platform.register()
    address = tenant.address("Twilio")
    actions = {**dict.fromkeys(STOP, "opt_out"), **dict.fromkeys(START, "opt_in"), **dict.fromkeys(HELP, "help")}
    for number, word in enumerate(actions):
        fields = {"EventType": "IncomingMessageEvent"}
        person = f"+15005551{number:03d}"
        await tenant.send(tenant.twilio.inbound(address, new_sid(), word, sender=person, **fields))
    as_json = {"EventType": "IncomingMessageEvent", "MessageSid": new_sid(), "Body": "stop!", "From": "+15005552000"}
    await tenant.send(tenant.twilio.cloud_events(address, [as_json]))
    found = await _replies(tenant, len(actions) + 1)
    for word, action in {**actions, "stop!": "opt_out"}.items():
        consent = found[word].consent
        assert consent is not None, word
        assert (consent.action, consent.by, consent.only_if_opted_out) == (action, "keyword", word == "YES")


async def test_free_text_is_a_survey_response_only_where_that_is_captured(town: Town) -> None:
    silent, asking = await town.platform.register(), await town.platform.register()
    templates = [{"name": "Delivery day", "keywords": ["monday", "tuesday"]}]
    with pytest.raises(ProblemError, match="capture_survey_responses") as refused:
        await town.platform.client.put_channel(silent.id, "Twilio", settings={"replies": {"templates": templates}})
    assert [violation.field for violation in refused.value.errors] == ["settings.replies"]
    settings = {"replies": {"capture_survey_responses": True, "templates": templates}}
    await town.platform.client.put_channel(asking.id, "Twilio", settings=settings)
    texts = ("Nine out of ten, thank you", "Tuesday.", "STOP")
    for tenant in (silent, asking):
        for text in texts:
            await tenant.send(tenant.twilio.inbound(tenant.address("Twilio"), new_sid(), text))
    said = {}
    for tenant in (silent, asking):
        found = await _replies(tenant, len(texts))
        said[tenant.id] = [
            (one.survey_response, one.templates) for text in texts if (one := found[text].classification) is not None
        ]
    assert said[silent.id] == [(False, ()), (False, ()), (False, ())]
    assert said[asking.id] == [(True, ()), (False, ("Delivery day",)), (False, ())]
