"""A transport that tests of SendGrid's puller hand to it, and what they ask with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backhaul_channels.providers.sendgrid.asking import SendGridCredentials
from backhaul_channels.providers.sendgrid.pull import SendGridPuller
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from backhaul_channels.pull import Ask, Response

KEY = "SG.no-key-of-anybody.but-long-enough-for-one"
PULLER = SendGridPuller()

Row = dict[str, Any]
Answer = Callable[[str, Mapping[str, str]], Response]


class Api:
    """A transport that answers as ``answer`` does, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = []

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        self.asked.append((url, params, headers))
        return self.answer(url, params)

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        raise AssertionError("SendGrid is never posted to")

    async def lines(self, url: str, headers: Mapping[str, str], skip: int, most: int) -> tuple[Sequence[bytes], bool]:
        raise AssertionError("SendGrid has no files")


def told(content: object, status: int = 200, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, json.dumps(content).encode())


def ask(*, subuser: str = "", **settings: Any) -> Ask[SendGridCredentials, SendGridSettings]:
    return Ask(SendGridCredentials(api_key=KEY, subuser=subuser), SendGridSettings(**settings))
