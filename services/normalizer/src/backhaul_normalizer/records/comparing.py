"""Records of a provider's API, held against what is stored: read as the callbacks that they would become, and kept
nowhere.

What is stored is read at one moment, as the majority has it: whatever was acknowledged before is seen. What is being
committed meanwhile may be missed; then a record is backfilled that is known, and counts once all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from backhaul_channels import Ignored
from backhaul_common import mongo
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key, queue_path_key
from backhaul_common.turns import Turn
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_BACKFILL, VERIFICATION_VERIFIED, Callback
from pymongo.errors import ExecutionTimeout

from backhaul_normalizer.merge import all_together
from backhaul_normalizer.model import Fact, Rejection
from backhaul_normalizer.normalize import Normalizer
from backhaul_normalizer.ports import KnownTenants
from backhaul_normalizer.preview import tenant_with
from backhaul_normalizer.records.verdicts import Compared, Record, compared
from backhaul_normalizer.scans import Scans

MAX_RECORDS: Final = 1000
MAX_RECORDS_BYTES: Final = 4 << 20
"""Of one call."""

MAX_COMPARE_S: Final = 8.0

_AT_ONCE = 2
"""Calls that are worked on at once, one of each tenant."""

_TURN_S, _REST = 0.005, 0.5
"""How long reading may keep the event loop to itself, and for how much of that time it then leaves it to others."""


class Comparisons:
    """Compares, by turns of the tenants."""

    def __init__(self, database: mongo.Database, directory: KnownTenants, normalizer: Normalizer) -> None:
        self._database = database
        self._directory = directory
        self._normalizer = normalizer
        self._turns = Scans(_AT_ONCE)

    async def of(self, tenant_id: str, channel: str, records: Sequence[bytes], read_at_us: int) -> list[Compared]:
        """What each of ``records``, read at that time, would change of the channel's messages.

        NOT_FOUND where there is no such channel; INVALID_ARGUMENT; DEADLINE_EXCEEDED; UNAVAILABLE.
        """
        _check(records, read_at_us)
        key = channel_key(channel)
        tenant = await tenant_with(self._directory, tenant_id, key)
        template = Callback(
            tenant_id=tenant.id,
            registration=tenant.registration,
            channel=key,
            provider=tenant.channels[key].provider,
            url="backfill:",
            received_at_us=read_at_us,
            source=SOURCE_BACKFILL,
            verification=VERIFICATION_VERIFIED,
        )
        try:
            async with self._turns.turn(tenant.registration, MAX_COMPARE_S) as left_s:
                ends = time.monotonic() + left_s
                async with asyncio.timeout(left_s):
                    read = await self._read(template, records, queue_path_key(tenant.queue_path))
                    work = partial(compared, read, ends)
                    async with mongo.translated():
                        return await mongo.read_at_one_moment(self._database, work, ends - time.monotonic())
        except (TimeoutError, ExecutionTimeout) as exc:
            raise _too_long() from exc

    async def _read(self, template: Callback, records: Sequence[bytes], path: str) -> list[Record]:
        turn = Turn(_TURN_S, _REST)
        made: list[Record] = []
        for body in records:
            template.body = body
            facts: dict[str, list[Fact]] = {}
            rejections: list[Rejection] = []
            ignored = ""
            for one in self._normalizer.read(template, 0, path):
                await turn.over()
                if isinstance(one, Fact):
                    facts.setdefault(one.id, []).append(one)
                elif isinstance(one, Ignored):
                    ignored = ignored or one.reason
                else:
                    rejections.append(one)
            await turn.over()
            made.append(Record([all_together(some) for some in facts.values()], rejections, ignored))
        return made


def _check(records: Sequence[bytes], read_at_us: int) -> None:
    size = sum(map(len, records))
    if len(records) > MAX_RECORDS or size > MAX_RECORDS_BYTES:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"There are {len(records)} records of {size} bytes; at most {MAX_RECORDS} of {MAX_RECORDS_BYTES} bytes are "
            "compared at once.",
            field="records",
            fix="Send them in several calls.",
        )
    if read_at_us <= 0:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "It is not said when the records were read.",
            field="read_at_us",
            fix="Set it to the time at which the provider answered, in microseconds since 1970.",
        )


def _too_long() -> BackhaulError:
    return BackhaulError(
        Code.DEADLINE_EXCEEDED,
        f"The records could not be compared within {MAX_COMPARE_S:g} s.",
        field="records",
        fix="Send fewer at once.",
    )
