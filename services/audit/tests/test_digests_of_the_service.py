"""The service as it runs: what it files is signed, and anybody can check copies of it."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from backhaul_audit import verify as command
from backhaul_common.names import AUDIT_DIGESTS_COLLECTION, AUDIT_KEYS_COLLECTION, NOTICES_STREAM
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_testing.waiting import until
from filing_rig import Rig, asking, event
from signed_world import run_script


async def all_signed(filing: Rig, files: int) -> list[dict[str, Any]]:
    """The digests, when so many files lie in some that are in their places."""

    async def enough() -> list[dict[str, Any]] | None:
        rows = await filing.database[AUDIT_DIGESTS_COLLECTION].find({"uploaded": True}).sort("number", 1).to_list(None)
        return rows if sum(row["files"] for row in rows) >= files else None

    return await until(f"{files} files in digests", enough, within_s=60, pause_s=0.1)


async def copied(filing: Rig, root: Path) -> Path:
    """Copies of all files and digests, and the file of keys beside them."""
    # Not of the whole bucket: what the probes write there is deleted while others look.
    for prefix in ("tenants/", "digests/"):
        for one in filing.s3.list_objects(filing.bucket, prefix=prefix, recursive=True):
            assert one.object_name is not None
            filing.s3.fget_object(filing.bucket, one.object_name, str(root / "copies" / one.object_name))
    keys = await filing.database[AUDIT_KEYS_COLLECTION].find({}).to_list(None)
    said = [{"key_id": row["_id"], "public_key": base64.b64encode(row["public"]).decode()} for row in keys]
    (root / "keys.json").write_text(json.dumps({"keys": said}))
    return root / "copies"


async def test_what_is_filed_is_signed_by_copies_that_are_killed(filing: Rig, tmp_path: Path) -> None:
    acme = asking("acme", gzip=True)
    await filing.register(acme)
    settings = {"audit_digest_every_s": 1, "audit_max_file_age_s": 0.3}
    copies = [filing.start(**settings), filing.start(**settings)]
    sent = 0
    for _ in range(4):
        for _ in range(3):
            await filing.publish(acme, *(event(acme, f"e{sent + number}") for number in range(5)))
            sent += 5
        await filing.sealed(sent)
        filing.kill(copies.pop(0))
        copies.append(filing.start(**settings))
    files = await filing.sealed(sent)
    rows = await all_signed(filing, len(files))
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))

    root = await copied(filing, tmp_path)
    arguments = ["--offline", str(root), "--keys", str(tmp_path / "keys.json"), "--head", rows[-1]["hash"]]
    assert await asyncio.to_thread(command.main, arguments) == command.VALID
    assert run_script(root, tmp_path / "keys.json", [rows[-1]["hash"]])[2] == 0

    heads = set()
    subscription = await filing.nats.jetstream().pull_subscribe("notices.>", stream=NOTICES_STREAM)
    for row in rows:
        (message,) = await subscription.fetch(1, timeout=30)
        notice = Notice.FromString(message.data)
        assert (notice.type, notice.registration) == ("audit.digest", acme.registration)
        heads |= {one.value for one in notice.attributes if one.name == "hash"}
        assert row["tenant_id"] == "acme"
    assert heads >= {row["hash"] for row in rows[:-1]}

    (root / files[0].plan.key).write_bytes(b"{}\n")
    assert await asyncio.to_thread(command.main, arguments) == command.INVALID
    assert run_script(root, tmp_path / "keys.json", [])[0] == {("file", files[0].plan.key, "hash")}
