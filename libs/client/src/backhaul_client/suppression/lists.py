"""Whole lists, in and out, as files in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import grpc
from backhaul_proto.suppression.v1 import suppression_pb2 as pb

from backhaul_client.errors import UnexpectedAnswerError
from backhaul_client.suppression import wire
from backhaul_client.suppression.base import Base
from backhaul_client.suppression.connection import taken_up
from backhaul_client.suppression.errors import error_of
from backhaul_client.suppression.models import (
    EVERYTHING,
    Actor,
    Family,
    FileFormat,
    Kind,
    Progress,
    Scope,
    Standing,
)

MAX_PIECE_BYTES = 256 << 10
"""What is read from a file, and sent, at a time. The service takes 1 MiB."""

Pieces: TypeAlias = Path | Iterable[bytes] | AsyncIterable[bytes]
"""A file, or its content in pieces that are cut anywhere."""


class Writable(Protocol):
    """What takes bytes, such as a file that was opened for them."""

    def write(self, piece: bytes, /) -> object:
        """Take a piece."""


class Lists(Base):
    """The calls that move whole lists. They have no deadline, and are not repeated: the same file again changes nothing
    that the first time has changed, so begin again."""

    async def import_list(
        self,
        tenant_id: str,
        pieces: Pieces,
        *,
        format: FileFormat = FileFormat.CSV,  # noqa: A002  # as the contract calls it
        kind: Kind | None = None,
        scope: Scope = EVERYTHING,
        family: Family | None = None,
        effective_at: datetime | None = None,
        actor: Actor | None = None,
        author: str = "",
        progress: Callable[[Progress], object] | None = None,
        refused: Writable | None = None,
    ) -> Progress:
        """Take over a list, and return when it is done. ``kind`` (None: manual), ``scope``, ``family`` and
        ``effective_at`` are those of lines that do not say it themselves. ``progress`` is told how far it is.
        ``refused`` is written the error file: each line that was refused with its number, the field, what is wrong and
        how to mend it."""
        first = pb.ImportRequest(
            tenant_id=tenant_id,
            format=wire.number(FileFormat, format),
            kind=wire.number(Kind, kind),
            family=wire.number(Family, family),
            scope=wire.to_scope(scope),
            effective_at_us=wire.micros(effective_at),
            actor=wire.number(Actor, actor),
            author=author,
        )
        async with aclosing(self._import(first, pieces)) as answers:
            async for answer in answers:
                last = wire.progress(answer)
                if refused is not None and answer.errors:
                    await self._theirs(partial(refused.write, answer.errors))
                if progress is not None:
                    await self._theirs(partial(progress, last))
        return last

    async def export(
        self,
        tenant_id: str,
        *,
        format: FileFormat = FileFormat.CSV,  # noqa: A002  # as the contract calls it
        kind: Kind | None = None,
        family: Family | None = None,
        standing: Standing = Standing.ACTIVE,
    ) -> AsyncGenerator[bytes, None]:
        """A list in pieces, which ``import_list`` takes. It is whole where no error is raised before its end."""
        request = pb.ExportRequest(
            tenant_id=tenant_id,
            format=wire.number(FileFormat, format),
            family=wire.number(Family, family),
            kind=wire.number(Kind, kind),
            standing=wire.number(Standing, standing),
        )
        headers = self._connection.headers()
        call = self._connection.pick().stub.Export(request, metadata=headers.pairs)
        try:
            await taken_up(call, "Export")
            async for answer in call:
                yield answer.data
        except grpc.aio.AioRpcError as exc:
            raise error_of(exc, "Export", headers.trace_id) from exc
        except asyncio.CancelledError:
            self._connection.check_cancelled("Export")
            raise
        finally:
            call.cancel()

    async def export_list(
        self,
        tenant_id: str,
        path: Path,
        *,
        format: FileFormat = FileFormat.CSV,  # noqa: A002  # as the contract calls it
        kind: Kind | None = None,
        family: Family | None = None,
        standing: Standing = Standing.ACTIVE,
    ) -> int:
        """Write a list into a file, which is there when it is whole. Returns its bytes."""
        exported = self.export(tenant_id, format=format, kind=kind, family=family, standing=standing)
        part, size = path.with_name(f"{path.name}.part"), 0
        try:
            with await asyncio.to_thread(part.open, "wb") as file:
                async with aclosing(exported) as pieces:
                    async for piece in pieces:
                        size += await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(part.replace, path)
        finally:
            part.unlink(missing_ok=True)
        return size

    async def _import(self, first: pb.ImportRequest, pieces: Pieces) -> AsyncGenerator[pb.ImportResponse, None]:
        async with aclosing(self._bytes_of(pieces)) as data:
            # Before the call begins: the service waits for its first request.
            first.data = await anext(data, b"")
            async with aclosing(self._exchange(first, data)) as answers:
                async for answer in answers:
                    yield answer

    async def _exchange(
        self, first: pb.ImportRequest, others: AsyncIterator[bytes]
    ) -> AsyncGenerator[pb.ImportResponse, None]:
        headers = self._connection.headers()
        call = self._connection.pick().stub.Import(metadata=headers.pairs)
        answered = asyncio.Event()
        sending = asyncio.create_task(self._send(call, first, others, answered), name="suppression-import")
        done = False
        try:
            await taken_up(call, "Import")
            while not done:
                answer = await _next_of(call, sending)
                if answer is None:
                    raise UnexpectedAnswerError("Import: it ended before it was done.")
                answered.set()
                done = answer.done
                yield answer
        except grpc.aio.AioRpcError as exc:
            raise error_of(exc, "Import", headers.trace_id) from exc
        except asyncio.CancelledError:
            self._connection.check_cancelled("Import")
            raise
        finally:
            sending.cancel()
            call.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(
        self, call: Any, first: pb.ImportRequest, others: AsyncIterator[bytes], answered: asyncio.Event
    ) -> None:
        # How the call has ended is told by what reads from it.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(first)
            # Writing to a call that was refused takes its reason away from whoever reads from it.
            await answered.wait()
            async for piece in others:
                await call.write(pb.ImportRequest(data=piece))
            await call.write(pb.ImportRequest(last=True))
            await call.done_writing()

    async def _bytes_of(self, pieces: Pieces) -> AsyncGenerator[bytes, None]:
        """``pieces``, of which none is larger than one request takes."""
        async with aclosing(self._read(pieces)) as read:
            async for piece in read:
                for start in range(0, len(piece), MAX_PIECE_BYTES):
                    yield piece[start : start + MAX_PIECE_BYTES]

    async def _read(self, pieces: Pieces) -> AsyncGenerator[bytes, None]:
        if isinstance(pieces, Path):
            with await asyncio.to_thread(pieces.open, "rb") as file:
                while piece := await asyncio.to_thread(file.read, MAX_PIECE_BYTES):
                    yield piece
        elif isinstance(pieces, AsyncIterable):
            async for piece in pieces:
                yield piece
        else:
            iterator: Iterator[bytes] = iter(pieces)
            while (found := await self._theirs(lambda: next(iterator, None))) is not None:
                yield found


async def _next_of(call: Any, sending: asyncio.Task[None]) -> pb.ImportResponse | None:
    """The next answer, or None at the end. Raises what the pieces raise: then there is nothing more to wait for."""
    reading = asyncio.ensure_future(call.read())
    try:
        await asyncio.wait({reading, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
        answer = await reading
    finally:
        reading.cancel()
    return None if answer is grpc.aio.EOF else answer
