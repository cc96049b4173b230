"""Files that a service takes line by line: passed on as they come and never held, and what became of their lines."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Any, Protocol, TypeVar

import orjson
from backhaul_common.errors import BackhaulError, Code, unavailable
from fastapi import Request, Response
from google.protobuf.message import Message

from backhaul_gateway.reads.streaming import Body, answers_of

MAX_FILE_BYTES = 1 << 30
"""Of one file: ten million lines of usual length."""

MAX_ERRORS_BYTES = 1 << 20
"""Of the refused lines that a single answer holds. Where more are refused, the file is wrong as a whole."""

A_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
"""What the OpenAPI document says of a body or an answer that is one."""


class Told(Protocol):
    """How far a file is: what is common to the answers of the calls that take files."""

    lines: int
    errors: bytes
    done: bool


Asked = TypeVar("Asked", bound=Message)
Answer = TypeVar("Answer", bound=Told)


def format_of(request: Request, formats: Mapping[str, Any], what: str) -> Any:
    """The format that the Content-Type names, of those that ``what`` may have; INVALID_ARGUMENT."""
    media_type = media_type_of(request)
    if media_type not in formats:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"{what} cannot be read from {media_type[:64]!r}." if media_type else "There is no Content-Type.",
            field="Content-Type",
            fix=f"Send one of: {', '.join(formats)}.",
        )
    return formats[media_type]


def media_type_of(request: Request) -> str:
    """The Content-Type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def sent(
    call: Callable[[AsyncIterator[Asked]], AsyncIterable[Answer]],
    first: Asked,
    pieces: AsyncIterator[bytes],
    *,
    body: Body,
    service: str,
    in_words: Callable[[], AbstractContextManager[None]],
) -> AsyncGenerator[Answer, None]:
    """What ``service`` answers while ``pieces`` of ``body`` go to it, in requests like ``first``.

    ``in_words`` is put around the call, to name what it refuses as the HTTP request has it.
    """
    kind: Any = type(first)
    with_data: Any = first
    with_data.data = await anext(pieces, b"")
    answered = asyncio.Event()

    async def requests() -> AsyncIterator[Asked]:
        yield first
        # What is sent to a call that was refused takes the refusal's reason away.
        await answered.wait()
        async for piece in pieces:
            yield kind(data=piece)
        yield kind(last=True)

    done = False
    try:
        with in_words():
            async with answers_of(call(requests())) as answers:
                async for answer in answers:
                    begins = not answered.is_set()
                    answered.set()
                    done = answer.done
                    if not begins or done or answer.lines:
                        yield answer
    except (BackhaulError, asyncio.CancelledError) as exc:
        # gRPC cancels a call whose requests break off, and nothing else tells why.
        if body.failure is None:
            raise
        raise body.failure from exc
    if not done:
        raise unavailable(service)


async def read_whole(answers: AsyncGenerator[Answer, None]) -> tuple[Answer, bytes, bool]:
    """The last one of ``answers``, the errors of all of them, 1 MiB at most, and whether that is all."""
    last: Answer | None = None
    errors, complete = bytearray(), True
    async with aclosing(answers):
        async for last in answers:
            complete = complete and len(errors) + len(last.errors) <= MAX_ERRORS_BYTES
            if complete:
                errors += last.errors
    assert last is not None  # noqa: S101  # ``sent`` raises where the last answer is missing
    return last, bytes(errors), complete


async def summary(answers: AsyncGenerator[Answer, None], counts: Sequence[str]) -> Response:
    """What became of a file, in one answer: ``counts`` are the fields that count its lines."""
    last, errors, complete = await read_whole(answers)
    told = {**counted(last, counts), "errors": errors.decode("utf-8", "replace"), "errors_complete": complete}
    return Response(orjson.dumps(told), media_type="application/json")


async def progress_lines(answers: AsyncGenerator[Answer, None], counts: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """How far it is, a line an answer, as JSON Lines."""
    # A piece may end in the middle of a character.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async with aclosing(answers):
        async for answer in answers:
            errors = decoder.decode(answer.errors, final=answer.done)
            yield orjson.dumps({**counted(answer, counts), "errors": errors, "done": answer.done}) + b"\n"


def counted(answer: Told, names: Sequence[str]) -> dict[str, int]:
    """How many lines became what, of the fields ``names``."""
    return {name: getattr(answer, name) for name in names}
