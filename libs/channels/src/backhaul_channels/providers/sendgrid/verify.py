"""The signed event webhook: ECDSA over P-256 with SHA-256 of timestamp + body.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from backhaul_channels.adapter import InvalidSecretError, RawCallback, Refusal

SIGNATURE_HEADER = b"x-twilio-email-event-webhook-signature"
TIMESTAMP_HEADER = b"x-twilio-email-event-webhook-timestamp"

_MAX_TIMESTAMP = 20

_NO_SECRET = Refusal("secret_missing", "The channel has no verification key; set the webhook's public key as a secret.")
_NO_SIGNATURE = Refusal("signature_missing", "The request carries no signature; enable the signed event webhook.")
_NO_TIMESTAMP = Refusal("timestamp_missing", "The request carries no timestamp header.")
_BAD_TIMESTAMP = Refusal("timestamp_invalid", "The timestamp header is no unix time.")
_NOT_BASE64 = Refusal("signature_malformed", "The signature header is not base64.")
_WRONG_SIGNATURE = Refusal("signature_invalid", "The signature fits none of the channel's verification keys.")


class SendGridVerifier:
    """Checks requests against any of ``secrets``, the webhook's public keys. With none it refuses everything."""

    __slots__ = ("_algorithm", "_keys")

    def __init__(self, secrets: Sequence[str]) -> None:
        # Loading a key costs a tenth of a verification, so it is done once.
        self._keys = tuple(_load_key(secret.strip()) for secret in secrets if secret.strip())
        self._algorithm = ECDSA(Prehashed(SHA256()))

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        if not self._keys:
            return _NO_SECRET
        encoded = callback.header(SIGNATURE_HEADER)
        if not encoded:
            return _NO_SIGNATURE
        timestamp = callback.header(TIMESTAMP_HEADER)
        refusal = _judge_timestamp(timestamp)
        if timestamp is None or refusal is not None:
            return refusal
        try:
            signature = a2b_base64(encoded, strict_mode=True)
        except Base64Error:
            return _NOT_BASE64
        # Once for all keys: of a large body it is most of the work.
        digest = hashlib.sha256(timestamp)
        digest.update(callback.body)
        hashed = digest.digest()
        for key in self._keys:
            try:
                key.verify(signature, hashed, self._algorithm)
            except InvalidSignature:
                continue
            return None
        return _WRONG_SIGNATURE


def _judge_timestamp(timestamp: bytes | None) -> Refusal | None:
    if not timestamp:
        return _NO_TIMESTAMP
    # Timestamp and body are signed without a mark between them. Digits only, so that nobody can move the body's
    # beginning into the header under the same signature.
    if len(timestamp) > _MAX_TIMESTAMP or not timestamp.isdigit():
        return _BAD_TIMESTAMP
    return None


def _load_key(secret: str) -> EllipticCurvePublicKey:
    try:
        if secret.startswith("-----BEGIN"):
            key = load_pem_public_key(secret.encode())
        else:
            key = load_der_public_key(b64decode("".join(secret.split()), validate=True))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidSecretError(
            "The secret is no public key; copy the verification key from SendGrid's Event Webhook settings "
            "(base64 or PEM)."
        ) from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise InvalidSecretError(
            "The secret is a public key, but not one on the curve P-256; copy the verification key from SendGrid's "
            "Event Webhook settings."
        )
    return key
