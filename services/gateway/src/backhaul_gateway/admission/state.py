"""What the hot path knows of tenants: prepared once per change, so that a request asks no database and no parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from backhaul_channels.adapter import Adapter, Answer, InvalidSecretError, Proof, RawCallback, Refusal, Verifier
from backhaul_common.limits import TokenBucket
from backhaul_common.logs import get_logger
from backhaul_common.names import callbacks_subject, queue_path_key
from backhaul_common.secrets import SecretBox
from backhaul_common.tenants import Channel, Tenant
from backhaul_proto.callback.v1.callback_pb2 import (
    SOURCE_CALLBACK,
    VERIFICATION_CREDENTIAL,
    VERIFICATION_OBSERVED_INVALID,
    VERIFICATION_OFF,
    VERIFICATION_UNSPECIFIED,
    VERIFICATION_VERIFIED,
    Callback,
    Verification,
)
from pydantic import ValidationError

from backhaul_gateway.admission.auth import CREDENTIAL_HEADERS
from backhaul_gateway.admission.limits import Reads

_LOOKS_PER_SECOND = 5.0
_LOOKS_AT_ONCE = 10

NO_CONTENT = 204

_UNREADABLE = Refusal("secret_unreadable", "The channel's secrets cannot be read; store them again.")
_NO_PROVIDER = Refusal("provider_unknown", "The channel's provider is not installed.")


class _RefuseAll:
    """Stands where a channel's verifier cannot be made: fail closed."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def verify(self, callback: RawCallback) -> Refusal | None:  # noqa: ARG002  # the Verifier protocol
        return self._refusal


class _CredentialSuffices:
    """Stands where a provider signs nothing: whoever gets here has shown the tenant's API key or ingest token."""

    def verify(self, callback: RawCallback) -> Refusal | None:  # noqa: ARG002  # the Verifier protocol
        return None


Asked = Callable[[RawCallback], Answer | None]
"""An adapter's ``handshake``, or its ``issue_token``, with the channel's secrets and settings."""


class EncodedAnswer:
    """An adapter's answer as the server takes it, so that a request only adds its own headers."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.body = answer.body
        headers: list[tuple[bytes, bytes]] = []
        if answer.content_type:
            headers.append((b"content-type", answer.content_type.encode("latin-1")))
        if answer.status != NO_CONTENT:
            # RFC 9110 forbids the length beside a 204.
            headers.append((b"content-length", b"%d" % len(answer.body)))
        self.headers = tuple(headers)


class ChannelState:
    """One channel, ready for requests. ``proven`` is what a request is that ``verifier`` does not refuse; ``not_kept``
    are the headers that are not stored with a callback; ``handshake`` and ``issue_token`` are None where the adapter
    has none, so that the hot path does not ask in vain. ``audience`` is what names the channel to its proofs."""

    __slots__ = (
        "accepted",
        "audience",
        "channel",
        "handshake",
        "issue_token",
        "key",
        "mode",
        "not_kept",
        "prefix",
        "proven",
        "subject",
        "tenant_id",
        "verifier",
    )

    def __init__(
        self,
        tenant: Tenant,
        channel: Channel,
        verifier: Verifier,
        adapter: Adapter[Any] | None,
        handshake: Asked | None = None,
        issue_token: Asked | None = None,
        proven: Verification.ValueType = VERIFICATION_VERIFIED,
        signature_headers: frozenset[bytes] = frozenset(),
    ) -> None:
        self.channel = channel
        self.proven = proven
        self.key = channel.key
        self.mode = channel.verification
        self.verifier = verifier
        self.handshake = handshake
        self.issue_token = issue_token
        self.audience = f"{tenant.registration}/{channel.key}"
        self.accepted = EncodedAnswer(adapter.accepted if adapter is not None else Answer())
        self.not_kept = CREDENTIAL_HEADERS | signature_headers
        self.subject = callbacks_subject(tenant.queue_path, channel.key)
        self.tenant_id = tenant.id
        self.prefix = Callback(
            tenant_id=tenant.id,
            registration=tenant.registration,
            tenant_revision=tenant.revision,
            channel=channel.key,
            provider=channel.provider,
            source=SOURCE_CALLBACK,
        ).SerializeToString()
        """What all callbacks of the channel have in common. Serialised messages that follow each other are one message
        with the fields of both, so that this is written once a channel."""

    def judge(self, callback: RawCallback) -> tuple[Verification.ValueType, Refusal | None]:
        """What a request is by the channel's verification, and what speaks against it; UNSPECIFIED where it is refused
        for that. A channel that only observes refuses nothing: a body that was too large to be checked is stored as
        unverified too, rather than lost."""
        if self.mode == "off":
            return VERIFICATION_OFF, None
        refusal = self.verifier.verify(callback)
        if refusal is None:
            return self.proven, None
        return (VERIFICATION_OBSERVED_INVALID if self.mode == "observe" else VERIFICATION_UNSPECIFIED), refusal


class TenantState:
    """One tenant, ready for requests. Verifiers are made when a channel is first used."""

    __slots__ = ("_channels", "_prepare", "bucket", "looks", "path", "reads", "tenant")

    def __init__(
        self,
        tenant: Tenant,
        bucket: TokenBucket,
        reads: Reads,
        looks: TokenBucket,
        prepare: Callable[[Tenant, Channel], ChannelState],
    ) -> None:
        self.tenant = tenant
        self.path = queue_path_key(tenant.queue_path)
        self.bucket = bucket
        self.reads = reads
        self.looks = looks
        """How often the database is asked about a channel that is not known here."""
        self._prepare = prepare
        self._channels: dict[str, ChannelState] = {}

    def channels(self) -> list[ChannelState]:
        """All of the tenant's channels, by key."""
        return [state for key in sorted(self.tenant.channels) if (state := self.channel(key)) is not None]

    def channel(self, key: str) -> ChannelState | None:
        """The channel of that key, or None."""
        state = self._channels.get(key)
        if state is None:
            channel = self.tenant.channels.get(key)
            if channel is None:
                return None
            state = self._channels[key] = self._prepare(self.tenant, channel)
        return state


class TenantStates:
    """All tenants, by id; fed by the tenant directory."""

    def __init__(self, adapters: Mapping[str, Adapter[Any]], box: SecretBox, clock: Callable[[], float]) -> None:
        self._adapters = adapters
        self._box = box
        self._clock = clock
        self._states: dict[str, TenantState] = {}
        self._by_path: dict[str, TenantState] = {}
        self._refused: dict[tuple[str, str], int] = {}
        self._log = get_logger(component="tenants")

    def get(self, tenant_id: str) -> TenantState | None:
        """The tenant, or None."""
        return self._states.get(tenant_id)

    def by_path(self) -> Mapping[str, TenantState]:
        """All tenants, by the key of their queue path, as they are now and later."""
        return self._by_path

    def changed(self, tenant_id: str, tenant: Tenant | None) -> None:
        """A listener of the tenant directory."""
        before = self._states.pop(tenant_id, None)
        # Whoever has the path by now may have been heard of first.
        if before is not None and self._by_path.get(before.path) is before:
            del self._by_path[before.path]
        if before is not None and (tenant is None or tenant.registration != before.tenant.registration):
            # Whoever has the id next begins anew, also where the deletion in between was not heard of.
            self._refused = {key: count for key, count in self._refused.items() if key[0] != tenant_id}
            before = None
        if tenant is None:
            return
        limits = tenant.limits
        if before is not None:
            bucket = before.bucket.adjusted(limits.requests_per_second, limits.burst)
            reads = before.reads.adjusted(limits.reads_per_second, limits.read_burst, limits.concurrent_reads)
            looks = before.looks
        else:
            bucket = TokenBucket(limits.requests_per_second, limits.burst, self._clock)
            reads = Reads(TokenBucket(limits.reads_per_second, limits.read_burst, self._clock), limits.concurrent_reads)
            looks = TokenBucket(_LOOKS_PER_SECOND, _LOOKS_AT_ONCE, self._clock)
        state = self._states[tenant_id] = TenantState(tenant, bucket, reads, looks, self._prepare)
        self._by_path[state.path] = state

    def refused(self, tenant_id: str, key: str) -> int:
        """Requests of a channel that failed verification since this process started."""
        return self._refused.get((tenant_id, key), 0)

    def count_refused(self, tenant_id: str, key: str) -> None:
        """One more of them. Kept apart from the channel's state, which a change of its settings replaces."""
        self._refused[tenant_id, key] = self.refused(tenant_id, key) + 1

    def _prepare(self, tenant: Tenant, channel: Channel) -> ChannelState:
        adapter = self._adapters.get(channel.provider)
        if adapter is None:
            self._log.error("channel_unusable", tenant=tenant.id, channel=channel.key, reason=_NO_PROVIDER.code)
            return ChannelState(tenant, channel, _RefuseAll(_NO_PROVIDER), None)
        signature_headers = adapter.signature_headers
        try:
            settings = adapter.settings_model.of_stored(channel.settings)
            signature_headers = adapter.signature_headers_of(settings)
            secrets = [self._box.decrypt(secret) for secret in channel.secrets]
            by_credential = adapter.proof_of(settings) is Proof.CREDENTIAL and not any(
                secret.strip() for secret in secrets
            )
            verifier = _CredentialSuffices() if by_credential else adapter.verifier(secrets, settings)
        except (InvalidSecretError, ValidationError, ValueError) as exc:
            # The type alone: a message could quote what it could not read.
            self._log.error("channel_unusable", tenant=tenant.id, channel=channel.key, reason=type(exc).__name__)
            return ChannelState(tenant, channel, _RefuseAll(_UNREADABLE), adapter, signature_headers=signature_headers)
        own: type[Adapter[Any]] = type(adapter)
        asked: dict[str, Any] = {"secrets": secrets, "settings": settings}
        handshake = partial(adapter.handshake, **asked) if own.handshake is not Adapter.handshake else None
        issue_token = partial(adapter.issue_token, **asked) if own.issue_token is not Adapter.issue_token else None
        proven = VERIFICATION_CREDENTIAL if by_credential else VERIFICATION_VERIFIED
        return ChannelState(tenant, channel, verifier, adapter, handshake, issue_token, proven, signature_headers)
