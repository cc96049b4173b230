"""Any webhook, by settings alone. README.md tells which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from backhaul_channels.adapter import InvalidSecretError, Proof, Verifier
from backhaul_channels.engines.hmacs import HmacVerifier, base64_key, hex_key, text_key
from backhaul_channels.engines.mapped.adapter import MappedAdapter
from backhaul_channels.engines.proofs import AllOf, BasicSecret, BasicVerifier, objects_of, texts_of
from backhaul_channels.engines.standard_webhooks import StandardWebhooksVerifier, headers_of
from backhaul_channels.providers.generic.settings import (
    BasicProof,
    CredentialProof,
    GenericSettings,
    HmacProof,
    StandardWebhooksProof,
)
from backhaul_channels.settings import ChannelSettings

_KEYS = {"text": text_key, "base64": base64_key, "hex": hex_key}


class GenericAdapter(MappedAdapter[GenericSettings]):
    """How a request proves itself is one of the channel's settings. Secrets are what it is signed with; names and
    passwords beside them must be shown as well."""

    provider: ClassVar[str] = "generic"
    # No label means it: a tenant always says so.
    labels: ClassVar[tuple[str, ...]] = ()
    settings_model: ClassVar[type[ChannelSettings]] = GenericSettings
    proof: ClassVar[Proof] = Proof.SIGNATURE
    signature_headers: ClassVar[frozenset[bytes]] = frozenset({headers_of("webhook")[2]})
    # Only the body is signed, and headers.
    signs_url: ClassVar[bool] = False

    def proof_of(self, settings: GenericSettings) -> Proof:
        return Proof.CREDENTIAL if isinstance(settings.proof, CredentialProof) else Proof.SIGNATURE

    def signature_headers_of(self, settings: GenericSettings) -> frozenset[bytes]:
        proof = settings.proof
        if isinstance(proof, HmacProof):
            return frozenset({proof.signature_header.encode()})
        if isinstance(proof, StandardWebhooksProof):
            return frozenset({headers_of(proof.headers)[2]})
        return frozenset()

    def verifier(self, secrets: Sequence[str], settings: GenericSettings) -> Verifier:
        proof = settings.proof
        if isinstance(proof, BasicProof | CredentialProof):
            return self._by_password(secrets, settings)
        texts = [secret.strip() for secret in texts_of(secrets)]
        signature: Verifier
        if isinstance(proof, HmacProof):
            signature = HmacVerifier([_KEYS[proof.secret_encoding](text) for text in texts], proof.rules)
        else:
            signature = StandardWebhooksVerifier(texts, proof.headers, proof.tolerance_s)
        passwords = objects_of(secrets, BasicSecret)
        return AllOf([signature, BasicVerifier(passwords)]) if passwords else signature

    def _by_password(self, secrets: Sequence[str], settings: GenericSettings) -> Verifier:
        if texts_of(secrets) and isinstance(settings.proof, BasicProof):
            raise InvalidSecretError(
                "By settings.proof requests prove themselves by a name and a password, so a text proves nothing. Give "
                "username and password, or choose the proof hmac or standard_webhooks."
            )
        return super().verifier(secrets, settings)


ADAPTER = GenericAdapter()
