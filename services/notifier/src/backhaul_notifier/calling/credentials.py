"""How a call shows who it is from: headers of their own, Basic, a bearer token, a header, a client certificate."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final

from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.door.outcome import Tls

OURS: Final = frozenset(
    {"accept-encoding", "content-encoding", "content-type", "traceparent", "tracestate", "user-agent"}
)
"""Headers that say what a call holds. Those that say how it travels are refused by the door."""

_SHOWN_AS = "\N{HORIZONTAL ELLIPSIS}"
_SHORTEST_SECRET = 4
"""What is shorter stands in every answer."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What all calls of a subscription show: ``headers`` by lower-case names, ``tls``, a token where ``oauth`` says how
    to get it. ``secrets`` are the texts in it that an answer must not repeat."""

    headers: dict[str, str] = field(repr=False)
    tls: Tls | None
    oauth: pb.OAuthCredentials | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def without_secrets(self, text: str, *more: str) -> str:
        """``text`` as it can be kept where others read it: an endpoint may answer with what it was sent."""
        for secret in (*self.secrets, *more):
            if secret in text:
                text = text.replace(secret, _SHOWN_AS)
            text = _without_beginning(text, secret)
        return text


def _without_beginning(text: str, secret: str) -> str:
    """Without what of ``secret`` is left at the end, where an answer is cut."""
    beginning = secret[:_SHORTEST_SECRET]
    at = text.find(beginning, max(0, len(text) - len(secret)))
    while at >= 0:
        if secret.startswith(text[at:]):
            return text[:at] + _SHOWN_AS
        at = text.find(beginning, at + 1)
    return text


def is_ours(header: str) -> bool:
    """Whether Backhaul itself writes a header of this name, signatures among them: a subscription's is refused when it
    is written, and left out of calls where it was stored before it was."""
    name = header.lower()
    return name in OURS or name.startswith("webhook-")


def shown(destination: pb.HttpDestination, credentials: pb.Credentials) -> Shown:
    """What calls of ``destination`` show; ``credentials`` are plain."""
    headers = {pair.name.lower(): pair.value for pair in destination.headers if not is_ours(pair.name)}
    secrets: list[str] = []
    kind = credentials.WhichOneof("kind")
    if kind == "basic":
        value = b64encode(f"{credentials.basic.username}:{credentials.basic.password}".encode()).decode("ascii")
        headers["authorization"] = f"Basic {value}"
        secrets = [credentials.basic.password, value]
    elif kind == "bearer_token":
        headers["authorization"] = f"Bearer {credentials.bearer_token}"
        secrets = [credentials.bearer_token]
    elif kind == "header" and not is_ours(credentials.header.name):
        headers[credentials.header.name.lower()] = credentials.header.value
        secrets = [credentials.header.value]
    elif kind == "oauth":
        headers.pop("authorization", None)
        secrets = [credentials.oauth.client_secret]
    tls = None
    if credentials.HasField("mutual_tls"):
        tls = Tls(credentials.mutual_tls.certificate, credentials.mutual_tls.private_key)
    return Shown(
        headers,
        tls,
        credentials.oauth if kind == "oauth" else None,
        tuple(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET),
    )
