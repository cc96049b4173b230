"""How Twilio says no. https://www.twilio.com/docs/usage/twilios-response"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from backhaul_testing.apis.serving import Answer


class RefusedError(Exception):
    """A request that is refused; ``answer`` is what it is answered."""

    def __init__(self, status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.answer = refused(status, code, message, headers)


def refused(status: int, code: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An error in the shape that all of Twilio's errors have."""
    more = f"https://www.twilio.com/docs/errors/{code}"
    return told({"code": code, "message": message, "more_info": more, "status": status}, status, headers)


def told(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Any content as JSON."""
    return Answer(status, json.dumps(content).encode(), headers or {})
