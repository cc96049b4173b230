"""Audit files over HTTP: a tenant's calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backhaul_client.auditmodels import (
    AuditDigest,
    AuditErasure,
    AuditFile,
    AuditKey,
    AuditLink,
    AuditProofs,
    AuditRecount,
    AuditVerification,
)
from backhaul_client.calls import Call, all_of, call, given, lines, of, page_of, path, pieces, rows
from backhaul_client.paging import Page

_ROOT = "/v1/audits"
_PAGE = 100


class AuditCalls:
    """The calls, once for both clients."""

    @rows
    def audit_files(
        self,
        *,
        channel: str = "",
        chain: str = "",
        from_: datetime | None = None,
        to: datetime | None = None,
        page_size: int = _PAGE,
        cursor: str = "",
    ) -> Call[Page[AuditFile]]:
        """Files, the latest first. ``chain`` is ``events`` or ``backfill``; with ``from_`` and ``to`` those with events
        that arrived then."""
        params = given(channel=channel, chain=chain, from_=from_, to=to, limit=page_size, cursor=cursor)
        return Call(path=_ROOT, params=params, answer=page_of("files", AuditFile))

    @call
    def audit_file(self, file_id: str) -> Call[AuditFile]:
        """What one file is, also when it is deleted."""
        return Call(path=path("v1", "audits", file_id), answer=of(AuditFile))

    @pieces
    def audit_content(self, file_id: str, *, decrypted: bool = False) -> Call[bytes]:
        """The file as it is stored, piece by piece: a compressed one is still compressed. ``decrypted`` is what it
        holds: inflated, and each line as if it had never been encrypted, but for those of people who are erased."""
        params = given(decrypted=decrypted or None)
        return Call(path=path("v1", "audits", file_id, "content"), params=params, answer=bytes)

    @call
    def erase_person(self, address: str) -> Call[AuditErasure]:
        """Destroy the key of a person: what encrypted files hold of them, nobody can read from then on. ``address`` is
        a number or an e-mail address in any usual spelling, or whatever else events name as the recipient."""
        return Call(
            method="POST",
            path=f"{_ROOT}/erasures",
            body={"address": address},
            answer=of(AuditErasure),
            repeatable=True,
        )

    @call
    def link_audit_file(self, file_id: str, *, valid_s: int = 900) -> Call[AuditLink]:
        """An address at the object storage from which the file can be fetched without a credential, for a while."""
        return Call(
            method="POST",
            path=path("v1", "audits", file_id, "link"),
            params=given(valid_s=valid_s),
            answer=of(AuditLink),
            repeatable=True,
        )

    @call
    def prove_event(self, event_id: str) -> Call[AuditProofs]:
        """In which files an event lies, where in them, and which digests sign them."""
        return Call(path=f"{_ROOT}/proof", params=given(event_id=event_id), answer=of(AuditProofs))

    @rows
    def audit_digests(
        self, *, chain: str = "events", page_size: int = _PAGE, cursor: str = ""
    ) -> Call[Page[AuditDigest]]:
        """Digests of a chain, the latest first."""
        params = given(chain=chain, limit=page_size, cursor=cursor)
        return Call(path=f"{_ROOT}/digests", params=params, answer=page_of("digests", AuditDigest))

    @call
    def audit_digest(self, chain: str, number: int) -> Call[bytes]:
        """One digest exactly as it is stored: the line that is signed, and the line of its signature."""
        return Call(path=path("v1", "audits", "digests", chain, str(number)), answer=bytes)

    @call
    def audit_heads(self) -> Call[tuple[AuditDigest, ...]]:
        """The last digest of each chain. Keep their hashes elsewhere, and give them to ``verify_audits`` later."""
        return Call(path=f"{_ROOT}/head", answer=all_of("heads", AuditDigest))

    @lines
    def verify_audits(
        self,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        chain: str = "",
        heads: Sequence[str] = (),
    ) -> Call[AuditVerification]:
        """Check every digest of a span of time, and every file that it lists, against the object storage: how far it
        is, with what was found. The last one is ``done``. ``heads`` are hashes of digests that were kept."""
        params: dict[str, str | Sequence[str]] = {**given(from_=from_, to=to, chain=chain, progress=True)}
        if heads:
            params["head"] = tuple(heads)
        return Call(path=f"{_ROOT}/verify", params=params, answer=of(AuditVerification))

    @lines
    def recount_communication(self, communication_id: str) -> Call[AuditRecount]:
        """Compare what a communication counts with its events, and these with what lies in files: how far it is, and
        last the result, which is ``done``."""
        params = given(communication_id=communication_id, progress=True)
        return Call(path=f"{_ROOT}/recount", params=params, answer=of(AuditRecount))

    @call
    def audit_keys(self) -> Call[tuple[AuditKey, ...]]:
        """All public keys that digests were ever signed with, the present one first."""
        return listing_keys()


def listing_keys() -> Call[tuple[AuditKey, ...]]:
    """The call that lists the public keys, which asks for no credential."""
    return Call(path="/.well-known/backhaul-audit-keys", answer=all_of("keys", AuditKey))
