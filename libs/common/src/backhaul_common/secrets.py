"""Secrets at rest, and the credentials that tenants and services present.

Provider secrets are encrypted (Fernet: AES-128-CBC with HMAC-SHA256) under a ring of keys, so that keys rotate.
Credentials are random and long, so one SHA-256 is hash enough: there is no dictionary to try.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from typing import Literal

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CredentialKind = Literal["api", "ingest"]
"""What a tenant presents."""

AnyKind = Literal["api", "ingest", "service"]
"""What anybody presents; ``service`` is the token of a service account."""

_PREFIX: dict[AnyKind, str] = {"api": "bhk", "ingest": "bhi", "service": "bhs"}
_KIND = {prefix: kind for kind, prefix in _PREFIX.items()}
_CREDENTIAL = re.compile(rf"({'|'.join(_KIND)})_([0-9a-f]{{12}})_([0-9a-f]{{48}})")


class SecretBox:
    """Encrypts with the first key; decrypts with any."""

    def __init__(self, keys: Sequence[str]) -> None:
        """``keys``: Fernet keys (32 bytes, URL-safe base64), newest first. Raises ValueError when one is not."""
        if not keys:
            raise ValueError("at least one key is needed")
        fernets = [Fernet(key) for key in keys]
        self._keys = [base64.urlsafe_b64decode(key) for key in keys]
        self._first, self._fernet = fernets[0], MultiFernet(fernets)

    def of(self, purpose: str) -> SecretBox:
        """A ring of its own, derived from this one (HKDF-SHA256), which decrypts nothing that another has encrypted:
        for what must not be taken for a secret whose text somebody else chose."""
        derived = [HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key) for key in self._keys]
        return SecretBox([base64.urlsafe_b64encode(key).decode("ascii") for key in derived])

    @property
    def key_id(self) -> str:
        """What tells the first key from others, as 16 hex digits: derived from it, and of no use to learn it."""
        return HKDF(SHA256(), 8, salt=None, info=b"id of a key").derive(self._keys[0]).hex()

    def encrypt(self, plain: str) -> str:
        """An opaque text that only this ring decrypts."""
        return self._fernet.encrypt(plain.encode()).decode("ascii")

    def decrypt(self, token: str) -> str:
        """The plain text. Raises ValueError when no key of the ring fits."""
        try:
            return self._fernet.decrypt(token.encode("ascii")).decode()
        except InvalidToken as exc:
            raise ValueError("no key of the ring decrypts this secret: was a key removed too early?") from exc

    def renewed(self, token: str) -> str:
        """``token`` where the first key decrypts it, otherwise the same text encrypted with that. Raises ValueError
        when no key of the ring fits."""
        try:
            self._first.decrypt(token.encode("ascii"))
        except InvalidToken:
            return self.encrypt(self.decrypt(token))
        return token


def new_credential(kind: AnyKind) -> tuple[str, str, str]:
    """A fresh credential: its id (12 hex digits, public), the text to show once, and the digest to store."""
    credential_id, secret = os.urandom(6).hex(), os.urandom(24).hex()
    return credential_id, f"{_PREFIX[kind]}_{credential_id}_{secret}", digest(secret)


def digest(secret: str) -> str:
    """What is stored of a credential's secret part: its SHA-256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_credential(text: str) -> tuple[AnyKind, str, str] | None:
    """Kind, id and secret part of a presented credential; None when it cannot be one of ours."""
    match = _CREDENTIAL.fullmatch(text)
    if match is None:
        return None
    prefix, credential_id, secret = match.groups()
    return _KIND[prefix], credential_id, secret


def matches(secret: str, stored_digest: str) -> bool:
    """Whether ``secret`` is the one whose digest is stored; takes the same time either way."""
    return hmac.compare_digest(digest(secret), stored_digest)
