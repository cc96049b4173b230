"""``/v1/audits`` and the keys: what is asked of audit, and how its answers are shown."""

from __future__ import annotations

import asyncio
import gzip
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from audit_rig import (
    DIGEST,
    DIGEST_SHOWN,
    FILE,
    FILE_ID,
    FILE_SHOWN,
    KEY,
    KEY_SHOWN,
    NAME,
    AuditRig,
    FakeAudit,
    audit_server,
    auditing,
)
from backhaul_common.errors import BackhaulError, Code
from backhaul_gateway.reads import auditfiles, auditkeys
from backhaul_local.nats_server import NatsServer
from backhaul_proto.audit.v1 import audit_pb2 as pb
from gateway_rig import GatewayFactory

KEYS = "/.well-known/backhaul-audit-keys"
ROTATE = "/admin/v1/audit-keys/rotate"
CONTENT = f"/{FILE_ID}/content"
AWAY = BackhaulError(Code.UNAVAILABLE, "The bucket is away.", fix="Try again later.", retry_after_s=5)


@pytest.fixture
async def rig(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> AsyncIterator[AuditRig]:
    async with auditing(gateway_factory, fresh_nats.uri) as found:
        yield found


def finding(number: int, problem: str = "") -> pb.Finding:
    return pb.Finding(
        subject=pb.SUBJECT_FILE,
        name=f"backhaul/{number}",
        valid=not problem,
        problem=problem,
        detail=problem and "It is another.",
        chain=pb.CHAIN_EVENTS,
    )


async def test_files(rig: AuditRig) -> None:
    rig.audit.answers["ListFiles"] = pb.ListFilesResponse(files=[FILE], next_page_token="t")
    params: dict[str, Any] = {
        "channel": "SendGrid",
        "chain": "backfill",
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-11-02T00:00:00+01:00",
        "limit": 5,
        "cursor": "c",
    }
    answer = await rig.get(**params)
    assert (answer.status_code, answer.json()) == (200, {"files": [FILE_SHOWN], "next_cursor": "t"})
    assert rig.audit.asked == [
        pb.ListFilesRequest(
            tenant_id="acme",
            channel="SendGrid",
            chain=pb.CHAIN_BACKFILL,
            from_us=1_793_491_200_000_000,
            to_us=1_793_574_000_000_000,
            page_size=5,
            page_token="c",
        )
    ]
    rig.gateway.problem(await rig.get(chain="other"), 422, "chain")
    rig.audit.refusal = BackhaulError(Code.INVALID_ARGUMENT, "No token.", field="page_token", fix="None.")
    rig.gateway.problem(await rig.get(cursor="wrong"), 422, "cursor")


async def test_one_file_and_a_link_to_it(rig: AuditRig) -> None:
    deleted = pb.AuditFile()
    deleted.CopyFrom(FILE)
    deleted.deleted_at_us, deleted.format, deleted.gzip = 1_700_000_000_000_000, pb.FILE_FORMAT_ARRAY, True
    rig.audit.answers["DescribeFile"] = pb.DescribeFileResponse(file=deleted)
    shown = {**FILE_SHOWN, "deleted_at": "2023-11-14T22:13:20.000000Z", "format": "array", "gzip": True}
    assert (await rig.get(f"/{FILE_ID}")).json() == shown
    rig.audit.answers["LinkFile"] = pb.LinkFileResponse(url="https://s3/x", expires_at_us=1_700_000_000_000_000)
    link = f"/v1/audits/{FILE_ID}/link"
    answer = await rig.gateway.client.post(link, params={"valid_s": 60}, headers=rig.headers)
    assert answer.json() == {"url": "https://s3/x", "expires_at": "2023-11-14T22:13:20.000000Z"}
    assert rig.audit.asked[1:] == [pb.LinkFileRequest(tenant_id="acme", file_id=FILE_ID, valid_s=60)]
    for wrong in (0, 604_801):
        refused = await rig.gateway.client.post(link, params={"valid_s": wrong}, headers=rig.headers)
        rig.gateway.problem(refused, 422, "valid_s")
    problem = rig.gateway.problem(await rig.get("/nothing"), 422, "file_id")
    assert problem["errors"][0]["fix"] == "Pass the id of a file, 32 lower-case hex digits, as files are listed."
    rig.audit.refusal = BackhaulError(Code.NOT_FOUND, "There is no such file.", field="file_id", fix="Another.")
    rig.gateway.problem(await rig.get(f"/{FILE_ID}"), 404, "file_id")


WHOLE = b'{"n":1}\n' * 5 + b"{}"
"""So many bytes as the file has."""


async def test_content_comes_as_it_is_stored(rig: AuditRig) -> None:
    rig.audit.answers["GetFile"] = [pb.GetFileResponse(file=FILE, data=WHOLE[:5]), pb.GetFileResponse(data=WHOLE[5:])]
    answer = await rig.get(CONTENT)
    assert (answer.status_code, answer.content) == (200, WHOLE)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert (answer.headers["content-length"], "transfer-encoding" in answer.headers) == ("42", False)
    assert answer.headers["repr-digest"] == f"sha-256=:{b64encode(bytes.fromhex('ab' * 32)).decode()}:"
    assert (answer.headers["accept-ranges"], answer.headers["cache-control"]) == ("none", "no-store")
    assert rig.audit.asked == [pb.GetFileRequest(tenant_id="acme", file_id=FILE_ID)]


async def test_a_compressed_file_stays_compressed(rig: AuditRig) -> None:
    stored = gzip.compress(b'{"a":1}\n', mtime=0)
    file = pb.AuditFile()
    file.CopyFrom(FILE)
    file.gzip, file.bytes = True, len(stored)
    rig.audit.answers["GetFile"] = [pb.GetFileResponse(file=file, data=stored)]
    answer = await rig.gateway.client.get(f"/v1/audits{CONTENT}", headers={**rig.headers, "Accept-Encoding": "gzip"})
    # httpx would have inflated what comes with a Content-Encoding.
    assert answer.content == stored
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-type"] == "application/gzip"
    file.gzip, file.format = False, pb.FILE_FORMAT_ARRAY
    rig.audit.answers["GetFile"] = [pb.GetFileResponse(file=file, data=stored)]
    assert (await rig.get(CONTENT)).headers["content-type"] == "application/json"


async def test_content_comes_decrypted_where_it_is_asked_for(rig: AuditRig) -> None:
    file = pb.AuditFile()
    file.CopyFrom(FILE)
    file.gzip, file.key = True, f"{FILE.key}.gz"
    # Longer than what is stored, and nobody has signed it.
    rig.audit.answers["GetFile"] = [pb.GetFileResponse(file=file, data=WHOLE), pb.GetFileResponse(data=b"{}\n")]
    answer = await rig.get(CONTENT, decrypted="true")
    assert answer.content == WHOLE + b"{}\n"
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert not {"repr-digest", "content-length", "content-encoding"} & set(answer.headers)
    assert rig.audit.asked == [pb.GetFileRequest(tenant_id="acme", file_id=FILE_ID, decrypted=True)]
    file.format = pb.FILE_FORMAT_ARRAY
    rig.audit.answers["GetFile"] = [pb.GetFileResponse(file=file, data=b"[\n{}\n]\n")]
    assert (await rig.get(CONTENT, decrypted="true")).headers["content-type"] == "application/json"
    rig.gateway.problem(await rig.get(CONTENT, decrypted="perhaps"), 422, "decrypted")
    # What does not decrypt at once is a problem, and later it is cut off.
    rig.audit.refusal = BackhaulError(Code.FAILED_PRECONDITION, "Line 1 does not decrypt.", fix="Restore it.")
    rig.gateway.problem(await rig.get(CONTENT, decrypted="true"), 409)
    rig.audit.refusal, rig.audit.breaks = None, rig.audit.refusal
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.get(CONTENT, decrypted="true")


@pytest.mark.parametrize(
    "pieces", [[WHOLE[:-1]], [WHOLE[:5], WHOLE[5:] + b"x"], [WHOLE[:5]]], ids=["shorter", "longer", "broken off"]
)
async def test_content_that_is_not_whole_does_not_look_so(rig: AuditRig, pieces: list[bytes]) -> None:
    rig.audit.answers["GetFile"] = [
        pb.GetFileResponse(file=FILE, data=pieces[0]),
        *(pb.GetFileResponse(data=piece) for piece in pieces[1:]),
    ]
    if len(pieces[0]) == 5 and len(pieces) == 1:
        rig.audit.breaks = AWAY
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.get(CONTENT)
    # The next answer comes all the same.
    rig.audit.answers["GetFile"], rig.audit.breaks = [pb.GetFileResponse(file=FILE, data=WHOLE)], None
    assert (await rig.get(CONTENT)).content == WHOLE


async def test_content_that_fails_before_its_first_byte_is_a_problem(rig: AuditRig) -> None:
    for refusal, status in (
        (AWAY, 503),
        (BackhaulError(Code.FAILED_PRECONDITION, "The file was deleted.", fix="Another."), 409),
        (BackhaulError(Code.RATE_LIMITED, "Too many.", fix="Wait.", retry_after_s=10), 429),
    ):
        rig.audit.refusal = refusal
        rig.gateway.problem(await rig.get(CONTENT), status)
    rig.audit.refusal = None
    rig.audit.answers["GetFile"] = [pb.GetFileResponse(file=FILE, data=WHOLE + b"x")]
    assert "42 bytes" in rig.gateway.problem(await rig.get(CONTENT), 409)["detail"]


async def test_a_person_is_erased(rig: AuditRig) -> None:
    rig.audit.answers["ErasePerson"] = pb.ErasePersonResponse(
        destroyed=True, erased_before_us=1_700_000_000_000_000, plain_channels=["sendgrid"]
    )

    async def erase(body: Any, headers: Any = None) -> httpx.Response:
        asked = rig.gateway.client.post("/v1/audits/erasures", json=body, headers=headers or rig.headers)
        answer: httpx.Response = await asked
        return answer

    answer = await erase({"address": "+15005550010"})
    assert (answer.status_code, answer.json()) == (
        200,
        {"destroyed": True, "erased_before": "2023-11-14T22:13:20.000000Z", "plain_channels": ["sendgrid"]},
    )
    assert rig.audit.asked == [pb.ErasePersonRequest(tenant_id="acme", address="+15005550010")]
    for wrong in ({}, {"address": ""}, {"address": "1" * 513}, {"address": "\x00"}):
        rig.gateway.problem(await erase(wrong), 422, "address")
    rig.gateway.problem(await erase({"address": "1", "why": "asked for"}), 422, "why")
    rig.gateway.problem(await erase({"address": "1"}, {"X-Api-Key": "none"}), 401)
    # Nothing of it is a matter of the address's path, which logs show.
    rig.gateway.problem(await rig.gateway.client.get("/v1/audits/erasures", headers=rig.headers), 422, "file_id")
    assert len(rig.audit.asked) == 1
    rig.audit.refusal = BackhaulError(Code.INVALID_ARGUMENT, "It is missing.", field="address", fix="Send one.")
    rig.gateway.problem(await erase({"address": " "}), 422, "address")


async def test_nobody_reads_on_for_a_client_that_is_gone(rig: AuditRig) -> None:
    rig.audit.answers["GetFile"] = [pb.GetFileResponse(file=FILE, data=b'{"a":')]
    rig.audit.hangs = True
    async with rig.gateway.client.stream("GET", f"/v1/audits{CONTENT}", headers=rig.headers) as answer:
        assert answer.status_code == 200
        await rig.audit.hanging.wait()
        assert not rig.audit.ended.is_set()
    async with asyncio.timeout(60):
        await rig.audit.ended.wait()


async def test_digests_and_heads(rig: AuditRig) -> None:
    rig.audit.answers |= {
        "ListDigests": pb.ListDigestsResponse(digests=[DIGEST]),
        "GetHead": pb.GetHeadResponse(heads=[DIGEST]),
        "GetDigest": pb.GetDigestResponse(digest=DIGEST, data=b"{}\n{}\n"),
    }
    assert (await rig.get("/digests")).json() == {"digests": [DIGEST_SHOWN], "next_cursor": None}
    await rig.get("/digests", chain="backfill", limit=3, cursor="c")
    assert (await rig.get("/head")).json() == {"heads": [DIGEST_SHOWN]}
    answer = await rig.get("/digests/events/2")
    assert (answer.content, answer.headers["content-type"]) == (b"{}\n{}\n", "application/x-ndjson")
    assert answer.headers["content-disposition"].endswith('filename="DIGEST_20231114T231320Z_2.jsonl"')
    assert rig.audit.asked == [
        pb.ListDigestsRequest(tenant_id="acme", chain=pb.CHAIN_EVENTS, page_size=50),
        pb.ListDigestsRequest(tenant_id="acme", chain=pb.CHAIN_BACKFILL, page_size=3, page_token="c"),
        pb.GetHeadRequest(tenant_id="acme"),
        pb.GetDigestRequest(tenant_id="acme", chain=pb.CHAIN_EVENTS, number=2),
    ]
    rig.gateway.problem(await rig.get("/digests/other/2"), 422, "chain")
    rig.gateway.problem(await rig.get("/digests/events/0"), 422, "number")


async def test_a_proof(rig: AuditRig) -> None:
    rig.audit.answers["Prove"] = pb.ProveResponse(
        proofs=[pb.Proof(revision=0, file=FILE, place=3, digest=DIGEST), pb.Proof(revision=1, file=FILE, place=1)],
        heads=[DIGEST],
    )
    assert (await rig.get("/proof", event_id="e1")).json() == {
        "proofs": [
            {"revision": 0, "place": 3, "file": FILE_SHOWN, "digest": DIGEST_SHOWN},
            {"revision": 1, "place": 1, "file": FILE_SHOWN, "digest": None},
        ],
        "heads": [DIGEST_SHOWN],
    }
    assert rig.audit.asked == [pb.ProveRequest(tenant_id="acme", event_id="e1")]
    rig.gateway.problem(await rig.get("/proof"), 422, "event_id")


async def test_a_verification_as_one_answer(rig: AuditRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditfiles, "MAX_INVALID", 2)
    rig.audit.answers["Verify"] = [
        pb.VerifyResponse(
            findings=[finding(1), finding(2, "hash")], digests=1, valid_digests=1, files=2, valid_files=1
        ),
        pb.VerifyResponse(
            findings=[finding(3, "not_found"), finding(4, "hash")],
            digests=3,
            valid_digests=3,
            files=4,
            valid_files=1,
            found_from_us=1_700_000_000_000_000,
            done=True,
        ),
    ]
    head = "ab" * 32
    refused = rig.gateway.problem(await rig.get("/verify", head=[head, "0f3a"]), 422, "head[1]")
    assert refused["errors"][0]["fix"] == "Pass the hash of a digest whole: 64 lower-case hex digits."
    params = {"from": "2026-11-01T00:00:00Z", "chain": "events", "head": [head, head]}
    answer = await rig.get("/verify", **params)
    wrong: dict[str, Any] = {
        "chain": "events",
        "subject": "file",
        "valid": False,
        "detail": "It is another.",
    }
    assert answer.json() == {
        "valid": False,
        "summary": ["3/3 digests valid", "1/4 files valid"],
        "digests": 3,
        "valid_digests": 3,
        "files": 4,
        "valid_files": 1,
        "found_from": "2023-11-14T22:13:20.000000Z",
        "found_to": None,
        "invalid": [
            {**wrong, "name": "backhaul/2", "problem": "hash"},
            {**wrong, "name": "backhaul/3", "problem": "not_found"},
        ],
        "invalid_complete": False,
    }
    assert rig.audit.asked == [
        pb.VerifyRequest(tenant_id="acme", from_us=1_793_491_200_000_000, chain=pb.CHAIN_EVENTS, heads=[head, head])
    ]
    rig.gateway.problem(await rig.get("/verify", head="short"), 422, "head[0]")
    # What was not checked to its end is no answer.
    rig.audit.answers["Verify"] = rig.audit.answers["Verify"][:1]
    rig.gateway.problem(await rig.get("/verify"), 503)


async def test_a_verification_line_by_line(rig: AuditRig) -> None:
    kept = pb.Finding(subject=pb.SUBJECT_DIGEST, name="ab" * 32, problem="unknown_head", detail="No digest has it.")
    rig.audit.answers["Verify"] = [
        pb.VerifyResponse(findings=[finding(1), kept], files=1, valid_files=1),
        pb.VerifyResponse(files=1, valid_files=1, done=True),
    ]
    answer = await rig.get("/verify", progress="true")
    assert answer.headers["content-type"] == "application/x-ndjson"
    first, last = map(json.loads, answer.text.splitlines())
    assert first["findings"] == [
        {
            "chain": "events",
            "subject": "file",
            "name": "backhaul/1",
            "valid": True,
            "problem": None,
            "detail": None,
        },
        {
            "chain": None,
            "subject": "digest",
            "name": "ab" * 32,
            "valid": False,
            "problem": "unknown_head",
            "detail": "No digest has it.",
        },
    ]
    assert (first["done"], last["done"], last["files"]) == (False, True, 1)
    rig.audit.answers["Verify"] = rig.audit.answers["Verify"][:1]
    rig.audit.breaks = AWAY
    with pytest.raises(httpx.RemoteProtocolError):
        await rig.get("/verify", progress="true")


async def test_keys_are_everybodys_to_read_and_the_platform_teams_to_rotate(rig: AuditRig) -> None:
    rig.audit.answers |= {"ListKeys": pb.ListKeysResponse(keys=[KEY]), "RotateKey": pb.RotateKeyResponse(key=KEY)}
    answers = await asyncio.gather(*(rig.gateway.client.get(KEYS) for _ in range(20)))
    assert {answer.text for answer in answers} == {json.dumps({"keys": [KEY_SHOWN]}, separators=(",", ":"))}
    assert answers[0].headers["cache-control"] == "public, max-age=10"
    # However many ask, audit is asked once.
    assert rig.audit.asked == [pb.ListKeysRequest()]
    rig.gateway.problem(await rig.gateway.client.post(ROTATE, headers=rig.headers), 401)
    made = await rig.gateway.client.post(ROTATE, headers=rig.gateway.admin)
    assert (made.status_code, made.json()) == (201, KEY_SHOWN)
    # The new one is told at once.
    rig.audit.answers["ListKeys"] = pb.ListKeysResponse(keys=[KEY, KEY])
    assert (await rig.gateway.client.get(KEYS)).json() == {"keys": [KEY_SHOWN, KEY_SHOWN]}


async def test_keys_are_told_on_while_audit_is_away(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditkeys, "KEPT_S", 0.0)
    monkeypatch.setattr(auditkeys, "REFUSED_S", 0.0)
    audit = FakeAudit()
    audit.answers["ListKeys"] = pb.ListKeysResponse(keys=[KEY])
    async with audit_server(audit) as target, gateway_factory(fresh_nats.uri, gateway_audit_target=target) as gateway:
        audit.refusal = AWAY
        gateway.problem(await gateway.client.get(KEYS), 503)
        audit.refusal = None
        known = (await gateway.client.get(KEYS)).json()
        audit.refusal = AWAY
        assert (await gateway.client.get(KEYS)).json() == known == {"keys": [KEY_SHOWN]}


async def test_the_problem_names_audit_while_it_is_away(
    gateway_factory: GatewayFactory, fresh_nats: NatsServer
) -> None:
    async with gateway_factory(fresh_nats.uri, gateway_audit_target="127.0.0.1:9") as gateway:
        headers = {"X-Api-Key": (await gateway.tenant()).api_key}
        for path in ("/v1/audits", f"/v1/audits{CONTENT}", "/v1/audits/verify", KEYS):
            problem = gateway.problem(await gateway.client.get(path, headers=headers), 503)
            assert problem["detail"] == "Audit is away."
