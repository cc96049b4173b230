"""End to end: from a POST to the state being readable, at half of the load that can be sustained."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import parse_qs

from backhaul_common.ids import derived_id
from backhaul_common.names import EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_testing.wire import Answer, Connection
from generators import LoadError, RawSockets, raw_request, write_for
from installation import Installation
from pymongo.read_concern import ReadConcern
from report import Report

_TENANT = "end-to-end"
_CHANNEL = "twilio"
_PROBE_EVERY_S = 0.02
_LOOK_EVERY_S = 0.005
_PATIENCE_S = 20.0


async def measure(site: Installation, report: Report, *, rounds: int, seconds: float, at_most: int) -> None:
    """``end_to_end_ms_p50`` and ``end_to_end_ms_p99``. ``at_most``: callbacks of the load that finds the maximum."""
    await site.ensure("gateway")
    await site.stop("normalizer", "plain_route", "bare_route")
    key = await site.register(_TENANT)
    await site.forget()
    await site.ensure("normalizer")
    most = await sustained(site, key, at_most)
    report.add(
        "end_to_end_callbacks_s",
        [most],
        "callbacks/s",
        note=f"{at_most} posted as fast as they are answered, until the last one's state is committed",
    )
    site.say(f"end to end, {rounds} rounds at {most / 2:.0f} callbacks/s")
    measured = [await _round(site, key, most / 2, seconds) for _ in range(rounds)]
    note = (
        f"at {most / 2:.0f} callbacks/s, a probe every {_PROBE_EVERY_S * 1000:.0f} ms; readable: GET /v1/messages/… "
        "says so, asked when the store first shows the message (a look every 5 ms for all)"
    )
    report.add("end_to_end_ms_p50", [_percentile(one, 50) for one in measured], "ms", note=note)
    report.add("end_to_end_ms_p99", [_percentile(one, 99) for one in measured], "ms", aim="≤ 250")


async def measure_memory(site: Installation, report: Report) -> None:
    """``resident_mb`` of each process, after whatever load there was."""
    await site.ensure("gateway", "normalizer", "suppression")
    resident = site.meter.resident_mb()
    ours = {name: mb for name, mb in resident.items() if not name.endswith("_route")}
    report.add("resident_mb", [sum(ours.values())], "MB", note="all of them, after the load")
    for name, mb in ours.items():
        report.add(f"resident_mb_{name}", [mb], "MB")


async def sustained(site: Installation, key: str, count: int) -> float:
    """Callbacks a second through the whole of it."""
    file = write_for(site.folder / "end-to-end.requests", site.traffic.twilio(count), key)
    before = await site.database[EVENTS_COLLECTION].estimated_document_count()
    began = time.perf_counter()
    await RawSockets().once(file, site.gateway_port)
    await site.until_committed(before + count)
    return count / (time.perf_counter() - began)


async def _round(site: Installation, key: str, rate: float, seconds: float) -> list[float]:
    """Milliseconds that each probe of one round took."""
    load = write_for(site.folder / "background.requests", site.traffic.twilio(int(rate * seconds)), key)
    before = await site.database[EVENTS_COLLECTION].estimated_document_count()
    probes = _Probes(site, key, await site.registration(_TENANT), int(seconds / _PROBE_EVERY_S))
    async with asyncio.timeout(seconds + 2 * _PATIENCE_S), asyncio.TaskGroup() as group:
        background = group.create_task(RawSockets().paced(load, site.gateway_port, seconds, rate))
        probing = group.create_task(probes.run())
    loaded, took = background.result(), probing.result()
    if loaded.answered < rate * seconds * 0.95:
        raise LoadError(f"The load did not keep its pace: {loaded.answered} of {rate * seconds:.0f} callbacks.")
    await site.until_committed(before + loaded.answered + len(took))
    return took


class _Probes:
    """Posts callbacks of messages that are new, one every so often whatever the others take, and waits for each."""

    def __init__(self, site: Installation, key: str, registration: str, count: int) -> None:
        self._site = site
        self._key = key
        self._registration = registration
        self._requests = site.traffic.twilio(count * 3)[::3]  # Each message's first status: queued.
        self._connections: asyncio.Queue[Connection] = asyncio.Queue()
        self._wanted: dict[str, asyncio.Event] = {}
        self._messages = site.database.get_collection(MESSAGES_COLLECTION, read_concern=ReadConcern("majority"))

    async def run(self) -> list[float]:
        """Milliseconds of each."""
        connections = [await Connection.open("127.0.0.1", self._site.gateway_port) for _ in range(16)]
        for connection in connections:
            self._connections.put_nowait(connection)
        looking = asyncio.create_task(self._look())
        try:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.TaskGroup() as group:
                tasks = []
                for n, request in enumerate(self._requests):
                    await asyncio.sleep(began + n * _PROBE_EVERY_S - loop.time())
                    tasks.append(group.create_task(self._probe(raw_request(request, self._key))))
            return [task.result() for task in tasks]
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            for connection in connections:
                connection.close()

    async def _probe(self, request: bytes) -> float:
        began = time.perf_counter()
        sid = parse_qs(request.rpartition(b"\r\n\r\n")[2].decode())["MessageSid"][0]
        key = derived_id(self._registration, _CHANNEL, sid)
        shown = self._wanted[key] = asyncio.Event()
        answer = await self._ask(request)
        if answer.status != 200:
            raise LoadError(f"A probe was answered with {answer.status}: {answer.body!r}")
        async with asyncio.timeout(_PATIENCE_S):
            await shown.wait()
            while True:
                answer = await self._ask(
                    f"GET /v1/messages/{_CHANNEL}/{sid} HTTP/1.1\r\nHost: {self._site.host}\r\n"
                    f"X-Api-Key: {self._key}\r\n\r\n".encode()
                )
                if answer.status == 200 and json.loads(answer.body)["state"] == "queued":
                    return (time.perf_counter() - began) * 1000
                if answer.status != 404:
                    raise LoadError(f"The message of a probe is {answer.status}: {answer.body!r}")

    async def _look(self) -> None:
        while True:
            if self._wanted:
                async for row in self._messages.find({"_id": {"$in": list(self._wanted)}}, {"_id": 1}):
                    self._wanted.pop(row["_id"]).set()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _ask(self, request: bytes) -> Answer:
        connection = await self._connections.get()
        try:
            return await connection.ask(request)
        finally:
            self._connections.put_nowait(connection)


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
