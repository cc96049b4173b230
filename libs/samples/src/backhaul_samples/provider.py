"""What all samples have in common."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

PERSON = "+12025550142"
"""Nobody's number, as those of films."""
SENDER = "+12025550100"
MAIL = "person@example.com"

Content = dict[str, Any]


class Post(NamedTuple):
    """A callback's body and the headers that come with it."""

    body: bytes
    headers: Mapping[str, str]


class Signing(NamedTuple):
    """What a sample is signed with, and the secret by which a channel verifies it."""

    signs: str
    verifies: str


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One provider's samples. ``fields`` of an event are its own beside those that ``content`` has of all; ``post``
    encodes and signs, for an address, by a secret that is empty where there is none. ``signs``: a callback is proven by
    its signature, and ``secret`` is what people call what it is made with. ``is_public``: a channel has a public key of
    it, with which nobody signs. ``trying`` makes a pair of secrets of a text that nobody else knows."""

    name: str
    label: str
    source: str
    events: Mapping[str, Content]
    content: Callable[[str, str], Content]
    post: Callable[[Content, str, str], Post]
    message_id: Callable[[str], str]
    secret: str = "Name and password, as name:password"  # noqa: S105  # what is asked for
    signs: bool = False
    is_public: bool = False
    is_form: bool = False
    trying: Callable[[str], Signing] | None = None

    def new_message_id(self) -> str:
        """That of a message that nobody knows yet."""
        return self.message_id(secrets.token_hex(16))

    def sample(self, event: str, message_id: str = "", seed: str = "") -> Content:
        """A callback's content. The message is ``message_id``, or one that follows from ``seed``, or a new one."""
        named = message_id or (self.message_id(seed) if seed else self.new_message_id())
        return {**self.content(event, named), **self.events[event]}


def digest(*parts: str) -> str:
    """64 hexadecimal digits that follow from ``parts``, and say nothing of them to whoever does not know the first."""
    return hmac.new(parts[0].encode(), "\n".join(parts[1:]).encode(), hashlib.sha256).hexdigest()


def now() -> str:
    """The time as JSON has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def posted(content: object, _address: str, credentials: str) -> Post:
    """JSON that nothing signs, with a name and a password where ``credentials`` holds them, as ``name:password``."""
    headers = {"Content-Type": "application/json"}
    if credentials:
        headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return Post(json.dumps(content).encode(), headers)
