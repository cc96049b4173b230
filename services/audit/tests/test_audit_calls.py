"""What the calls ask for, and what they answer: over a real connection, apart from where it is kept."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from audit_calls_rig import ACME, GLOBEX, NOW_US, World, sealed, serving, signed
from backhaul_audit.access import SERVICE, VERBS, WITHOUT_TENANT
from backhaul_audit.model import FileFormat, Shape
from backhaul_audit.ports import FilesQuery, Held, Verified, VerifyQuery, Waiting
from backhaul_audit.reading import MAX_LINK_S, MAX_READS_OF_TENANT, PIECE_BYTES
from backhaul_common.errors import BackhaulError, Code, unavailable
from backhaul_digests.model import Chain, ChainKey, Finding, Subject
from backhaul_proto.audit.v1 import audit_pb2 as pb


async def refused(call: Any) -> BackhaulError:
    """The error of a call, of one answer or of many."""
    try:
        if hasattr(call, "__anext__"):
            async for _ in call:
                pass
        else:
            await call
    except BackhaulError as exc:
        return exc
    pytest.fail("It was not refused.")


async def test_every_method_that_others_may_call_has_a_verb() -> None:
    methods = {f"{SERVICE}.{method.name}" for method in pb.DESCRIPTOR.services_by_name["AuditService"].methods}
    assert set(VERBS) | set(WITHOUT_TENANT) == methods
    assert not set(VERBS) & set(WITHOUT_TENANT)


async def test_files_are_asked_for_as_the_request_says() -> None:
    world = World()
    file = sealed(4, digest=2, deleted_at_us=9)
    shape = Shape("events", FileFormat.ARRAY, gzip=True)
    world.files = [replace(file, plan=replace(file.plan, shape=shape))]
    async with serving(world) as stub:
        request = pb.ListFilesRequest(
            tenant_id="acme",
            channel="SendGrid",
            chain=pb.CHAIN_BACKFILL,
            from_us=5,
            to_us=6,
            page_size=7,
            page_token="t",
        )
        answer = await stub.ListFiles(request)
        assert world.queries == [(ACME.registration, FilesQuery("sendgrid", Chain.BACKFILL, (5, 6), 7, "t"))]
        assert answer == pb.ListFilesResponse(
            files=[
                pb.AuditFile(
                    id="0" * 31 + "4",
                    channel="sendgrid",
                    chain=pb.CHAIN_EVENTS,
                    number=4,
                    bucket="backhaul",
                    key="tenants/acme.1/events/AUDIT_4.json",
                    format=pb.FILE_FORMAT_ARRAY,
                    gzip=True,
                    events=3,
                    bytes=30,
                    sha256="a" * 64,
                    inflated_bytes=30,
                    inflated_sha256="a" * 64,
                    first_position=10,
                    last_position=20,
                    first_at_us=1_700_000_000_000_000,
                    last_at_us=1_700_000_001_000_000,
                    sealed_at_us=1_700_000_002_000_000,
                    deleted_at_us=9,
                    digest=2,
                )
            ],
            next_page_token="next",
        )
        assert (await refused(stub.ListFiles(pb.ListFilesRequest(tenant_id="acme", from_us=-1)))).field == "from_us"
        assert (await refused(stub.ListFiles(pb.ListFilesRequest(tenant_id="acme", chain=9)))).field == "chain"  # type: ignore[arg-type]  # newer than this copy


async def test_a_file_comes_in_pieces_and_says_first_what_it_is() -> None:
    world = World()
    world.objects.objects[sealed().plan.key] = bytes(range(256)) * 4096
    async with serving(world) as stub:
        answers = [one async for one in stub.GetFile(pb.GetFileRequest(tenant_id="acme", file_id=sealed().plan.id))]
    assert len(answers) == 4
    assert all(len(one.data) == PIECE_BYTES for one in answers)
    assert b"".join(one.data for one in answers) == bytes(range(256)) * 4096
    assert [one.HasField("file") for one in answers] == [True, False, False, False]
    assert answers[0].file.number == 1


async def test_a_file_is_read_no_faster_than_it_is_taken_and_no_further() -> None:
    world = World()
    pieces = 400
    world.objects.objects[sealed().plan.key] = bytes(PIECE_BYTES) * pieces
    async with serving(world) as stub:
        async with aclosing(stub.GetFile(pb.GetFileRequest(tenant_id="acme", file_id=sealed().plan.id))) as answers:
            await anext(answers)
            # What the connection itself holds may have been read: gRPC's windows, some MB.
            async with asyncio.timeout(60):
                before = -1
                while world.objects.pieces_read != before:
                    before = world.objects.pieces_read
                    await asyncio.sleep(0.1)  # that nothing more is read has no event
            assert world.objects.pieces_read < pieces // 2
        async with asyncio.timeout(60):
            while not world.objects.closed:  # the server hears of it over the connection
                await asyncio.sleep(0.01)


async def test_so_many_of_a_tenant_read_at_once() -> None:
    world = World()
    world.objects.objects[sealed().plan.key] = bytes(PIECE_BYTES) * 400
    request = pb.GetFileRequest(tenant_id="acme", file_id=sealed().plan.id)
    async with serving(world) as stub:
        reading = [stub.GetFile(request) for _ in range(MAX_READS_OF_TENANT)]
        for answers in reading:
            await anext(answers)
        error = await refused(stub.GetFile(request))
        assert (error.code, error.retry_after_s) == (Code.RATE_LIMITED, 10)
        await reading[0].aclose()
        async with asyncio.timeout(60):
            while not world.objects.closed:  # the server hears of it over the connection
                await asyncio.sleep(0.01)
        again = stub.GetFile(request)
        assert (await anext(again)).HasField("file")
        for answers in [again, *reading]:
            await answers.aclose()


async def test_what_is_gone_says_why() -> None:
    world = World()
    world.files = [sealed(1), sealed(2, deleted_at_us=1_700_000_000_000_000)]

    def get(number: int, tenant: str = "acme") -> pb.GetFileRequest:
        return pb.GetFileRequest(tenant_id=tenant, file_id=sealed(number).plan.id)

    async with serving(world) as stub:
        # What it was is known all the same.
        about = pb.DescribeFileRequest(tenant_id="acme", file_id=sealed(2).plan.id)
        assert (await stub.DescribeFile(about)).file.deleted_at_us == 1_700_000_000_000_000
        about.tenant_id = "globex"
        assert (await refused(stub.DescribeFile(about))).code is Code.NOT_FOUND
        error = await refused(stub.GetFile(get(1)))
        assert (error.code, "is not there any more" in error.message) == (Code.FAILED_PRECONDITION, True)
        error = await refused(stub.GetFile(get(2)))
        assert (error.code, "deleted at 2023-11-14T22:13:20" in error.message) == (Code.FAILED_PRECONDITION, True)
        assert (await refused(stub.LinkFile(pb.LinkFileRequest(tenant_id="acme", file_id=sealed(2).plan.id)))).code is (
            Code.FAILED_PRECONDITION
        )
        error = await refused(stub.GetFile(get(3)))
        assert (error.code, error.field) == (Code.NOT_FOUND, "file_id")
        # Another tenant's file is no file.
        assert (await refused(stub.GetFile(get(1, GLOBEX.id)))).code is Code.NOT_FOUND
        assert (await refused(stub.GetFile(get(1, "nobody")))).field == "tenant_id"


async def test_storage_that_goes_away_in_the_middle_ends_the_answer_with_an_error() -> None:
    world = World()
    world.objects.objects[sealed().plan.key] = b"half"
    world.objects.error = unavailable("The bucket")
    async with serving(world) as stub:
        answers = stub.GetFile(pb.GetFileRequest(tenant_id="acme", file_id=sealed().plan.id))
        assert (await anext(answers)).data == b"half"
        assert (await refused(answers)).code is Code.UNAVAILABLE


async def test_a_link_says_until_when_it_is_good() -> None:
    async with serving(World()) as stub:
        request = pb.LinkFileRequest(tenant_id="acme", file_id=sealed().plan.id)
        answer = await stub.LinkFile(request)
        assert answer.url == "https://s3.example.com/backhaul/tenants/acme.1/events/AUDIT_1.json?X-Amz-Expires=900"
        assert answer.expires_at_us == NOW_US + 900_000_000
        request.valid_s = MAX_LINK_S
        assert (await stub.LinkFile(request)).url.endswith("=604800")
        for wrong in (-1, MAX_LINK_S + 1):
            request.valid_s = wrong
            assert (await refused(stub.LinkFile(request))).field == "valid_s"


async def test_digests_of_a_chain() -> None:
    world = World()
    backfill = ChainKey(ACME.registration, Chain.BACKFILL)
    world.chained[backfill] = [signed(1, backfill)]
    async with serving(world) as stub:
        page = await stub.ListDigests(pb.ListDigestsRequest(tenant_id="acme", chain=pb.CHAIN_EVENTS))
        assert ([one.number for one in page.digests], page.next_page_token) == ([2, 1], "next")
        assert (await refused(stub.ListDigests(pb.ListDigestsRequest(tenant_id="acme")))).field == "chain"
        one = await stub.GetDigest(pb.GetDigestRequest(tenant_id="acme", chain=pb.CHAIN_EVENTS, number=2))
        assert one.data == b'{"digestVersion":1}\n{}\n'
        assert one.digest == pb.Digest(
            chain=pb.CHAIN_EVENTS,
            number=2,
            from_us=7_200_000_000,
            to_us=10_800_000_000,
            bucket="backhaul",
            key="digests/2",
            hash=f"{2:064x}",
            key_id="1" * 16,
            signature="c2lnbmVk",
            files=1,
        )
        for number in (0, -1, 3):
            request = pb.GetDigestRequest(tenant_id="acme", chain=pb.CHAIN_EVENTS, number=number)
            assert (await refused(stub.GetDigest(request))).code is Code.NOT_FOUND
        heads = (await stub.GetHead(pb.GetHeadRequest(tenant_id="acme"))).heads
        assert [(one.chain, one.number) for one in heads] == [(pb.CHAIN_BACKFILL, 1), (pb.CHAIN_EVENTS, 2)]
        assert not (await stub.GetHead(pb.GetHeadRequest(tenant_id="globex"))).heads


async def test_a_proof_names_the_file_the_place_and_the_digest() -> None:
    world = World()
    world.held = [Held(sealed(1, digest=1), 0, 17), Held(sealed(2), 1, 3)]
    async with serving(world) as stub:
        answer = await stub.Prove(pb.ProveRequest(tenant_id="acme", event_id="e" * 32))
        assert [(one.revision, one.file.number, one.place) for one in answer.proofs] == [(0, 1, 17), (1, 2, 3)]
        assert answer.proofs[0].digest.number == 1
        # Nothing lists it yet.
        assert not answer.proofs[1].HasField("digest")
        assert [one.number for one in answer.heads] == [2]
        error = await refused(stub.Prove(pb.ProveRequest(tenant_id="globex", event_id="e" * 32)))
        assert (error.code, error.field) == (Code.NOT_FOUND, "event_id")


async def test_a_verification_tells_how_far_it_is() -> None:
    world = World()
    bad = Finding(Chain.EVENTS, Subject.FILE, "backhaul/a", "hash", "The hash is another.")
    world.verified = [
        Verified([Finding(Chain.EVENTS, Subject.DIGEST, "backhaul/d")], 1, 1, 0, 0),
        Verified([bad], 1, 1, 1, 0, (5, 6), done=True),
    ]
    async with serving(world) as stub:
        request = pb.VerifyRequest(tenant_id="acme", from_us=5, to_us=6, chain=pb.CHAIN_EVENTS, heads=["0" * 64])
        answers = [one async for one in stub.Verify(request)]
        assert world.queries == [(ACME.registration, VerifyQuery((5, 6), Chain.EVENTS, ("0" * 64,)))]
        assert (answers[0].digests, answers[0].done, answers[0].findings[0].valid) == (1, False, True)
        assert answers[1] == pb.VerifyResponse(
            findings=[
                pb.Finding(
                    subject=pb.SUBJECT_FILE,
                    name="backhaul/a",
                    problem="hash",
                    detail="The hash is another.",
                    chain=pb.CHAIN_EVENTS,
                )
            ],
            digests=1,
            valid_digests=1,
            files=1,
            done=True,
            found_from_us=5,
            found_to_us=6,
        )
        # Its place is free again.
        assert len([one async for one in stub.Verify(request)]) == 2
        for heads, field in ((["0" * 63], "heads[0]"), (["0" * 64] * 101, "heads")):
            assert (await refused(stub.Verify(pb.VerifyRequest(tenant_id="acme", heads=heads)))).field == field


async def test_a_tenant_verifies_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.verified = [Verified([], number, number, 0, 0) for number in range(2)]
    async with serving(world) as stub:
        blocked = asyncio.Event()

        async def run(*_: Any) -> Any:
            yield Verified([], 1, 1, 0, 0)
            await blocked.wait()
            yield Verified([], 1, 1, 0, 0, done=True)

        monkeypatch.setattr(world, "run", run)
        first = stub.Verify(pb.VerifyRequest(tenant_id="acme"))
        await anext(first)
        assert (await refused(stub.Verify(pb.VerifyRequest(tenant_id="acme")))).code is Code.RATE_LIMITED
        other = stub.Verify(pb.VerifyRequest(tenant_id="globex"))
        await anext(other)
        blocked.set()
        assert [one.done async for one in first] == [True]
        await other.aclose()


async def test_an_event_that_is_not_found_may_lie_where_nobody_knows() -> None:
    world = World()
    async with serving(world) as stub:
        nowhere = await refused(stub.Prove(pb.ProveRequest(tenant_id="acme", event_id="0" * 32)))
        world.unknown = 2
        unknown = await refused(stub.Prove(pb.ProveRequest(tenant_id="acme", event_id="0" * 32)))
    assert (nowhere.code, unknown.code) == (Code.NOT_FOUND, Code.NOT_FOUND)
    assert "2 files" in unknown.fix
    assert "of which it is not known" not in nowhere.fix


async def state_of(world: World) -> dict[str, pb.ChannelState]:
    async with serving(world) as stub:
        answer = await stub.GetState(pb.GetStateRequest(tenant_id="acme"))
    assert answer.read_to_us == world.read_us
    return {one.channel: one for one in answer.channels}


async def test_how_it_stands_with_each_channel_that_asks() -> None:
    world = World()
    # A channel that asks no more has nothing to say.
    world.waits = [Waiting("twilio", "The bucket refuses the credentials.", 5), Waiting("rcs", "", 1)]
    assert await state_of(world) == {
        "sendgrid": pb.ChannelState(
            channel="sendgrid", weaknesses=["the bucket locks nothing."], locked_files=3, locked_until_us=NOW_US + 9
        ),
        "twilio": pb.ChannelState(
            channel="twilio",
            problem="The bucket refuses the credentials.",
            waiting_since_us=5,
            weaknesses=["twilio locks nothing."],
        ),
    }


async def test_a_bucket_that_was_found_unusable_is_said_before_anything_waits_for_it() -> None:
    world = World()
    world.unusable = {"twilio": "The bucket does not exist."}
    assert {name: one.problem for name, one in (await state_of(world)).items()} == {
        "sendgrid": "",
        "twilio": "The bucket does not exist.",
    }
    # Who files has tried it last.
    world.waits = [Waiting("twilio", "It is full.", 5)]
    assert (await state_of(world))["twilio"].problem == "It is full."


async def test_what_waits_for_half_of_what_events_keeps_is_said_with_its_end() -> None:
    world = World()
    second = 1_000_000
    # By when EVENTS took it: a replay brings what arrived long before.
    world.waits = [
        Waiting("twilio", "It is full.", 5, NOW_US - 51 * second),
        Waiting("sendgrid", "", 5, NOW_US - second),
    ]
    assert {name: one.problem for name, one in (await state_of(world)).items()} == {
        "sendgrid": "",
        "twilio": "It is full. Events wait since 2027-01-15T07:59:09Z. From 2027-01-15T08:00:49Z on they are lost, "
        "one by one.",
    }
    world.waits[0] = Waiting("twilio", "", 5, NOW_US - 49 * second)
    assert {one.problem for one in (await state_of(world)).values()} == {""}
    # Nobody reads.
    world.read_us = NOW_US - 51 * second
    unread = (
        "Events that came after 2027-01-15T07:59:09Z have not been read. From 2027-01-15T08:00:49Z on they are lost, "
        "one by one."
    )
    assert {one.problem for one in (await state_of(world)).values()} == {unread}


async def test_keys_are_those_of_the_installation() -> None:
    async with serving(World()) as stub:
        made = (await stub.RotateKey(pb.RotateKeyRequest())).key
        assert made == pb.PublicKey(
            key_id="2" * 16,
            algorithm="Ed25519",
            public_key="AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
            created_at_us=NOW_US,
        )
        assert [key.key_id for key in (await stub.ListKeys(pb.ListKeysRequest())).keys] == ["2" * 16, "1" * 16]


async def test_a_person_is_erased_by_an_address() -> None:
    world = World()
    encrypted = sealed(2)
    shape = replace(encrypted.plan.shape, encrypted=True)
    pile = replace(encrypted.plan, pile=encrypted.plan.pile._replace(channel="twilio"), shape=shape)
    world.files.append(replace(encrypted, plan=pile))
    async with serving(world) as stub:
        request = pb.ErasePersonRequest(tenant_id="acme", address="+15005550010")
        answer = await stub.ErasePerson(request)
        assert answer == pb.ErasePersonResponse(destroyed=True, erased_before_us=NOW_US, plain_channels=["sendgrid"])
        assert not (await stub.ErasePerson(request)).destroyed
        assert world.erased == [(ACME.registration, "+15005550010")] * 2
        request.tenant_id = "globex"
        assert not (await stub.ErasePerson(request)).plain_channels
        assert world.erased[2:] == [(GLOBEX.registration, "+15005550010")]
        for wrong in ("", " ", "1" * 513):
            request.address = wrong
            error = await refused(stub.ErasePerson(request))
            assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "address")
        assert len(world.erased) == 3
