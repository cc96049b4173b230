"""Ed25519: keys, their ids, and signatures."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from backhaul_digests.line import DigestLine, to_bytes
from backhaul_digests.model import Chain, ChainKey, Digest


def key_id(public: bytes) -> str:
    """What a public key (32 bytes) is called: nobody can give another key its name."""
    return hashlib.sha256(public).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that digests are signed with."""

    private: Ed25519PrivateKey

    @classmethod
    def new(cls) -> Self:
        """One that nobody else has."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The reverse of ``to_text``. ValueError where it is none."""
        return cls(Ed25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True)))

    def to_text(self) -> str:
        """The private key, as it is encrypted."""
        return base64.b64encode(self.private.private_bytes_raw()).decode()

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    @property
    def id(self) -> str:
        """See ``key_id``."""
        return key_id(self.public)

    def sign(self, line: DigestLine) -> Digest:
        """``line`` as a digest. It must name this key."""
        if line.digest_public_key_id != self.id:
            raise ValueError("A digest names the key that it is signed with.")
        data = to_bytes(line)
        return Digest(
            of=ChainKey(line.registration, Chain(line.chain)),
            tenant_id=line.tenant_id,
            number=line.digest_number,
            from_us=line.from_us,
            to_us=line.to_us,
            bucket=line.digest_bucket,
            key=line.digest_object,
            line=data,
            hash=hashlib.sha256(data).hexdigest(),
            key_id=self.id,
            signature=base64.b64encode(self.private.sign(line.signed_text(data))).decode(),
            files=len(line.files),
            deletions=len(line.deletions),
        )


def is_signed(public: bytes, text: bytes, signature: str) -> bool:
    """Whether ``signature`` (base64) is that of ``text`` by the key of which ``public`` is the public half."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature), text)
    except (InvalidSignature, ValueError):
        return False
    return True
