"""The notice that a digest was made: its hash is with whoever receives it, out of the operator's reach."""

from __future__ import annotations

from backhaul_common import notices
from backhaul_common.fence import Living
from backhaul_common.outbox import Entry
from backhaul_digests.model import Digest
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

MADE = "audit.digest"
"""Its attributes: ``chain``, ``number``, ``hash``, ``key``."""


def notice_of(digest: Digest, owner: Living, now_us: int) -> Entry:
    """The notice, for the outbox."""
    said = {
        "chain": digest.of.chain.value,
        "number": str(digest.number),
        "hash": digest.hash,
        "key": digest.key,
    }
    notice = Notice(
        id=notices.notice_id(owner.registration, MADE, f"{digest.of.chain}/{digest.number}"),
        tenant_id=digest.tenant_id,
        registration=owner.registration,
        type=MADE,
        occurred_at_us=now_us,
        about=About(reference=digest.key),
        text=f"Digest {digest.number} of the chain {digest.of.chain} was signed: {digest.files} files, "
        f"{digest.deletions} deletions. Keep its hash: with it you can prove that nothing before it was changed.",
        attributes=[Attribute(name=name, value=value) for name, value in said.items()],
    )
    return notices.entry(notice, owner.path)
