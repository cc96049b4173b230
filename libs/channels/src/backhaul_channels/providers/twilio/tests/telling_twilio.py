"""A Twilio that answers what a test tells it to, in the order in which it is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from backhaul_channels.providers.twilio.credentials import TwilioCredentials
from backhaul_channels.providers.twilio.pull import TwilioPuller
from backhaul_channels.providers.twilio.settings import TwilioSettings
from backhaul_channels.pull import Ask, Page, PullError, Response, Span

ACCOUNT = "AC" + "0" * 32
SERVICE, OTHER_SERVICE = "MG" + "1" * 32, "MG" + "2" * 32
TOKEN = {"account_sid": ACCOUNT, "auth_token": "an-auth-token"}
KEY = {"account_sid": ACCOUNT, "api_key_sid": "SK" + "3" * 32, "api_key_secret": "a-key-secret"}
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
TEN = 1_764_064_800_000_000  # 2025-11-25 10:00:00
MINUTE, DAY = 60_000_000, 86_400_000_000
SPAN = Span(TEN, TEN + MINUTE)
PULLER = TwilioPuller()


class Told:
    """A transport that answers what it is told, and remembers what it was asked."""

    def __init__(self, *answers: Response | PullError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = []

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        self.asked.append((url, params, headers))
        answer = self.answers.pop(0)
        if isinstance(answer, PullError):
            raise answer
        return answer

    post = get

    async def lines(self, url: str, headers: Mapping[str, str], skip: int, most: int) -> tuple[Sequence[bytes], bool]:
        lines = (await self.get(url, {}, headers)).body.splitlines()[skip:]
        return lines[:most], len(lines) > most


def ask_of(credentials: Mapping[str, str] = TOKEN, **reconcile: Any) -> Ask[TwilioCredentials, TwilioSettings]:
    """On whose behalf; ``reconcile`` are settings."""
    return Ask(TwilioCredentials.model_validate(credentials), TwilioSettings.model_validate({"reconcile": reconcile}))


def ok(content: object, status: int = 200, **headers: str) -> Response:
    """An answer in JSON."""
    return Response(status, headers, json.dumps(content).encode())


def row(number: int, sent: str | None = "Tue, 25 Nov 2025 10:00:30 +0000", **fields: Any) -> dict[str, Any]:
    """A message, as the API shows it."""
    return {
        "sid": f"SM{number:032}",
        "status": "delivered",
        "direction": "outbound-api",
        "from": "+15005550006",
        "to": "+15005550001",
        "messaging_service_sid": None,
        "date_created": sent,
        "date_sent": sent,
        "date_updated": sent,
        **fields,
    }


def page_of(*rows: dict[str, Any], following: str | None = None) -> Response:
    """A page of the list of messages."""
    return ok({"messages": rows, "next_page_uri": following})


def next_of(number: int, query: str = "DateSent=2025-11-25&PageSize=1000") -> str:
    """How the page of that number is named, from 0."""
    return f"{PATH}?{query}&Page={number}&PageToken=PASM{number:032x}"


async def read(
    *answers: Response | PullError, cursor: str = "", span: Span = SPAN, listing: str = "messages", **reconcile: Any
) -> tuple[Page, Told]:
    """A page of a listing, and what was asked for it."""
    told = Told(*answers)
    return await PULLER.window(told, ask_of(**reconcile), listing, span, cursor), told


def sids(page: Page) -> list[int]:
    """The numbers of the records' rows."""
    return [int(json.loads(record)["sid"][2:]) for record in page.records]
