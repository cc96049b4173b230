"""A bare loop of the HTTP client that the notifier has, in a process of its own and on the same kind of event loop.

``python calling_floor.py FILE PORT --count 10000 --connections 8`` posts the request of FILE, headers and body, that
often to ``/answer``, over connections that are kept, and reads each answer. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

_WARM = 200
_TRAVELS = frozenset({"host", "content-length", "accept", "accept-encoding", "connection"})
"""Headers that the client writes by itself."""


async def run(request: bytes, port: int, count: int, connections: int) -> dict[str, float]:
    """Post it; return what is printed."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:]]
    headers = {name: value for name, value in lines if name.lower() not in _TRAVELS}
    url = f"http://127.0.0.1:{port}/answer"
    async with ClientSession(
        connector=TCPConnector(limit=connections),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
    ) as session:

        async def post(times: int) -> None:
            for _ in range(times):
                async with session.post(url, headers=headers, data=body, allow_redirects=False) as answer:
                    await answer.read()
                    if answer.status != 200:
                        raise RuntimeError(f"A call was answered with {answer.status}.")

        async def together(times: int) -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(connections):
                    group.create_task(post(times // connections))

        await together(_WARM)
        cpu, began = time.process_time(), time.perf_counter()
        await together(count)
        return {
            "calls": count // connections * connections,
            "cpu_s": time.process_time() - cpu,
            "seconds": time.perf_counter() - began,
        }


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    given = parser.parse_args()
    sys.stdout.write(
        json.dumps(uvloop.run(run(given.file.read_bytes(), given.port, given.count, given.connections))) + "\n"
    )


if __name__ == "__main__":
    main()
