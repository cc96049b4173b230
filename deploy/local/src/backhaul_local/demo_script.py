"""What the demo posts, and what must come of it: the data of the story."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.resources import files

COMMUNICATION = "spring-sale"
PARAMETERS = f"communicationId={COMMUNICATION}&offerId=SMS-20"
"""Custom parameters of Twilio's callback address."""

ERRORS = (
    "rcs 404 (channel) 1, sendgrid 400 (transient) 1, sendgrid 5.0.0 1, sendgrid bounced_address (hard) 1, "
    "twilio 30006 (hard) 1"
)
"""What was reported of Acme's messages that went wrong: each code with its class, and how often."""

UNREADABLE = {"From": "+15005550010", "To": "+15005550006", "Body": "STOP"}
"""Authentic, and without the id of any message, call or other thing of Twilio's."""

BURST_MESSAGES = 600
BURST_STATUSES = ("queued", "sent", "delivered")
BURST_DUPLICATES = 200
BURST_CONNECTIONS = 16
PROBES = 20


@dataclass(frozen=True)
class Due:
    """What a message must become, in the words that people read. ``story`` says what was sent.

    ``timeline`` holds the kinds in order, each with the provider's word where that is another. ``posts`` are Twilio's
    statuses in the order of posting.
    """

    channel: str
    id: str
    story: str
    timeline: str
    state: str
    fulfilment: str | None
    error: str = ""
    posts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Short enough for a table."""
        return f"{self.channel} {self.id if len(self.id) < 16 else '…' + self.id[-6:]}"

    @property
    def kinds(self) -> list[str]:
        """The kinds of its timeline."""
        return [step.partition(" ")[0] for step in self.timeline.split(" → ")]

    @property
    def ends(self) -> str:
        """How it ends, in one line."""
        return outcome(self.state, self.fulfilment, self.error)


_MAIL = "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88"
# fmt: off
MESSAGES = (
    Due("Twilio", "SM1342fe1b2c904d1ab04f0fc7a58abca9", "SMS, in order: arrived as queued, sent, delivered",
        "queued → sent → delivered", "delivered", "Delivered", posts=("queued", "sent", "delivered")),
    Due("Twilio", "SM338ac551ecd04d698821b50ea5d04f17",
        "SMS, out of order and twice: arrived as delivered, queued, sent, queued",
        "delivered → queued → sent", "delivered", "Delivered", posts=("delivered", "queued", "sent", "queued")),
    Due("Twilio", "SM97654ba462114de7a8d9c064e343f9c5", "SMS to a landline: arrived as queued, failed",
        "queued → failed", "failed", "Failed", "30006: Landline or unreachable carrier", ("queued", "failed")),
    Due("Twilio", "SM7cd85aed706d25735d1c8019234572df", 'SMS from a person: the reply "STOP"',
        "inbound (received)", "inbound", None, posts=("received",)),
    Due("SendGrid", f"{_MAIL}.0", "E-mail that was read: seven of the batch's events",
        "queued (processed) → deferred → delivered → opened (open) → clicked (click)"
        " → unsubscribed (group_unsubscribe) → subscribed (group_resubscribe)", "clicked", "Delivered"),
    Due("SendGrid", f"{_MAIL}.1", "E-mail to an unknown mailbox",
        "bounced (bounce)", "bounced", "Undelivered", "5.0.0: 500 unknown recipient"),
    Due("SendGrid", f"{_MAIL}.2", "E-mail that SendGrid did not even try",
        "rejected (dropped)", "rejected", "Failed", "bounced_address: Bounced Address"),
    Due("SendGrid", f"{_MAIL}.3", "E-mail reported as spam",
        "complained (spamreport) → unsubscribed (unsubscribe)", "complained", "Delivered"),
)
# fmt: on
EVENTS = Counter(kind for due in MESSAGES for kind in due.kinds)
FULFILMENT = Counter(due.fulfilment for due in MESSAGES if due.fulfilment)


def sendgrid_batch() -> bytes:
    """All of SendGrid's eleven event types, for the four e-mails, as SendGrid posts them."""
    return files("backhaul_local").joinpath("demo_batch.json").read_bytes()


def outcome(state: str, fulfilment: str | None, error: str) -> str:
    """How a message ended, in one line."""
    counted = f"counts as {fulfilment}" if fulfilment else "counts in no fulfilment state"
    return f"{state}, {counted}" + (f", error {error}" if error else "")
