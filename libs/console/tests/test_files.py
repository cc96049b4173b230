"""Files through the console: taken in any pieces, never held, and given up when nobody wants them any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from backhaul_client import InvalidArgumentError
from backhaul_console.bounds import STEADY_BODY
from backhaul_console.files import MAX_BESIDE_BYTES, Upload
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

BOUNDARY = "----x"
FIELDS = {"kind": "stop", "note": "naïve"}


def form(content: bytes, name: str = "list.csv", fields: dict[str, str] | None = None) -> bytes:
    """As a browser sends it: fields, the file, and a field behind it that nobody asked for."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in (FIELDS if fields is None else fields).items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    parts.append(head.encode() + b"Content-Type: text/csv\r\n\r\n" + content + b"\r\n")
    parts.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="late"\r\n\r\nx\r\n--{BOUNDARY}--\r\n'.encode())
    return b"".join(parts)


def request_of(pieces: Sequence[bytes], kind: str = f"multipart/form-data; boundary={BOUNDARY}") -> Request:
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}, receive)


async def taken(upload: Upload) -> bytes:
    await upload.begin()
    return b"".join([piece async for piece in upload.pieces()])


@given(content=st.binary(max_size=200) | st.just(b"\r\n------" * 9), cuts=st.lists(st.integers(1, 600), max_size=8))
def test_a_file_is_the_same_however_it_is_cut(content: bytes, cuts: list[int]) -> None:
    if BOUNDARY.encode() in content:
        content = content.replace(BOUNDARY.encode(), b"")
    sent = form(content)
    ends = sorted({*cuts, len(sent)})
    upload = Upload(request_of([sent[start:end] for start, end in zip([0, *ends], ends, strict=False)]))
    assert asyncio.run(taken(upload)) == content
    assert (upload.name, upload.fields) == ("list.csv", FIELDS)


@pytest.mark.parametrize("end", [-1, -4])
async def test_a_form_that_breaks_off_within_its_file_raises(end: int) -> None:
    sent = form(b"address\n+1415\n")
    whole = sent[: sent.index(b"+1415") + 5 + end]
    upload = Upload(request_of([whole]))
    await upload.begin()
    with pytest.raises(ClientDisconnect):
        async for _ in upload.pieces():
            pass


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([b"{}"], "application/json"),
        ([], f"multipart/form-data; boundary={BOUNDARY}"),
        ([b"nonsense"], f"multipart/form-data; boundary={BOUNDARY}"),
        ([b"--y--\r\n"], f"multipart/form-data; boundary={'y' * 1000}"),
        ([f"--{BOUNDARY}--\r\n".encode()], f"multipart/form-data; boundary={BOUNDARY}"),
    ],
)
async def test_what_is_no_form_with_a_file_is_refused(pieces: list[bytes], kind: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await Upload(request_of(pieces, kind)).begin()
    assert refused.value.field == "file"


async def test_what_stands_before_a_file_is_bounded() -> None:
    sent = form(b"address\n", fields={"note": "x" * 4 * MAX_BESIDE_BYTES})
    pieces = [sent[at : at + 16_384] for at in range(0, len(sent), 16_384)]
    request = request_of(pieces)
    with pytest.raises(InvalidArgumentError):
        await Upload(request).begin()


async def test_a_body_has_no_end_of_its_time_but_in_its_file() -> None:
    """Who drips fields in front of it, or what nobody wants behind it, has a form's time."""
    sent = form(b"x" * 900)
    request = request_of([sent[start : start + 50] for start in range(0, len(sent), 50)])
    upload = Upload(request)
    await upload.begin()
    assert STEADY_BODY not in request.scope
    async for _ in upload.pieces():
        assert STEADY_BODY in request.scope
    assert STEADY_BODY not in request.scope

    request = request_of([sent[start : start + 50] for start in range(0, len(sent), 50)])
    upload = Upload(request)
    await upload.begin()
    pieces = upload.pieces()
    await anext(pieces)
    # Whoever took them has left.
    await upload.rest()
    assert STEADY_BODY not in request.scope
