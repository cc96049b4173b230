"""Traffic as the providers send it: forms of 15 fields, arrays of 75 events, with good signatures."""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Sequence
from typing import Any

from backhaul_common.ids import new_callback_id
from backhaul_common.names import channel_key
from backhaul_common.tracing import new_traceparent
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback, CallbackBatch
from backhaul_testing.posts import Post
from backhaul_testing.sendgrid import Event, SendGridSimulator
from backhaul_testing.twilio import TwilioSimulator

STATUSES = ("queued", "sent", "delivered")
SENDGRID_EVENTS = ("processed", "delivered", "open")
EVENTS_A_POST = 75


RCS_TYPES = ("text", "DELIVERED", "READ")
"""A message that was sent, and what became of it."""

GENERIC_SETTINGS = {
    "proof": {"type": "credential"},
    "mapping": {
        "message_id": "data.message.id",
        "status": "data.status",
        "recipient": "data.message.to",
        "timestamp": "occurred_at",
        "communication": "data.message.campaign",
    },
}
"""Of a webhook as many senders have it: an envelope around nested fields."""


class Traffic:
    """Makes callbacks. ``base_url`` is the gateway's public base URL, which the signatures cover."""

    def __init__(self, base_url: str, *, seed: int = 1) -> None:
        self._base_url = base_url
        self._random = random.Random(seed)  # noqa: S311  # repeatable test data, no secret
        self._twilio = TwilioSimulator("0123456789abcdef0123456789abcdef")  # A made-up token of Twilio's form.
        self._sendgrid = SendGridSimulator()
        self.channels: dict[str, dict[str, Any]] = {
            "Twilio": {"secrets": [self._twilio.auth_token]},
            "SendGrid": {"secrets": [self._sendgrid.public_key]},
            "RCS": {},
            "Parcels": {"provider": "generic", "settings": GENERIC_SETTINGS},
        }
        """What a channel needs to take these callbacks, by its label."""

    @property
    def sendgrid_key(self) -> str:
        """The public key by which SendGrid's posts are verified, as SendGrid shows it."""
        return self._sendgrid.public_key

    def stop(self, sid: str, person: str) -> Post:
        """The callback of a reply that says STOP."""
        address = f"{self._base_url}/api/postevents?channelLabel=Twilio"
        return self._twilio.inbound(address, sid, "STOP", sender=person)

    def twilio_body(self, sid: str, status: str) -> dict[str, str]:
        """The form of a status callback."""
        person = f"+1500555{self._random.randrange(10_000):04d}"
        return {
            "AccountSid": "ACaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "ApiVersion": "2010-04-01",
            "ChannelInstallSid": "XEcc20d939f803ee381f2442185d0d5dc5",
            "ChannelPrefix": "sms",
            "ChannelToAddress": person,
            "From": "+15005550006",
            "MessageSid": sid,
            "MessageStatus": status,
            "MessagingServiceSid": "MGbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
            "NumSegments": "1",
            "RawDlrDoneDate": "2607171206",
            "SmsSid": sid,
            "SmsStatus": status,
            "StructuredMessage": "false",
            "To": person,
        }

    def twilio(self, count: int, *, communications: int = 10) -> list[Post]:
        """``count`` status callbacks: three for each message, of a few communications."""
        out = []
        for n in range(count):
            if n % len(STATUSES) == 0:
                sid = "SM" + self._random.randbytes(16).hex()
            address = f"{self._base_url}/api/postevents?channelLabel=Twilio&communicationId=offer-{n % communications}"
            out.append(self._twilio.form(address, self.twilio_body(sid, STATUSES[n % len(STATUSES)])))
        return out

    def of_people(self, people: Sequence[str], communication: str, *, batch_id: str = "") -> list[Post]:
        """Three status callbacks for a message to each of these telephone numbers. With ``batch_id`` they name that
        batch, and as its member the number's digits."""
        out = []
        for person in people:
            sid = "SM" + self._random.randbytes(16).hex()
            batch, member = (f"batchId={batch_id}&", f"&memberId={person.removeprefix('+')}") if batch_id else ("", "")
            query = f"{batch}channelLabel=Twilio&communicationId={communication}{member}"
            address = f"{self._base_url}/api/postevents?{query}"
            for status in STATUSES:
                body = self.twilio_body(sid, status) | {"To": person, "ChannelToAddress": person}
                out.append(self._twilio.form(address, body))
        return out

    def sendgrid_events(self, count: int, *, communications: int = 10) -> list[Event]:
        """``count`` events: three for each message."""
        out: list[Event] = []
        for n in range(count):
            if n % len(SENDGRID_EVENTS) == 0:
                message = self._random.randbytes(11).hex()
                email = f"person{self._random.randrange(1_000_000)}@example.com"
            out.append(
                {
                    "email": email,
                    "timestamp": 1_790_000_000 + n,
                    "smtp-id": f"<{message}@ismtpd0006p1sjc2.sendgrid.net>",
                    "event": SENDGRID_EVENTS[n % len(SENDGRID_EVENTS)],
                    "category": ["newsletter"],
                    "sg_event_id": base64.urlsafe_b64encode(self._random.randbytes(16)).decode(),
                    "sg_message_id": f"{message}.filter0425p1mdw1.13037.57168B4A1D.0",
                    "response": "250 2.0.0 OK 1461095248 m143si2210036ioe.159 - gsmtp",
                    "communicationId": f"offer-{n % communications}",
                }
            )
        return out

    def sendgrid(self, count: int) -> list[Post]:
        """``count`` posts of EVENTS_A_POST events each."""
        address = f"{self._base_url}/api/postevents?channelLabel=SendGrid"
        return [self._sendgrid.batch(address, self.sendgrid_events(EVENTS_A_POST)) for _ in range(count)]

    def delivered_mails(self, people: Sequence[str], communication: str) -> Post:
        """A post that tells of a mail to each of these addresses that it was delivered. Nobody signed it."""
        events = [
            {
                "email": person,
                "timestamp": 1_790_000_000,
                "event": "delivered",
                "sg_event_id": (sent := self._random.randbytes(11).hex()),
                "sg_message_id": f"{sent}.filter0425p1mdw1.13037.57168B4A1D.0",
                "communicationId": communication,
            }
            for person in people
        ]
        return self._json("SendGrid", events)

    def rcs(self, count: int, *, communications: int = 10) -> list[Post]:
        """``count`` callbacks of the RCS API: three for each message."""
        out = []
        for n in range(count):
            kind = RCS_TYPES[n % len(RCS_TYPES)]
            if n % len(RCS_TYPES) == 0:
                reference, event_id = self._random.randbytes(16).hex(), self._random.randbytes(16).hex()
                person = f"5511{self._random.randrange(900_000_000, 1_000_000_000)}"
            content = {
                "reference": reference,
                "campaign_name": f"offer-{n // len(RCS_TYPES) % communications}",
                "event_id": event_id,
                "direction": "outbound",
                "session_id": None,
                "user_id": person,
                "timestamp": f"2026-10-01T12:{n // 60 % 60:02d}:{n % 60:02d}.000Z",
                "channel": "RCS",
                "type": kind,
                "message": {"contentType": "text", "text": "Your order is on its way."} if kind == "text" else None,
                "vars": {"first_name": "Ada", "order": str(n)},
            }
            out.append(self._json("RCS", content))
        return out

    def generic(self, count: int, *, communications: int = 10) -> list[Post]:
        """``count`` posts of a mapped webhook: three for each message."""
        out = []
        for n in range(count):
            if n % len(STATUSES) == 0:
                message, person = self._random.randbytes(16).hex(), f"+1500555{self._random.randrange(10_000):04d}"
                campaign = f"offer-{n // len(STATUSES) % communications}"
            content = {
                "type": "message.status",
                "occurred_at": f"2026-10-01T12:{n // 60 % 60:02d}:{n % 60:02d}.000Z",
                "data": {
                    "status": STATUSES[n % len(STATUSES)],
                    "message": {
                        "id": message,
                        "to": person,
                        "from": "Parcels",
                        "campaign": campaign,
                    },
                    "meta": {"segments": 1, "price": {"amount": "0.0075", "currency": "USD"}, "tags": ["a", "b"]},
                },
            }
            out.append(self._json("Parcels", content))
        return out

    def _json(self, label: str, content: object) -> Post:
        address = f"{self._base_url}/api/postevents?channelLabel={label}"
        return Post(address, (("Content-Type", "application/json"),), json.dumps(content).encode())

    def stored(self, tenant: str, registration: str, label: str, posts: list[Post], group: int) -> list[bytes]:
        """``posts`` as the gateway stores them, ``group`` callbacks to a message."""
        channel = channel_key(label)
        callbacks = [
            Callback(
                id=new_callback_id(),
                tenant_id=tenant,
                registration=registration,
                channel=channel,
                provider=self.channels[label].get("provider", channel),
                method="POST",
                url=post.url,
                headers="".join(f"{name.lower()}: {value}\r\n" for name, value in post.headers).encode("latin-1"),
                body=post.body,
                received_at_us=time.time_ns() // 1000,
                source=callback_pb2.SOURCE_CALLBACK,
                verification=callback_pb2.VERIFICATION_VERIFIED,
                traceparent=new_traceparent(),
            )
            for post in posts
        ]
        return [
            CallbackBatch(callbacks=callbacks[at : at + group]).SerializeToString()
            for at in range(0, len(callbacks), group)
        ]
