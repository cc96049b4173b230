"""Who makes the load: wrk where it is installed, otherwise this folder's own program. Both send prepared bytes."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backhaul_testing.posts import Post
from backhaul_testing.wire import encoded

_HERE = Path(__file__).parent
CONNECTIONS = 64
_PATIENCE_S = 60.0


class LoadError(Exception):
    """Something other than 200 was answered, or the generator failed: the figures would mean nothing."""


@dataclass(frozen=True)
class Loaded:
    """What a load came to. Every one of ``answered`` was a 200. ``began`` is by the clock that all processes have."""

    answered: int
    seconds: float
    cpu_s: float
    p50_ms: float
    p99_ms: float
    began: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


class Generator(Protocol):
    """Repeats the requests of a file over 64 connections, as fast as answers come."""

    name: str

    async def run(self, file: Path, port: int, seconds: float) -> Loaded:
        """Load ``port`` for ``seconds``. Raises LoadError when anything but 200 is answered."""
        ...


class Wrk:
    """wrk, with a script that reads the requests before it starts."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.name = f"wrk, 1 thread, {CONNECTIONS} connections"

    async def run(self, file: Path, port: int, seconds: float) -> Loaded:
        """See Generator."""
        before = _children_cpu_s()
        # wrk counts whole seconds only.
        output = await output_of(
            self._program,
            *("--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{max(1, round(seconds))}s"),
            *("--script", str(_HERE / "wrk.lua"), f"http://127.0.0.1:{port}/", "--", str(file)),
        )
        _, found, result = output.partition("\nRESULT ")
        if not found:
            raise LoadError(f"wrk printed no result:\n{output}")
        counts = json.loads(result)
        if counts["refused"] or counts["broken"] or not counts["answered"]:
            raise LoadError(f"Not everything was answered with 200: {counts}")
        cpu_s = _children_cpu_s() - before
        return Loaded(counts["answered"], counts["seconds"], cpu_s, counts["p50_ms"], counts["p99_ms"])


class RawSockets:
    """This folder's rawload.py, a process of its own."""

    name = f"raw sockets (asyncio protocol on uvloop, a process of its own), {CONNECTIONS} connections"

    async def run(self, file: Path, port: int, seconds: float) -> Loaded:
        """See Generator."""
        return await self._run(file, port, "--seconds", str(seconds))

    async def once(self, file: Path, port: int, *, connections: int = CONNECTIONS) -> Loaded:
        """Send every request exactly once, as fast as answers come."""
        return await self._run(file, port, "--once", connections=connections)

    async def paced(self, file: Path, port: int, seconds: float, rate: float, *, refused: Sequence[str] = ()) -> Loaded:
        """Send each request at most once, ``rate`` a second, whatever the answers take. Answers of the statuses
        ``refused`` are no failure, and not counted."""
        return await self._run(file, port, "--once", "--seconds", str(seconds), "--rate", str(rate), refused=refused)

    async def _run(
        self, file: Path, port: int, *options: str, connections: int = CONNECTIONS, refused: Sequence[str] = ()
    ) -> Loaded:
        output = await output_of(
            *(sys.executable, str(_HERE / "rawload.py"), str(file), str(port)),
            *("--connections", str(connections), *options),
        )
        result = json.loads(output)
        answered = result["statuses"].pop("200", 0)
        if result["statuses"].keys() - set(refused) or not answered:
            raise LoadError(f"Not everything was answered with 200: {answered} were, and {result['statuses']}")
        return Loaded(answered, result["seconds"], result["cpu_s"], result["p50_ms"], result["p99_ms"], result["began"])


def best_generator() -> Generator:
    """wrk where it is on PATH: it takes a third of the CPU that Python takes."""
    program = shutil.which("wrk")
    return Wrk(program) if program is not None else RawSockets()


def raw_request(post: Post, api_key: str) -> bytes:
    """``post`` as bytes on the wire, by the tenant of ``api_key``."""
    return encoded(post.with_header("X-Api-Key", api_key))


def write_requests(file: Path, requests: Iterable[bytes]) -> Path:
    """Write ``requests`` for the generators; returns ``file``."""
    file.write_bytes(b"".join(b"%08d" % len(one) + one for one in requests))
    return file


def write_for(file: Path, posts: Sequence[Post], api_key: str) -> Path:
    """Write one tenant's ``posts``; returns ``file``."""
    return write_requests(file, (raw_request(one, api_key) for one in posts))


async def output_of(*command: str) -> str:
    """What ``command`` prints. LoadError where it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise LoadError(f"{Path(command[0]).name} failed with {process.returncode}: {err.decode()[-2000:]}")
    return out.decode()


def _children_cpu_s() -> float:
    # Counts children that have ended: while a load runs nothing else of this process's children ends.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
