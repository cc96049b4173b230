"""SendGrid's Web API v3: the Email Activity and the lists of suppressions.

- https://www.twilio.com/docs/sendgrid/api-reference/email-activity, which gives 6 requests a minute; its pages
  filter-all-messages and filter-messages-by-message-id; the query language's page, see ``sendgrid_query``; and
  SendGrid's OpenAPI descriptions (sendgrid-oai). Both routes of the Email Activity count as one here.
- https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits: headers and the 429.
  Whether a refresh period begins at the full minute is not documented; here it does. The limit of suppressions is not
  documented either; here 600 a minute.
- …/how-to-use-the-sendgrid-v3-api/errors: the shape of errors. The text of 401 is in SendGrid's article 18322114821403.
  Of a key that may not read something the pages say nothing; 403 and its text here are what people report.
- …/how-to-use-the-sendgrid-v3-api/on-behalf-of. What a foreign subuser is answered is not documented; here 403.
- ``/v3/asm/suppressions`` has no parameters in the descriptions, so that here it tells everything, whatever is asked.
- The order of suppressions is not documented; here newest first. What a ``limit`` beyond the most does is not
  documented; here 400. One address has one row in a list, the newest; that is not documented.
"""

from __future__ import annotations

import base64
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.counting import Entry
from backhaul_testing.apis.faults import EVERYWHERE
from backhaul_testing.apis.sendgrid_pages import Pages, RefusedError, refused
from backhaul_testing.apis.sendgrid_rows import ListName, Mail, MailEvent, Suppression, caused
from backhaul_testing.apis.serving import Answer, Asked, ProviderApi, Route

ACTIVITY: Final = frozenset({"messages", "message"})
"""The routes of the Email Activity."""
_PERIOD_S: Final = 60
_REFUSALS: Final = {404: "not found", 429: "too many requests"}


@dataclass(frozen=True, slots=True)
class Key:
    """What an API key may read. Its name is the part that SendGrid shows in its lists."""

    name: str
    whole: str
    user: SendGridUser
    activity: bool
    suppressions: bool


class SendGridUser:
    """An account, or a subuser. ``mails`` and ``suppressions`` are what the API tells of it."""

    def __init__(self, api: SendGridApi, name: str, parent: SendGridUser | None = None) -> None:
        self.api = api
        self.name = name
        self.parent = parent
        self.groups: dict[int, str] = {}
        """The names of its unsubscribe groups."""
        self.mails: dict[str, Mail] = {}
        self.suppressions: list[Suppression] = []

    def subuser(self, name: str) -> SendGridUser:
        """A user of that name that this one may ask on behalf of: its own mails, lists and keys."""
        return self.api.user(name, self)

    def key(self, *, activity: bool = True, suppressions: bool = True) -> str:
        """A new API key, which may read the Email Activity, and the suppressions."""
        return self.api.new_key(self, activity=activity, suppressions=suppressions)

    def mail(self, to: str, events: Sequence[tuple[datetime, str]] = (), **fields: Any) -> Mail:
        """A mail to one person, which the API knows from its first event on; events may lie ahead. ``fields`` are
        ``Mail``'s."""
        made = Mail(msg_id=fields.pop("msg_id", None) or self.api.new_id(), to=to, events=[], **fields)
        with self.api.lock:
            self.mails[made.msg_id] = made
            for at, word in events:
                self.happens(made, word, at=at)
        return made

    def happens(self, mail: Mail, word: str, *, at: datetime | None = None, **fields: Any) -> MailEvent:
        """Let ``word`` happen to ``mail``, now unless told otherwise; word and ``fields`` are the webhook's."""
        moment = (at or self.api.clock.now()).astimezone(UTC).replace(microsecond=0)
        event = MailEvent(moment, word, fields)
        with self.api.lock:
            mail.events = sorted([*mail.events, event], key=lambda one: one.at)
            if word == "group_resubscribe":
                self.lift("groups", mail.to, at=moment, group=fields.get("asm_group_id", mail.group))
            elif row := caused(mail, event, self.groups):
                self.suppressions.append(row)
        return event

    def suppress(self, where: ListName, email: str, *, at: datetime | None = None, **fields: Any) -> Suppression:
        """Put a row on a list, as the console does, with no mail behind it."""
        created = (at or self.api.clock.now()).astimezone(UTC).replace(microsecond=0)
        row = Suppression(where=where, email=email, created=created, fields=fields)
        with self.api.lock:
            self.suppressions.append(row)
        return row

    def lift(self, where: ListName, email: str, *, at: datetime | None = None, group: int | None = None) -> None:
        """Take an address off a list; off the group ``group`` of groups."""
        moment = at or self.api.clock.now()
        with self.api.lock:
            for row in self.suppressions:
                if (row.where, *row.address) == (where, email, group) and row.stands(moment):
                    row.gone = moment

    def states(self) -> dict[str, str]:
        """What became of every mail so far, by its id: what a reader must come to know."""
        with self.api.lock:
            now = self.api.clock.now()
            return {mail.msg_id: mail.status(now) for mail in self.mails.values() if mail.so_far(now)}


class SendGridApi(ProviderApi):
    """Any number of users behind one address. The limits are of one API key, whoever shares it, and of a minute.

    ``keeps_days`` is for how long the Email Activity knows a mail, by its last event.
    """

    hosts: ClassVar[Sequence[str]] = ("https://api.sendgrid.com", "https://api.eu.sendgrid.com")
    faults_known: ClassVar[frozenset[str]] = EVERYWHERE | {"growing", "vanishing"}

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        seed: int = 1,
        latency_s: float = 0.0,
        activity_limit: int = 6,
        suppressions_limit: int = 600,
        keeps_days: int = 30,
    ) -> None:
        super().__init__(clock=clock, seed=seed, latency_s=latency_s)
        self.activity_limit = activity_limit
        self.suppressions_limit = suppressions_limit
        self.keeps_days = keeps_days
        self._dice = random.Random(f"{seed}/sendgrid")  # noqa: S311  # a reproducible mix, no secret.
        self._users: dict[str, SendGridUser] = {}
        self._keys: dict[str, Key] = {}
        self._used: defaultdict[tuple[str, bool, int], int] = defaultdict(int)
        """Requests of a key, to the Email Activity or not, in a period."""
        pages = Pages(self)
        self._routes = [
            _route("messages", "/v3/messages", pages.messages),
            _route("message", r"/v3/messages/(?P<msg_id>[^/]+)", pages.message),
            _route("groups", "/v3/asm/suppressions", pages.groups),
        ]
        for name in ("bounces", "blocks", "invalid_emails", "spam_reports", "unsubscribes"):
            self._routes.append(_route(name, f"/v3/suppression/{name}", pages.suppressions))

    @property
    def routes(self) -> Sequence[Route]:
        return self._routes

    def user(self, name: str, parent: SendGridUser | None = None) -> SendGridUser:
        """A new user; a subuser, where it has a parent."""
        with self.lock:
            made = self._users[name] = SendGridUser(self, name, parent)
        return made

    def new_id(self) -> str:
        """An ``sg_message_id`` that follows from the seed."""
        with self.lock:
            begin = base64.urlsafe_b64encode(self._dice.randbytes(16)).decode().rstrip("=")
            return f"{begin}.filterdrecv-5645d9c87f-78xq5-1-{self._dice.getrandbits(32):08X}-1.0"

    def new_key(self, user: SendGridUser, *, activity: bool, suppressions: bool) -> str:
        """A key of ``user``."""
        with self.lock:
            name, secret = (
                base64.urlsafe_b64encode(self._dice.randbytes(size)).decode().rstrip("=") for size in (16, 32)
            )
            key = Key(name, f"SG.{name}.{secret}", user, activity, suppressions)
            self._keys[name] = key
        return key.whole

    def whose(self, asked: Asked) -> tuple[str, str]:
        key = self._key(asked)
        return (key.name, key.name) if key else ("", "")

    def refusal(self, status: int) -> Answer:
        return refused(status, _REFUSALS.get(status, "internal server error"))

    def admit(self, entry: Entry) -> Answer | None:
        if not entry.key:
            return None
        with self.lock:
            place = self._period(entry)
            if self._used[place] >= self._limit(entry):
                return self.refusal(429)
            self._used[place] += 1
        return None

    def headers(self, entry: Entry) -> Mapping[str, str]:
        if not entry.key:
            return {}
        with self.lock:
            place = self._period(entry)
            return {
                "x-ratelimit-limit": str(self._limit(entry)),
                "x-ratelimit-remaining": str(self._limit(entry) - self._used[place]),
                "x-ratelimit-reset": str((place[2] + 1) * _PERIOD_S),
            }

    def allowed(self, asked: Asked) -> SendGridUser:
        """Whose mails or suppressions are read. RefusedError where the key may not read them."""
        if not asked.headers.get("authorization"):
            raise RefusedError(401, "authorization required")
        key = self._key(asked)
        if key is None:
            raise RefusedError(401, "The provided authorization grant is invalid, expired, or revoked")
        behalf = asked.headers.get("on-behalf-of")
        user = self._users.get(behalf) if behalf else key.user
        may = key.activity if asked.route in ACTIVITY else key.suppressions
        if not may or user is None or key.user not in ((user,) if not behalf else (user.parent,)):
            raise RefusedError(403, "access forbidden")
        return user

    def listed_at(self) -> datetime:
        """What lists show is as it was then."""
        return self.clock.now() - timedelta(seconds=self.lag_s)

    def _key(self, asked: Asked) -> Key | None:
        scheme, _, told = asked.headers.get("authorization", "").partition(" ")
        parts = told.split(".")
        key = self._keys.get(parts[1]) if len(parts) == 3 else None
        return key if key and scheme.lower() == "bearer" and told == key.whole else None

    def _limit(self, entry: Entry) -> int:
        return self.activity_limit if entry.route in ACTIVITY else self.suppressions_limit

    def _period(self, entry: Entry) -> tuple[str, bool, int]:
        return entry.key, entry.route in ACTIVITY, int(entry.at.timestamp()) // _PERIOD_S


def _route(name: str, pattern: str, answer: Any) -> Route:
    def guarded(asked: Asked) -> Answer:
        try:
            made: Answer = answer(asked)
        except RefusedError as exc:
            return exc.answer
        return made

    return Route(name, "GET", re.compile(pattern), guarded)
