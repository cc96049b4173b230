"""A copy of suppression's memory: reads an address a line, and writes what it answers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import nats
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError
from backhaul_suppression.model import Address, Family, Sending

sys.path.insert(0, str(Path(__file__).parent))

from memory_rig import ALLOWED, REGISTRATION, SUPPRESSED, UNAVAILABLE, copy


async def main(mongo_uri: str, database: str, nats_url: str) -> None:
    client = mongo.connect(mongo_uri)
    async with copy(mongo.database(client, database), await nats.connect(nats_url)) as memory:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
        )
        while line := await reader.readline():
            address = Address(REGISTRATION, Family.PHONE, line.decode().strip())
            try:
                answer = SUPPRESSED if memory.index.blocking(address, Sending()) else ALLOWED
            except BackhaulError:
                answer = UNAVAILABLE
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()


asyncio.run(main(*sys.argv[1:]))
