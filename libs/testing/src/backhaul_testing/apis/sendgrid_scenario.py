"""Mails over SendGrid, and the events of its webhook.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from backhaul_testing.apis.scenario import Callback, Scenario, Withhold, plan_of
from backhaul_testing.apis.sendgrid import SendGridUser
from backhaul_testing.apis.sendgrid_rows import Mail
from backhaul_testing.posts import Post, Sending, TryOnce
from backhaul_testing.sendgrid import Event, SendGridSimulator


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of an outcome, seconds after its beginning; ``word`` and ``fields`` are the webhook's. ``nameless``, it
    tells neither the mail's id nor custom arguments, as an asynchronous bounce."""

    after_s: float
    word: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    nameless: bool = False


_PROCESSED: Final = Happening(0, "processed")
_DELIVERED: Final = Happening(2, "delivered", {"response": "250 OK"})
_NO_SUCH: Final = {"type": "bounce", "reason": "550 5.1.1 no such user", "status": "5.1.1"}
_FULL: Final = {"type": "blocked", "reason": "452 4.2.2 mailbox full", "status": "4.2.2"}
_READER: Final = {"useragent": "Mozilla/5.0", "ip": "192.0.2.9"}
_OPENED: Final = Happening(60, "open", _READER)

MAILS: Final[Mapping[str, Sequence[Happening]]] = {
    "processed": (_PROCESSED,),
    "deferred": (_PROCESSED, Happening(1, "deferred", {"response": "450 try again later", "attempt": "1"})),
    "delivered": (_PROCESSED, _DELIVERED),
    "open": (_PROCESSED, _DELIVERED, _OPENED),
    "click": (
        _PROCESSED,
        _DELIVERED,
        _OPENED,
        Happening(70, "click", {"url": "https://example.com/spring/sale.html", **_READER}),
    ),
    "bounce": (_PROCESSED, Happening(3, "bounce", _NO_SUCH)),
    "returned": (_PROCESSED, _DELIVERED, Happening(90, "bounce", _NO_SUCH, nameless=True)),
    "blocked": (_PROCESSED, Happening(3, "bounce", _FULL)),
    "dropped": (Happening(0, "dropped", {"reason": "Bounced Address"}),),
    "invalid": (Happening(0, "dropped", {"reason": "Invalid"}),),
    "spamreport": (_PROCESSED, _DELIVERED, Happening(90, "spamreport")),
    "unsubscribe": (_PROCESSED, _DELIVERED, Happening(90, "unsubscribe")),
    "group_unsubscribe": (_PROCESSED, _DELIVERED, Happening(90, "group_unsubscribe", {"asm_group_id": 1})),
}
MIX: Final = {"delivered": 0.6, "open": 0.2, "bounce": 0.08, "blocked": 0.04, "processed": 0.05, "unsubscribe": 0.03}


class SendGridScenario(Scenario[Event]):
    """What happens to ``user``'s mails. ``signer`` is the webhook, with its key; a post has ``batch`` events at most;
    ``shares`` are those of ``Scenario``."""

    def __init__(
        self,
        user: SendGridUser,
        address: str = "",
        *,
        signer: SendGridSimulator | None = None,
        batch: int = 10,
        **shares: Any,
    ) -> None:
        super().__init__(user.api.clock, address, **shares)
        self.user = user
        self.signer = signer or SendGridSimulator()
        self._batch = batch
        self._people = 0

    def mail(
        self,
        to: str | None = None,
        outcome: str = "delivered",
        *,
        at: datetime | None = None,
        withhold: Withhold = None,
        **fields: Any,
    ) -> Mail:
        """Send a mail, at ``at``, now unless told otherwise, to somebody new where ``to`` is None.

        ``outcome`` is a key of MAILS; ``fields`` are those of ``Mail``.
        """
        happenings: Sequence[Happening] = plan_of(MAILS, outcome)
        begin = (at or self.clock.now()).replace(microsecond=0)
        mail = self.user.mail(to or self._somebody(), **fields)
        for happening in happenings:
            moment = begin + timedelta(seconds=happening.after_s)
            self.happens(
                mail, happening.word, at=moment, withhold=withhold, nameless=happening.nameless, **happening.fields
            )
        return mail

    def mails(
        self,
        number: int,
        *,
        outcomes: Mapping[str, float] | None = None,
        begin: datetime | None = None,
        within_s: float = 0.0,
        **fields: Any,
    ) -> list[Mail]:
        """Send ``number`` mails within ``within_s`` seconds, with ``outcomes`` in these shares; MIX by default."""
        moments = self._moments(number, begin, within_s)
        return [self.mail(outcome=self._outcome(outcomes or MIX), at=at, **fields) for at in moments]

    def happens(
        self,
        mail: Mail,
        word: str,
        *,
        at: datetime | None = None,
        withhold: Withhold = None,
        nameless: bool = False,
        **fields: Any,
    ) -> None:
        """Let ``word`` happen to ``mail``, now unless told otherwise: see ``Happening``."""
        event = self.user.happens(mail, word, at=at, **fields)
        content = self.signer.event(
            mail.msg_id,
            word,
            at=int(event.at.timestamp()),
            email=mail.to,
            sg_event_id=base64.urlsafe_b64encode(self._dice.randbytes(16)).decode(),
            **{**({} if nameless else _arguments(mail)), **fields},
        )
        if nameless:
            del content["sg_message_id"]
        self._tell(event.at, mail.msg_id, word, content, withhold)

    def posts(self, callbacks: Sequence[Callback[Event]]) -> Iterable[tuple[Post, Sequence[Callback[Event]]]]:
        for place in range(0, len(callbacks), self._batch):
            part = callbacks[place : place + self._batch]
            yield self.signer.batch(self.address, [callback.content for callback in part]), part

    async def _deliver(self, once: TryOnce, post: Post) -> Sending:
        return await self.signer.deliver(once, post)

    def _somebody(self) -> str:
        self._people += 1
        return f"person-{self._people}@example.com"


def _arguments(mail: Mail) -> dict[str, Any]:
    """What the sender has given the mail, as its events carry it."""
    return {**mail.unique_args, **({"category": list(mail.categories)} if mail.categories else {})}
