"""Import, Export and Watch over gRPC, on real servers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lines.pieces import MAX_PIECE_BYTES
from backhaul_common.names import TENANT_CHANGED_SUBJECT, TENANTS_COLLECTION
from backhaul_common.rpc import connect
from backhaul_local.ports import Hold
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceStub
from backhaul_suppression import watching
from backhaul_suppression.files.calls import MAX_IMPORTS_OF_TENANT
from backhaul_suppression.files.importing import CHUNK_LINES
from backhaul_testing import make
from backhaul_testing.proxy import SilentProxy
from backhaul_testing.waiting import until
from pydantic import SecretStr
from service_rig import ANNA, Rig, RigFactory, reply

ACME, GLOBEX = make.tenant("acme"), make.tenant("globex")
HEAD = b"address,kind\n"


def numbers(count: int) -> bytes:
    return b"".join(b"+1415555%04d,stop\n" % number for number in range(count))


def requests(pieces: Iterable[bytes], of: str = "acme", **first: Any) -> Iterable[pb.ImportRequest]:
    yield pb.ImportRequest(tenant_id=of, format=pb.FILE_FORMAT_CSV, **first)
    for piece in pieces:
        yield pb.ImportRequest(data=piece)
    yield pb.ImportRequest(last=True)


async def imported(stub: Any, pieces: Iterable[bytes], of: str = "acme", **first: Any) -> list[pb.ImportResponse]:
    return [told async for told in stub.Import(iter(requests(pieces, of, **first)))]


def counts(told: pb.ImportResponse) -> tuple[int, int, int, int, bool]:
    return told.lines, told.changed, told.unchanged, told.refused, told.done


async def exported(stub: Any, of: str = "acme", **query: Any) -> bytes:
    request = pb.ExportRequest(tenant_id=of, format=pb.FILE_FORMAT_CSV, **query)
    return b"".join([piece.data async for piece in stub.Export(request)])


def watch(stub: Any, of: str = "acme", **fields: Any) -> AsyncGenerator[pb.WatchResponse, None]:
    answers: AsyncGenerator[pb.WatchResponse, None] = stub.Watch(pb.WatchRequest(tenant_id=of, **fields))
    return answers


async def drained(answers: AsyncIterator[Any]) -> None:
    async with asyncio.timeout(60):
        async for _ in answers:
            pass


async def refused(answers: AsyncIterator[Any]) -> BackhaulError:
    with pytest.raises(BackhaulError) as raised:
        await drained(answers)
    return raised.value


async def test_what_was_imported_is_suppressed_on_every_copy_and_comes_out_again(service_factory: RigFactory) -> None:
    async with service_factory(copies=2) as service:
        one, other = service.copies
        told = await imported(one.stub, [HEAD + numbers(2_500), b"nobody,stop\n"])
        assert [counts(answer) for answer in told] == [
            (0, 0, 0, 0, False),
            (2_000, 2_000, 0, 0, False),
            (2_501, 2_500, 0, 1, True),
        ]
        assert b"2502,address," in told[-1].errors
        assert await other.verdict(ACME, "+14155550000") == "stop"
        assert await other.verdict(ACME, "+14155552499") == "stop"
        assert await other.verdict(GLOBEX, "+14155550000") == "allowed"
        again = await imported(other.stub, [HEAD + numbers(2_500)])
        assert counts(again[-1]) == (2_500, 0, 2_500, 0, True)

        content = await exported(other.stub)
        assert content.count(b"\r\n") == 2_501
        assert (await exported(other.stub, "globex")).count(b"\r\n") == 1
        moved = await imported(one.stub, [content], "globex")
        assert counts(moved[-1]) == (2_500, 2_500, 0, 0, True)
        listed = await exported(one.stub, "globex")
        assert sorted(listed.splitlines()) == sorted(content.splitlines())


async def test_a_person_who_starts_again_is_not_stopped_by_the_list_of_yesterday(service: Rig) -> None:
    content = HEAD + ANNA.encode() + b",stop\n"
    assert counts((await imported(service.first.stub, [content]))[-1])[1] == 1
    await service.publish(ACME, reply(ACME, "1", "START"))
    await service.drained()
    assert await service.first.verdict(ACME) == "allowed"
    assert counts((await imported(service.first.stub, [content]))[-1]) == (1, 0, 1, 0, True)
    assert await service.first.verdict(ACME) == "allowed"


async def test_imports_are_refused_that_make_no_sense(service: Rig) -> None:
    stub: Any = service.first.stub
    cases: list[tuple[dict[str, Any], list[bytes], Code, str]] = [
        ({"format": 0}, [], Code.INVALID_ARGUMENT, "format"),
        ({"format": 9}, [], Code.INVALID_ARGUMENT, "format"),
        ({"effective_at_us": 1 << 62}, [], Code.INVALID_ARGUMENT, "effective_at_us"),
        ({"effective_at_us": -1}, [], Code.INVALID_ARGUMENT, "effective_at_us"),
        ({"kind": pb.SUPPRESSION_KIND_LEGAL}, [], Code.FORBIDDEN, "kind"),
        ({}, [b"x" * (MAX_PIECE_BYTES + 1)], Code.INVALID_ARGUMENT, "data"),
        ({}, [], Code.INVALID_ARGUMENT, "data"),
        ({}, [b"who,why\n"], Code.INVALID_ARGUMENT, "data"),
        ({"tenant_id": "nobody"}, [], Code.NOT_FOUND, "tenant_id"),
    ]
    for fields, pieces, code, field in cases:
        first = pb.ImportRequest(**{"tenant_id": "acme", "format": pb.FILE_FORMAT_CSV, **fields})
        error = await refused(stub.Import(iter([first, *(pb.ImportRequest(data=piece) for piece in pieces)])))
        assert (error.code, error.field) == (code, field), fields
    assert (await refused(stub.Export(pb.ExportRequest(tenant_id="acme")))).field == "format"
    assert (
        await refused(stub.Export(pb.ExportRequest(tenant_id="acme", format=pb.FILE_FORMAT_CSV, standing=9)))  # type: ignore[arg-type]  # a newer client's
    ).field == "standing"
    assert await exported(stub) == await exported(stub, "globex")


async def test_a_file_that_was_cut_off_makes_no_number_of_half_a_number(service: Rig) -> None:
    stub = service.first.stub
    data = b"address\n+14155550101\n+141555501"
    for last in (False, True):
        first = pb.ImportRequest(tenant_id="acme", format=pb.FILE_FORMAT_CSV, data=data, last=last)
        *_, told = [one async for one in stub.Import(iter([first]))]
        # Told that it is all, it is a number like any other: some are as short.
        assert counts(told) == ((2, 1, 1, 0, True) if last else (2, 1, 0, 1, True))
        assert (b"the middle of the line" in told.errors) is not last


async def test_the_operator_imports_for_legal_reasons(service: Rig) -> None:
    told = await imported(
        service.first.stub,
        [b"address\n" + ANNA.encode()],
        kind=pb.SUPPRESSION_KIND_LEGAL,
        actor=pb.ACTOR_OPERATOR,
    )
    assert counts(told[-1]) == (1, 1, 0, 0, True)
    assert await service.first.verdict(ACME) == "legal"


async def test_a_tenant_has_so_many_imports_and_a_place_is_free_when_one_ends(service: Rig) -> None:
    stub: Any = service.first.stub
    end, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def waiting() -> AsyncIterator[pb.ImportRequest]:
        yield pb.ImportRequest(tenant_id="acme", format=pb.FILE_FORMAT_CSV, data=HEAD + numbers(CHUNK_LINES))
        await end.wait()

    async def one() -> int:
        lines = 0
        async for told in stub.Import(waiting()):
            lines = told.lines
            begun.release()
        return lines

    running = [asyncio.ensure_future(one()) for _ in range(MAX_IMPORTS_OF_TENANT)]
    async with asyncio.timeout(60):
        for _ in running:
            await begun.acquire()
    assert (await refused(stub.Import(iter(requests([HEAD]))))).code is Code.RATE_LIMITED
    assert counts((await imported(stub, [HEAD], "globex"))[-1]) == (0, 0, 0, 0, True)
    end.set()
    assert await asyncio.gather(*running) == [CHUNK_LINES] * MAX_IMPORTS_OF_TENANT
    assert counts((await imported(stub, [HEAD]))[-1]) == (0, 0, 0, 0, True)


@asynccontextmanager
async def process(service: Rig) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    """A copy in a process of its own, which can be killed."""
    hold = Hold()
    [port] = hold.choose(1)
    settings = service.settings
    environment = {
        **os.environ,
        "BACKHAUL_NATS_URL": settings.nats_url,
        "BACKHAUL_MONGO_URI": settings.mongo_uri.get_secret_value(),
        "BACKHAUL_MONGO_DATABASE": settings.mongo_database,
        "BACKHAUL_SUPPRESSION_GRPC_LISTEN": f"127.0.0.1:{port}",
        "BACKHAUL_INTERNAL_TOKEN": "0123456789abcdef" * 2,
        "BACKHAUL_LOG_LEVEL": "warning",
    }
    running = await asyncio.create_subprocess_exec(sys.executable, "-m", "backhaul_suppression", env=environment)
    channel = connect(f"127.0.0.1:{port}", settings)
    try:
        yield running, SuppressionServiceStub(channel)
    finally:
        await channel.close()
        if running.returncode is None:
            running.kill()
        await running.wait()


async def test_an_import_that_was_killed_is_sent_again_and_nothing_is_there_twice(service: Rig) -> None:
    content = [HEAD, *(numbers(9_999)[begin : begin + 20_000] for begin in range(0, 9_999 * 18, 20_000))]
    async with process(service) as (killed, stub):

        async def answers() -> bool:
            try:
                await stub.Check(pb.CheckRequest(tenant_id="acme", address=ANNA))
            except BackhaulError as exc:
                if exc.code is not Code.UNAVAILABLE:
                    raise
                return False
            return True

        await until("an answer of the process", answers, within_s=40)

        async def sent() -> None:
            async for told in stub.Import(iter(requests(content))):
                assert told.changed == told.lines
                if told.lines:
                    killed.kill()

        with pytest.raises(BackhaulError) as raised:
            await sent()
        assert raised.value.code is Code.UNAVAILABLE
    before = await last_position(service)
    assert CHUNK_LINES <= before < 9_999
    told = (await imported(service.first.stub, content))[-1]
    assert counts(told) == (9_999, 9_999 - before, before, 0, True)
    assert await last_position(service) == 9_999
    assert (await exported(service.first.stub)).count(b"\r\n") == 10_000


async def last_position(service: Rig) -> int:
    answers = watch(service.first.stub)
    told = await anext(answers)
    await answers.aclose()
    return told.position


async def added(stub: Any, number: int, of: str = "acme") -> None:
    await stub.Add(pb.AddRequest(tenant_id=of, address=f"+1415555{number:04}", kind=pb.SUPPRESSION_KIND_MANUAL))


async def test_a_watch_over_restarts_misses_and_doubles_nothing(service: Rig) -> None:
    """Somebody writes by one copy all the time; the copy that is watched comes and goes."""
    total = 60

    async def write() -> None:
        for number in range(total):
            await added(service.first.stub, number)
            await added(service.first.stub, number, "globex")

    writing = asyncio.ensure_future(write())
    told: list[pb.Change] = []
    position = 0
    restarts = 0
    async with asyncio.timeout(240):
        while len(told) < total:
            async with service.another() as watched:
                while True:
                    try:
                        async for answer in watch(watched.stub, after_position=position):
                            if answer.HasField("change"):
                                told.append(answer.change)
                            position = answer.position
                            if len(told) == total:
                                break
                            if len(told) % 7 == 0 and not watched.stop.is_set():
                                watched.stop.set()
                                restarts += 1
                        break
                    except BackhaulError as exc:
                        if exc.code is not Code.UNAVAILABLE:
                            raise
                        if watched.stop.is_set():
                            break
    await writing
    assert restarts > 2
    assert [change.position for change in told] == list(range(1, total + 1))
    assert [change.suppression.address for change in told] == [f"+1415555{number:04}" for number in range(total)]


async def test_a_watch_hears_of_what_another_copy_writes_and_of_its_own_tenant_alone(
    service_factory: RigFactory,
) -> None:
    async with service_factory(copies=2) as service:
        one, other = service.copies
        await added(one.stub, 1)
        answers = watch(other.stub)
        async with asyncio.timeout(60):
            first = await anext(answers)
            assert (first.position, first.HasField("change")) == (1, False)
            await added(one.stub, 2, "globex")
            await added(one.stub, 3)
            second = await anext(answers)
        assert (second.position, second.change.suppression.address) == (2, "+14155550003")
        assert second.change.fact.origin == pb.ORIGIN_TENANT
        await answers.aclose()


async def test_a_watch_is_refused_beyond_the_last_change_and_for_kinds_that_say_nothing(service: Rig) -> None:
    stub = service.first.stub
    error = await refused(watch(stub, after_position=1))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "after_position")
    error = await refused(watch(stub, kinds=[pb.SUPPRESSION_KIND_UNSPECIFIED]))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "kinds")


async def test_a_watch_ends_when_its_tenant_is_deleted(service: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.1)
    answers = watch(service.first.stub, "globex")
    await anext(answers)
    await service.database[TENANTS_COLLECTION].delete_one({"_id": "globex"})
    await service.nats.publish(TENANT_CHANGED_SUBJECT, b"globex")
    assert (await refused(answers)).code is Code.NOT_FOUND


async def test_a_watch_ends_as_unavailable_when_mongodb_is_away(
    service: Rig, mongo_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_S", 0.1)
    monkeypatch.setattr(mongo, "connect", partial(mongo.connect, timeout_ms=1000, silence_ms=1000))
    async with SilentProxy(mongo_server.port) as proxy:
        through = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        async with service.another(mongo_uri=SecretStr(through)) as watched:
            await service.answering(ACME)
            answers = watch(watched.stub)
            await anext(answers)
            proxy.go_silent()
            assert (await refused(answers)).code is Code.UNAVAILABLE
            proxy.speak()
