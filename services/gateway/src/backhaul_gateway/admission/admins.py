"""The platform team's tokens: each has a name and a role, and only its hash need be known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from backhaul_gateway.admission.principal import ROLES, Principal

FIRST = "admin"
"""The name of the operator whose token a setting of its own has, in plain text."""

_NAMED = re.compile(r"([a-z0-9][a-z0-9._-]{0,63}):([a-z]+):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class AdminToken:
    """One token of the settings. ``digest`` is the SHA-256 of its text, in hex."""

    name: str
    role: str
    digest: str


def admin_tokens(text: str) -> tuple[AdminToken, ...]:
    """The tokens of a text such as ``ana:operator:<sha256>,siem:auditor:<sha256>``. Raises ValueError, which repeats
    nothing of it."""
    tokens = []
    for number, part in enumerate((part.strip() for part in text.split(",") if part.strip()), 1):
        match = _NAMED.fullmatch(part)
        if match is None:
            raise ValueError(
                f"token {number} must be <name>:<role>:<SHA-256 of the token in hex>; a name is of a-z, 0-9, ., _, -; "
                'hash one with: printf %s "$TOKEN" | sha256sum'
            )
        token = AdminToken(*match.groups())
        if token.role not in ROLES:
            raise ValueError(f"token {number} has the role {token.role}; roles are {', '.join(ROLES)}")
        tokens.append(token)
    for field in ("name", "digest"):
        values = [getattr(token, field) for token in tokens]
        if len(set(values)) < len(values):
            raise ValueError(f"two tokens have the same {'name' if field == 'name' else 'hash'}")
    if any(token.name == FIRST for token in tokens):
        raise ValueError(f"the name {FIRST} is that of BACKHAUL_GATEWAY_ADMIN_TOKEN")
    return tuple(tokens)


class AdminTokens:
    """Finds whose token a request carries."""

    def __init__(self, first: str, named: Sequence[AdminToken]) -> None:
        """``first`` is the text of the operator ``admin``'s own."""
        self._by_digest = {token.digest: Principal.admin(token.name, token.role) for token in named}
        self._by_digest[digest(first.encode())] = Principal.admin(FIRST, "operator")

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal | None:
        """Who has shown a token as the bearer, in the one Authorization that there is. Looked up by its hash, so that
        the time tells nothing of how much of a guess was right."""
        found = [value for name, value in headers if name == b"authorization"]
        scheme, _, rest = (found[0] if len(found) == 1 else b"").strip().partition(b" ")
        return self._by_digest.get(digest(rest.strip())) if scheme.lower() == b"bearer" else None


def digest(token: bytes) -> str:
    """What is known of a token: its SHA-256 in hex."""
    return sha256(token).hexdigest()
