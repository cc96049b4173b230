"""What service accounts change in suppression is in the log of changes, and nobody's address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import orjson
from backhaul_common.errors import Code
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from service_rig import ANNA, Rig
from test_callers import Account, account

MANUAL = pb.SUPPRESSION_KIND_MANUAL


async def _entries(service: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await service.database["changes"].find().sort("_id", 1).to_list(None)
    return found


async def test_what_an_account_says_of_people_is_logged_without_them(service: Rig) -> None:
    crm = await account(service)
    said: dict[str, Any] = {"address": ANNA, "kind": MANUAL, "note": f"{ANNA} called"}
    for method in ("Add", "Add", "Lift"):
        await crm.call(method, **said)
    assert await crm.code("Lift", address=ANNA, note=ANNA) is Code.INVALID_ARGUMENT
    await crm.call("Check", address=ANNA)
    entries = await _entries(service)
    assert [(one["action"].rpartition("/")[2], one["status"]) for one in entries] == [
        ("Add", 200), ("Add", 200), ("Lift", 200), ("Lift", 422),
    ]  # fmt: skip
    assert {(one["author"], one["of"].partition(".")[0]) for one in entries} == {("service:crm", "acme")}
    assert orjson.loads(entries[0]["after"]) == {"address": "***", "kind": "SUPPRESSION_KIND_MANUAL", "note": "***"}
    assert entries[3]["after"] == ""
    assert ANNA not in str(entries)
    assert ANNA.removeprefix("+") not in str(entries)


async def test_of_a_list_that_is_imported_size_and_hash_are_kept(service: Rig) -> None:
    crm = await account(service)
    pieces = [b"address\n", f"{ANNA}\n".encode()]
    await _imported(crm, service, pieces)
    (entry,) = await _entries(service)
    whole = b"".join(pieces)
    assert orjson.loads(entry["after"]) == {
        "format": "FILE_FORMAT_CSV", "bytes": len(whole), "sha256": sha256(whole).hexdigest(),
    }  # fmt: skip
    assert (entry["kind"], entry["status"]) == ("suppression_list", 200)


async def _imported(crm: Account, service: Rig, pieces: list[bytes]) -> None:
    async def requests() -> AsyncIterator[pb.ImportRequest]:
        for piece in pieces:
            yield pb.ImportRequest(tenant_id="acme", format=pb.FILE_FORMAT_CSV, data=piece, last=piece is pieces[-1])

    answers = [one async for one in service.first.stub.Import(requests(), metadata=crm.shows)]
    assert (answers[-1].done, answers[-1].changed) == (True, 1)
