"""The servicer on a real port, over ports that hold what a test gave them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from backhaul_audit.access import SERVICE, WITHOUT_TENANT
from backhaul_audit.decrypting import Decrypting
from backhaul_audit.lateness import Lateness
from backhaul_audit.model import Content, PileKey, Plan, SealedFile, Shape
from backhaul_audit.ports import (
    Erased,
    FilesQuery,
    Held,
    Holding,
    Locked,
    ObjectInfo,
    PublicKey,
    Verified,
    VerifyQuery,
    Waiting,
)
from backhaul_audit.reading import Reading
from backhaul_audit.recounting.ports import Recounted
from backhaul_audit.servicer import AuditServicer
from backhaul_audit.standing import Standing
from backhaul_common import rpc
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.lifecycle import Readiness
from backhaul_common.settings import CommonSettings
from backhaul_common.tenants import Channel, Tenant
from backhaul_common.tracing import Tracing
from backhaul_digests.model import Chain, ChainKey, Digest
from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from backhaul_testing import make

NOW_US = 1_800_000_000_000_000
ACME = make.tenant("acme")
GLOBEX = make.tenant("globex")
EVENTS = ChainKey(ACME.registration, Chain.EVENTS)


def sealed(number: int = 1, **values: Any) -> SealedFile:
    """A file of acme."""
    plan = Plan(
        id=f"{number:032x}",
        pile=PileKey(ACME.registration, "sendgrid", Chain.EVENTS),
        tenant_id="acme",
        destination="",
        bucket="backhaul",
        key=f"tenants/acme.1/events/AUDIT_{number}.json",
        shape=Shape("events"),
        first=10,
        last=20,
    )
    content = Content(3, 30, "a" * 64, 30, "a" * 64, 1_700_000_000_000_000, 1_700_000_001_000_000)
    return replace(SealedFile(plan, content, number, 1_700_000_002_000_000), **values)


def signed(number: int = 1, of: ChainKey = EVENTS) -> Digest:
    """A digest of acme."""
    return Digest(
        of=of,
        tenant_id="acme",
        number=number,
        from_us=number * 3_600_000_000,
        to_us=(number + 1) * 3_600_000_000,
        bucket="backhaul",
        key=f"digests/{number}",
        line=b'{"digestVersion":1}',
        hash=f"{number:064x}",
        key_id="1" * 16,
        signature="c2lnbmVk",
        files=1,
        deletions=0,
        uploaded=True,
    )


class HeldObjects:
    """A bucket in memory. ``bytes_read`` counts what was asked for."""

    bucket = "backhaul"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.error: BackhaulError | None = None
        self.pieces_read = 0
        self.closed = 0

    async def create(self, key: str, data: bytes | Sequence[bytes], metadata: Mapping[str, str]) -> bool:
        raise NotImplementedError

    async def stat(self, key: str) -> ObjectInfo | None:
        raise NotImplementedError

    async def read(self, key: str, *, chunk: int = 1 << 20) -> AsyncIterator[bytes]:
        if key not in self.objects:
            raise BackhaulError(Code.NOT_FOUND, "There is no such object.")
        data = self.objects[key]
        try:
            for start in range(0, len(data), chunk):
                self.pieces_read += 1
                yield data[start : start + chunk]
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1

    async def delete(self, key: str) -> datetime | None:
        raise NotImplementedError

    def keys(self, prefix: str, after: str = "") -> AsyncIterator[str]:
        raise NotImplementedError

    async def link(self, key: str, valid_s: int) -> str:
        return f"https://s3.example.com/backhaul/{key}?X-Amz-Expires={valid_s}"


class World:
    """Every port at once, and a tenant directory."""

    def __init__(self) -> None:
        self.tenants = {"acme": ACME, "globex": GLOBEX}
        self.files: list[SealedFile] = [sealed()]
        self.held: list[Held] = []
        self.unknown = 0
        self.chained: dict[ChainKey, list[Digest]] = {EVENTS: [signed(1), signed(2)]}
        self.objects = HeldObjects()
        self.queries: list[Any] = []
        self.verified: list[Verified] = []
        self.error: BackhaulError | None = None
        self.waits: list[Waiting] = []
        self.read_us = NOW_US - 7
        self.keeps_s = 100.0
        self.unusable: dict[str, str] = {}
        self.people: dict[tuple[str, str], bytes] = {}
        """Keys by registration and id."""
        self.looked_up: list[set[str]] = []
        self.erased: list[tuple[str, str]] = []
        self.recounts = HeldRecounts()
        self.public = [PublicKey("1" * 16, b"\1" * 32, NOW_US)]

    async def require(self, tenant_id: str) -> Tenant:
        if tenant_id not in self.tenants:
            raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.", field="tenant_id", fix="Check the id.")
        return self.tenants[tenant_id]

    # Destinations
    def of(self, tenant: Tenant, channel: Channel) -> HeldObjects:
        return self.objects

    def named(self, registration: str, destination: str) -> HeldObjects:
        return self.objects

    def lying(self, registration: str, destination: str, bucket: str) -> HeldObjects:
        return self.objects

    # States, Locks, Probed, Keys, Verification
    async def waiting(self, registration: str) -> Sequence[Waiting]:
        return self.waits

    async def read_to_us(self) -> int:
        return self.read_us

    async def locked(self, registration: str) -> Mapping[str, Locked]:
        return {"sendgrid": Locked(3, NOW_US + 9)}

    def problem(self, registration: str, destination: str) -> str:
        return self.unusable.get(destination, "")

    def weaknesses(self, registration: str, destination: str) -> Sequence[str]:
        return [f"{destination or 'the bucket'} locks nothing."]

    async def all(self) -> Sequence[PublicKey]:
        return self.public

    async def rotate(self) -> PublicKey:
        self.public.insert(0, PublicKey("2" * 16, b"\2" * 32, NOW_US))
        return self.public[0]

    # People
    async def by_id(self, registration: str, key_ids: Collection[str]) -> Mapping[str, bytes]:
        self.looked_up.append(set(key_ids))
        found = {key_id: self.people.get((registration, key_id)) for key_id in key_ids}
        return {key_id: key for key_id, key in found.items() if key is not None}

    async def erase(self, registration: str, address: str) -> Erased:
        if not address.strip():
            raise BackhaulError(Code.INVALID_ARGUMENT, "The address is missing.", field="address", fix="Send one.")
        self.erased.append((registration, address))
        return Erased(destroyed=len(self.erased) == 1, before_us=NOW_US)

    async def run(self, tenant: Tenant, query: VerifyQuery) -> AsyncGenerator[Verified, None]:
        self.queries.append((tenant.registration, query))
        for verified in self.verified:
            yield verified
        if self.error is not None:
            raise self.error


class HeldFiles:
    """Files of acme."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def page(self, registration: str, query: FilesQuery) -> tuple[Sequence[SealedFile], str]:
        self._world.queries.append((registration, query))
        return [file for file in self._world.files if file.plan.pile.registration == registration], "next"

    async def get(self, registration: str, file_id: str) -> SealedFile | None:
        return next(
            (
                file
                for file in self._world.files
                if file.plan.id == file_id and file.plan.pile.registration == registration
            ),
            None,
        )

    async def holding(self, registration: str, event_id: str) -> Holding:
        held = [held for held in self._world.held if held.file.plan.pile.registration == registration]
        return Holding(held, self._world.unknown)

    async def plain_channels(self, registration: str) -> Sequence[str]:
        return [
            file.plan.pile.channel
            for file in self._world.files
            if file.plan.pile.registration == registration and not file.plan.shape.encrypted
        ]

    async def since(self, of: ChainKey, number: int, most: int) -> Sequence[SealedFile]:
        raise NotImplementedError


class HeldDigests:
    """Digests by chain."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def page(self, of: ChainKey, size: int, token: str) -> tuple[Sequence[Digest], str]:
        return self._world.chained.get(of, [])[::-1], "next"

    async def get(self, of: ChainKey, number: int) -> Digest | None:
        return next((one for one in self._world.chained.get(of, ()) if one.number == number), None)

    async def head(self, of: ChainKey) -> Digest | None:
        return next(iter(self._world.chained.get(of, [])[::-1]), None)

    async def chains(self, registration: str) -> Sequence[ChainKey]:
        return [of for of in self._world.chained if of.registration == registration]


class HeldRecounts:
    """Answers of a recount, the last of which waits for ``goes_on``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.told: list[Recounted] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def run(self, tenant: Tenant, communication_id: str) -> AsyncGenerator[Recounted, None]:
        self.asked.append((tenant.registration, communication_id))
        for recounted in self.told:
            if recounted.done:
                await self.goes_on.wait()
            yield recounted


def servicer_of(world: World) -> AuditServicer:
    files = HeldFiles(world)
    return AuditServicer(
        world,
        files,
        HeldDigests(world),
        Reading(files, world, Decrypting(world)),
        people=world,
        keys=world,
        verification=world,
        recounts=world.recounts,
        standing=Standing(
            world,
            world,
            world,
            lambda _: {"sendgrid": "", "twilio": "twilio"},
            Lateness.of(world.keeps_s),
            lambda: NOW_US,
        ),
        stored=lambda digest: digest.line + b"\n{}\n",
        now_us=lambda: NOW_US,
    )


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Any]:
    """A stub of the servicer over a real connection."""
    settings = CommonSettings(_env_file=None)
    async with AsyncExitStack() as stack:
        server = await rpc.serve(
            stack,
            settings,
            Tracing("audit", None),
            Readiness(),
            listen="127.0.0.1:0",
            services=[SERVICE],
            register=partial(add_AuditServiceServicer_to_server, servicer_of(world)),
            without_tenant=WITHOUT_TENANT,
        )
        channel = rpc.connect(f"127.0.0.1:{server.port}", settings)
        stack.push_async_callback(channel.close)
        yield AuditServiceStub(channel)
