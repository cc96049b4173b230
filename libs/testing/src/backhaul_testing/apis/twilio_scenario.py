"""Messages and calls over Twilio, and their status callbacks.

https://www.twilio.com/docs/messaging/guides/track-outbound-message-status and
https://www.twilio.com/docs/voice/api/call-resource: of a message's first status there is no callback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Final

from backhaul_testing.apis.scenario import Callback, Scenario, Withhold, plan_of, planned
from backhaul_testing.apis.twilio import TwilioAccount
from backhaul_testing.apis.twilio_rows import Call, Resource, Text
from backhaul_testing.posts import Post, Sending, TryOnce
from backhaul_testing.twilio import OWN_NUMBER, RetryRules, TwilioSimulator

Plan = Sequence[tuple[float, str]]
"""Seconds from the beginning, and what a message is then."""

TEXTS: Final[Mapping[str, Plan]] = {
    "accepted": ((0, "accepted"),),
    "scheduled": ((0, "scheduled"),),
    "queued": ((0, "queued"),),
    "sending": ((0, "queued"), (1, "sending")),
    "sent": ((0, "queued"), (1, "sent")),
    "delivered": ((0, "queued"), (1, "sent"), (3, "delivered")),
    "undelivered": ((0, "queued"), (1, "sent"), (4, "undelivered")),
    "failed": ((0, "queued"), (1, "failed")),
    "read": ((0, "queued"), (1, "sent"), (3, "delivered"), (60, "read")),
    "canceled": ((0, "scheduled"), (30, "canceled")),
}
CALLS: Final[Mapping[str, Plan]] = {
    "completed": ((0, "queued"), (2, "ringing"), (8, "in-progress"), (38, "completed")),
    "busy": ((0, "queued"), (2, "ringing"), (3, "busy")),
    "no-answer": ((0, "queued"), (2, "ringing"), (32, "no-answer")),
    "failed": ((0, "queued"), (1, "failed")),
    "canceled": ((0, "queued"), (1, "ringing"), (5, "canceled")),
}
ERRORS: Final = {"undelivered": 30003, "failed": 30007}
"""The error of an outcome, unless told otherwise."""
MIX: Final = {"delivered": 0.8, "undelivered": 0.08, "failed": 0.06, "sent": 0.06}


@dataclass(frozen=True, slots=True)
class Status:
    """What one status callback says; its kind is ``text``, ``inbound`` or ``call``."""

    kind: str
    resource: Resource
    word: str
    number: int
    fields: dict[str, str] = field(default_factory=dict)


class TwilioScenario(Scenario[Status]):
    """What happens in ``account``. ``signer`` signs the callbacks, with the account's token unless told otherwise;
    ``shares`` are those of ``Scenario``."""

    def __init__(
        self, account: TwilioAccount, address: str = "", *, signer: TwilioSimulator | None = None, **shares: Any
    ) -> None:
        super().__init__(account.api.clock, address, **shares)
        self.account = account
        self.signer = signer or TwilioSimulator(account.auth_token)
        self._people = 0

    def text(
        self,
        to: str | None = None,
        outcome: str = "delivered",
        *,
        at: datetime | None = None,
        plan: Plan | None = None,
        error_code: int | None = None,
        withhold: Withhold = None,
        **fields: Any,
    ) -> Text:
        """Send a message, at ``at``, now unless told otherwise, to somebody new where ``to`` is None.

        ``plan`` says what becomes of it, or else ``outcome``, a key of TEXTS; ``fields`` are those of ``Text``.
        """
        steps = planned(at or self.clock.now(), plan or plan_of(TEXTS, outcome))
        code = ERRORS.get(steps[-1][1]) if error_code is None else error_code
        text = self.account.text(to or self._somebody(), steps, error_code=code, **fields)
        for number, step in enumerate(text.steps[1:], start=1):
            told = {"ErrorCode": str(step.error_code)} if step.error_code is not None else {}
            if step.status in ("delivered", "undelivered"):
                told["RawDlrDoneDate"] = f"{step.at:%y%m%d%H%M}"
            self._tell(step.at, text.sid, step.status, Status("text", text, step.status, number, told), withhold)
        return text

    def texts(
        self,
        number: int,
        *,
        outcomes: Mapping[str, float] | None = None,
        begin: datetime | None = None,
        within_s: float = 0.0,
        **fields: Any,
    ) -> list[Text]:
        """Send ``number`` messages within ``within_s`` seconds, with ``outcomes`` in these shares; MIX by default."""
        moments = self._moments(number, begin, within_s)
        return [self.text(outcome=self._outcome(outcomes or MIX), at=at, **fields) for at in moments]

    def reply(
        self,
        body: str,
        *,
        sender: str | None = None,
        at: datetime | None = None,
        withhold: Withhold = None,
        **fields: Any,
    ) -> Text:
        """Somebody writes to the account's number."""
        steps = planned(at or self.clock.now(), ((0, "received"),))
        person = sender or self._somebody()
        text = self.account.text(OWN_NUMBER, steps, sender=person, body=body, direction="inbound", **fields)
        self._tell(text.created, text.sid, "received", Status("inbound", text, "received", 0), withhold)
        return text

    def call(
        self,
        to: str | None = None,
        outcome: str = "completed",
        *,
        at: datetime | None = None,
        plan: Plan | None = None,
        withhold: Withhold = None,
        **fields: Any,
    ) -> Call:
        """Call somebody, as ``text`` sends; ``outcome`` is a key of CALLS. ``initiated`` is told of a queued call."""
        steps = planned(at or self.clock.now(), plan or plan_of(CALLS, outcome))
        call = self.account.call(to or self._somebody(), steps, **fields)
        for number, step in enumerate(call.steps):
            word = "initiated" if step.status == "queued" else step.status
            told = {"Timestamp": format_datetime(step.at)}
            if word == "completed":
                told["CallDuration"] = call.row(step.at, format_datetime)["duration"]
            self._tell(step.at, call.sid, word, Status("call", call, word, number, told), withhold)
        return call

    def posts(self, callbacks: Sequence[Callback[Status]]) -> Iterable[tuple[Post, Sequence[Callback[Status]]]]:
        for callback in callbacks:
            yield self._post(callback.content), (callback,)

    def _post(self, status: Status) -> Post:
        resource = status.resource
        fields = {"AccountSid": resource.account_sid, "From": resource.sender, "To": resource.to, **status.fields}
        if status.kind == "call":
            del fields["To"]
            fields["Caller"] = resource.sender
            return self.signer.call(self.address, resource.sid, status.word, status.number, to=resource.to, **fields)
        if isinstance(resource, Text) and resource.service:
            fields["MessagingServiceSid"] = resource.service
        if status.kind == "inbound" and isinstance(resource, Text):
            del fields["From"]
            return self.signer.inbound(self.address, resource.sid, resource.body, sender=resource.sender, **fields)
        del fields["To"]
        return self.signer.status(self.address, resource.sid, status.word, to=resource.to, **fields)

    async def _deliver(self, once: TryOnce, post: Post) -> Sending:
        return await self.signer.deliver(once, post, RetryRules.of(self.address))

    def _somebody(self) -> str:
        self._people += 1
        return f"+1500{self._people:07}"
