"""Twilio's REST API for messages and calls, and BulkExport.

- Lists, filters and paging: https://www.twilio.com/docs/messaging/api/message-resource,
  https://www.twilio.com/docs/voice/api/call-resource, https://www.twilio.com/docs/usage/twilios-response, and Twilio's
  OpenAPI description (twilio-oai, ``twilio_api_v2010.json``), whose examples give the addresses and the dates.
- Errors: https://www.twilio.com/docs/usage/twilios-response and https://www.twilio.com/docs/api/errors. The texts of
  20001, 20003, 20004 and 20500 are those of twilio-python #395, a public paste, and airbyte #10418 and #23512.
- Concurrency: https://www.twilio.com/docs/api/errors/20429, and
  https://www.twilio.com/docs/usage/rest-api-best-practices, which names the header ``Twilio-Concurrent-Requests``. How
  long ``Retry-After`` says to wait is not documented.
- Subaccounts: https://www.twilio.com/docs/iam/api/subaccounts. That an API key of the main account is refused with
  20003 is Estuary's report; what a foreign account answers is not documented, and here the same.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.counting import Entry
from backhaul_testing.apis.faults import EVERYWHERE
from backhaul_testing.apis.serving import Answer, Asked, ProviderApi, Route
from backhaul_testing.apis.shelf import Shelf
from backhaul_testing.apis.twilio_exports import FILES, ORIGIN, Exports
from backhaul_testing.apis.twilio_pages import Lists
from backhaul_testing.apis.twilio_rows import Call, DateFormat, Step, Text, iso_8601, rfc_2822
from backhaul_testing.apis.twilio_words import RefusedError, refused
from backhaul_testing.twilio import OWN_NUMBER

Steps = Sequence[tuple[datetime, str]]
"""What becomes of a message, and when; the last one has the error, if there is any."""

_ACCOUNT: Final = r"/2010-04-01/Accounts/(?P<account>AC[0-9a-fA-F]{32})"
_EXPORTS: Final = "/v1/Exports"


class TwilioAccount:
    """An account, or a subaccount. ``texts`` and ``calls`` are what the API tells of it."""

    def __init__(self, api: TwilioApi, parent: TwilioAccount | None = None) -> None:
        self.api = api
        self.parent = parent
        self.sid = api.new_sid("AC")
        self.auth_token = api.new_sid("")
        self.keys: dict[str, str] = {}
        """The secrets of its API keys, by their SIDs."""
        self.texts: Shelf[Text] = Shelf()
        self.calls: Shelf[Call] = Shelf()

    def subaccount(self) -> TwilioAccount:
        """A new account that this one owns: its own SID, token, keys and limits."""
        return self.api.account(self)

    def key(self) -> tuple[str, str]:
        """A new API key: its SID and its secret."""
        with self.api.lock:
            sid, secret = self.api.new_sid("SK"), self.api.new_sid("")
            self.keys[sid] = secret
        return sid, secret

    def text(
        self, to: str, steps: Steps, *, sender: str = OWN_NUMBER, error_code: int | None = None, **fields: Any
    ) -> Text:
        """A message, from the first of ``steps`` on; ``fields`` are ``Text``'s. Steps may lie ahead."""
        sid = fields.pop("sid", None) or self.api.new_sid("SM")
        made = Text(sid=sid, account_sid=self.sid, to=to, sender=sender, steps=_steps(steps, error_code), **fields)
        with self.api.lock:
            self.texts.put(made)
        return made

    def call(self, to: str, steps: Steps, *, sender: str = OWN_NUMBER, **fields: Any) -> Call:
        """A call, as ``text`` is a message; ``fields`` are ``Call``'s."""
        sid = self.api.new_sid("CA")
        made = Call(sid=sid, account_sid=self.sid, to=to, sender=sender, steps=_steps(steps, None), **fields)
        with self.api.lock:
            self.calls.put(made)
        return made

    def tell(self, sid: str, status: str, *, at: datetime | None = None, error_code: int | None = None) -> None:
        """Let the message or call ``sid`` become ``status``; now, unless told otherwise."""
        step = _steps([(at or self.api.clock.now(), status)], error_code)[0]
        with self.api.lock:
            if text := self.texts.get(sid):
                text.steps = sorted([*text.steps, step], key=lambda one: one.at)
                self.texts.put(text)
                return
            call = self.calls.get(sid)
            if call is None:
                raise KeyError(f"{sid} is no message or call of {self.sid}")
            call.steps = sorted([*call.steps, step], key=lambda one: one.at)
            self.calls.put(call)

    def delete(self, sid: str) -> None:
        """As its owner may delete a message."""
        with self.api.lock:
            self.texts.remove(sid)

    def states(self) -> dict[str, str]:
        """What became of every message and call so far, by its SID: what a reader must come to know."""
        with self.api.lock:
            now = self.api.clock.now()
            known = (*self.texts, *self.calls)
            return {one.sid: one.status(now) for one in known if one.created <= now}


class TwilioApi(ProviderApi):
    """Any number of accounts behind one address. ``max_concurrent`` is the limit of each, and
    ``retry_after_s`` what it says to whoever is beyond; None says nothing.

    The addresses of ``api.twilio.com``, ``bulkexports.twilio.com`` and of files are on one server: their paths differ.
    ``exports`` is False in the regions IE1 and AU1, which have no BulkExport.
    """

    hosts: ClassVar[Sequence[str]] = (
        "https://api.twilio.com",
        "https://api.dublin.ie1.twilio.com",
        "https://api.sydney.au1.twilio.com",
        ORIGIN,
        FILES,
    )
    faults_known: ClassVar[frozenset[str]] = EVERYWHERE | {"iso_dates", "growing", "vanishing", "circular"}

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        seed: int = 1,
        latency_s: float = 0.0,
        max_concurrent: int = 100,
        retry_after_s: int | None = 1,
        exports: bool = True,
        export_takes_s: float = 60.0,
    ) -> None:
        super().__init__(clock=clock, seed=seed, latency_s=latency_s)
        self.max_concurrent = max_concurrent
        self.retry_after_s = retry_after_s
        self._dice = random.Random(f"{seed}/twilio")  # noqa: S311  # a reproducible mix, no secret.
        self._numbers = itertools.count(1)
        self.accounts: dict[str, TwilioAccount] = {}
        lists, bulk = Lists(self), Exports(self, takes_s=export_takes_s)
        self._routes = [
            _route("messages", "GET", _ACCOUNT + r"/Messages\.json", lists.messages),
            _route("message", "GET", _ACCOUNT + r"/Messages/(?P<sid>\w+)\.json", lists.message),
            _route("calls", "GET", _ACCOUNT + r"/Calls\.json", lists.calls),
            _route("call", "GET", _ACCOUNT + r"/Calls/(?P<sid>\w+)\.json", lists.call),
        ]
        if exports:
            self._routes += [
                _route("export_jobs", "POST", _EXPORTS + r"/Messages/Jobs", bulk.create),
                _route("export_job", "GET", _EXPORTS + r"/Jobs/(?P<sid>JS[0-9a-f]{32})", bulk.job),
                _route("export_days", "GET", _EXPORTS + r"/Messages/Days", bulk.days),
                _route("export_day", "GET", _EXPORTS + r"/Messages/Days/(?P<day>[^/]+)", bulk.day),
                _route("export_file", "GET", r"/(?P<account>AC[0-9a-f]{32})/(?P<day>[^/]+)", bulk.file),
            ]

    @property
    def routes(self) -> Sequence[Route]:
        return self._routes

    def new_sid(self, prefix: str) -> str:
        """A SID that follows from the seed."""
        with self.lock:
            return f"{prefix}{self._dice.getrandbits(128):032x}"

    def account(self, parent: TwilioAccount | None = None) -> TwilioAccount:
        """A new account; a subaccount, where it has a parent."""
        with self.lock:
            made = TwilioAccount(self, parent)
            self.accounts[made.sid] = made
        return made

    def whose(self, asked: Asked) -> tuple[str, str]:
        key, _ = _basic(asked)
        with self.lock:
            owner = self._owner(key)
        return key, asked.parts.get("account") or (owner.sid if owner else "")

    def refusal(self, status: int) -> Answer:
        if status == 404:
            return refused(404, 20404, "The requested resource was not found")
        if status == 429:
            wait = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
            return refused(429, 20429, "Too Many Requests", wait)
        return refused(status, 20500, "An internal server error has occurred")

    def admit(self, entry: Entry) -> Answer | None:
        return self.refusal(429) if entry.together > self.max_concurrent else None

    def headers(self, entry: Entry) -> Mapping[str, str]:
        return {
            "twilio-concurrent-requests": str(entry.together),
            "twilio-request-id": f"RQ{next(self._numbers):032x}",
        }

    def authenticated(self, asked: Asked) -> TwilioAccount:
        """Whose the credentials are. RefusedError with 20003 where they are nobody's."""
        key, secret = _basic(asked)
        owner = self._owner(key)
        right = owner and (owner.auth_token if key == owner.sid else owner.keys.get(key))
        if owner is None or not secret or secret != right:
            raise RefusedError(401, 20003, "Authenticate", {"www-authenticate": 'Basic realm="Twilio API"'})
        return owner

    def allowed(self, asked: Asked) -> TwilioAccount:
        """The account that is named in the path, if the credentials may read it. RefusedError otherwise."""
        owner = self.authenticated(asked)
        named = self.accounts.get(asked.parts["account"])
        of_parent = named is not None and named.parent is owner and _basic(asked)[0] == owner.sid
        if named is None or not (named is owner or of_parent):
            raise RefusedError(401, 20003, "Authenticate")
        return named

    def dates(self, route: str) -> DateFormat:
        """How this answer writes dates."""
        return iso_8601 if self.strike("iso_dates", route) else rfc_2822

    def _owner(self, key: str) -> TwilioAccount | None:
        return self.accounts.get(key) or next((one for one in self.accounts.values() if key in one.keys), None)


def _steps(steps: Steps, error_code: int | None) -> list[Step]:
    """Raises ValueError where there is none."""
    if not steps:
        raise ValueError("steps is empty: a message begins with its first status")
    made = [Step(at.astimezone(UTC).replace(microsecond=0), status) for at, status in sorted(steps, key=_moment)]
    if error_code is not None:
        made[-1] = Step(made[-1].at, made[-1].status, error_code)
    return made


def _moment(step: tuple[datetime, str]) -> datetime:
    return step[0]


def _basic(asked: Asked) -> tuple[str, str]:
    """The name and the password of a Basic header; two empty texts where there is none."""
    scheme, _, told = asked.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(told, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def _route(name: str, method: str, pattern: str, answer: Any) -> Route:
    def guarded(asked: Asked) -> Answer:
        try:
            made: Answer = answer(asked)
        except RefusedError as exc:
            return exc.answer
        return made

    return Route(name, method, re.compile(pattern), guarded)
