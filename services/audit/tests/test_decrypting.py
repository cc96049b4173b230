"""Files that are read decrypted: what comes of their lines, and of files that are not what was sealed."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from audit_calls_rig import ACME, GLOBEX, World, sealed, serving
from backhaul_audit import decrypting
from backhaul_audit.decrypting import MAX_BATCH_LINES, PART_BYTES, Decrypting
from backhaul_audit.model import FileFormat, SealedFile, Shape
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.audit.v1 import audit_pb2 as pb
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

ANN, BOB, GONE = "a" * 16, "b" * 16, "c" * 16
KEYS = {ANN: b"\1" * 64, BOB: b"\2" * 64, GONE: b"\3" * 64}


def event(number: int) -> bytes:
    return b'{"id":"%032x","revision":%d,"kind":"sent"}' % (number, number % 2)


def line(number: int, person: str, plain: bytes) -> bytes:
    about = [b"%032x" % number, b"%d" % (number % 2)]
    encrypted = b64encode(AESSIV(KEYS[person]).encrypt(plain, about))
    return b'{"event":%b,"person":"%b","encrypted":"%b"}' % (event(number), person.encode(), encrypted)


def unnamed(number: int) -> bytes:
    """The line of a person who had been erased when it was written."""
    return b'{"event":%b,"person":null,"encrypted":null}' % event(number)


def erased(number: int, person: str) -> bytes:
    return b'{"event":%b,"person":"%b","encrypted":null}' % (event(number), person.encode())


def written(lines: Sequence[bytes], file_format: FileFormat = FileFormat.JSON_LINES) -> bytes:
    if file_format is FileFormat.ARRAY:
        return b"[\n" + b",\n".join(lines) + b"\n]\n"
    return b"\n".join(lines) + b"\n"


def filed(inflated: bytes, shape: Shape | None = None) -> tuple[SealedFile, bytes]:
    """A file that holds ``inflated``, and how it is stored."""
    shape = shape or Shape("events", encrypted=True)
    file = sealed()
    stored = gzip.compress(inflated) if shape.gzip else inflated
    content = replace(
        file.content,
        bytes=len(stored),
        sha256=hashlib.sha256(stored).hexdigest(),
        inflated_bytes=len(inflated),
        inflated_sha256=hashlib.sha256(inflated).hexdigest(),
    )
    return replace(file, plan=replace(file.plan, shape=shape), content=content), stored


def peopled(*people: str) -> World:
    """A world that has these keys, all of acme."""
    world = World()
    world.people = {(ACME.registration, person): KEYS[person] for person in people}
    return world


async def pieces_of(stored: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(stored), size):
        yield stored[start : start + size]


async def read(world: World, file: SealedFile, stored: bytes, size: int = 1 << 18) -> bytes:
    """What is in the file, from pieces of ``size``."""
    return b"".join([piece async for piece in Decrypting(world).content_of(file, pieces_of(stored, size))])


async def refused(world: World, file: SealedFile, stored: bytes) -> str:
    with pytest.raises(BackhaulError) as caught:
        await read(world, file, stored)
    assert caught.value.code is Code.FAILED_PRECONDITION
    return caught.value.message


@pytest.mark.parametrize("file_format", FileFormat)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [1, 7, 1 << 18])
async def test_each_line_is_as_if_it_had_never_been_encrypted(file_format: FileFormat, packed: bool, size: int) -> None:
    # Of two letters that look like an array's end, and of what looks like an encrypted line.
    plain = [b'{"text":"],["}', line(9, ANN, b"{}"), '{"text":"\u00fc,"}'.encode()]
    lines = [line(1, ANN, plain[0]), line(2, BOB, plain[1]), line(3, ANN, plain[2]), line(4, GONE, b"{}"), unnamed(5)]
    file, stored = filed(written(lines, file_format), Shape("events", format=file_format, gzip=packed, encrypted=True))
    found = await read(peopled(ANN, BOB), file, stored, size)
    assert found == written([*plain, erased(4, GONE), unnamed(5)], file_format)
    if file_format is FileFormat.ARRAY:
        assert len(json.loads(found)) == len(lines)


async def test_what_is_not_encrypted_is_inflated_and_not_looked_into() -> None:
    # Whoever sends this has it in a file byte by byte; it is no line of Backhaul's.
    forged = written([line(1, ANN, b"{}"), b'{"person":1}'])
    file, stored = filed(forged, Shape("events", gzip=True))
    world = peopled(ANN)
    assert await read(world, file, stored) == forged
    assert not world.looked_up


async def test_keys_are_looked_up_for_many_lines_at_once() -> None:
    lines = [line(number, (ANN, BOB)[number % 2], b"{}") for number in range(MAX_BATCH_LINES + 1)]
    file, stored = filed(written(lines))
    world = peopled(ANN, BOB)
    assert await read(world, file, stored, len(stored)) == b"{}\n" * len(lines)
    assert world.looked_up == [{ANN, BOB}, {ANN}]


async def test_a_key_of_another_tenant_opens_nothing() -> None:
    file, stored = filed(written([line(1, ANN, b"{}")]))
    world = World()
    world.people = {(GLOBEX.registration, ANN): KEYS[ANN]}
    assert await read(world, file, stored) == written([erased(1, ANN)])


async def test_a_line_that_does_not_decrypt_ends_the_answer_and_is_named() -> None:
    world = peopled(ANN, BOB)
    sound = line(1, ANN, b'{"text":"hello"}')
    elsewhere = line(2, ANN, b"{}").replace(b"%032x" % 2, b"%032x" % 3)
    for wrong, said in (
        (sound.replace(ANN.encode(), BOB.encode()), "Line 2 does not decrypt."),
        (elsewhere, "Line 2 does not decrypt."),
        (sound.replace(b'"revision":1', b'"revision":0'), "Line 2 does not decrypt."),
        (sound.replace(b'"encrypted":"', b'"encrypted":"AAAA'), "Line 2 does not decrypt."),
        (b'{"event":%b,"person":"%b","encrypted":"!"}' % (event(1), ANN.encode()), "Line 2 does not decrypt."),
        (b'{"event":%b,"person":"%b","encrypted":""}' % (event(1), ANN.encode()), "Line 2 does not decrypt."),
        (b'{"text":"hello"}', "Line 2 is none that Backhaul writes."),
        (b'{"event":{"id":1},"person":2,"encrypted":3}', "Line 2 is none that Backhaul writes."),
        (b'{"event":{"id":"\\ud800","revision":0},"person":null,"encrypted":null}', "Line 2 is none"),
        (b"[" * 100_000, "Line 2 is none that Backhaul writes."),
        (b"\xff", "Line 2 is none that Backhaul writes."),
        (b"", "Line 2 is none that Backhaul writes."),
    ):
        file, stored = filed(written([sound, wrong, sound]))
        message = await refused(world, file, stored)
        assert said in message, wrong
        assert file.plan.key in message


async def test_a_file_that_was_changed_is_noticed_at_its_end() -> None:
    world = peopled(ANN)
    lines = [line(number, ANN, b"{}") for number in range(5)]
    for packed in (False, True):
        file, stored = filed(written(lines), Shape("events", gzip=packed, encrypted=True))
        # All of these lines are Backhaul's own.
        for other, said in (
            (lines[:4], "It holds less."),
            ([*lines, lines[0]], "It holds more."),
            ([lines[1], lines[0], *lines[2:]], "It holds something else."),
        ):
            inflated = written(other)
            assert said in await refused(world, file, gzip.compress(inflated) if packed else inflated)
    assert "Something follows" in await refused(world, file, stored + b"x")
    assert "It holds less." in await refused(world, file, stored[:-1])
    assert "It holds less." in await refused(world, file, b"")
    assert "It cannot be inflated." in await refused(world, file, b"none" + stored)


@given(st.data(), st.booleans(), st.sampled_from(FileFormat))
async def test_whatever_is_changed_nothing_else_is_given_as_whole(
    data: st.DataObject, packed: bool, file_format: FileFormat
) -> None:
    lines = [line(1, ANN, b'{"text":"hello"}'), line(2, GONE, b"{}"), unnamed(3), line(4, ANN, b"{}")]
    file, stored = filed(written(lines, file_format), Shape("events", file_format, packed, encrypted=True))
    world = peopled(ANN)
    whole = await read(world, file, stored)
    place = data.draw(st.integers(0, len(stored) - 1))
    length = data.draw(st.integers(0, 40))
    with_it = data.draw(st.binary(max_size=40))
    other = stored[:place] + with_it + stored[place + length :]
    found: bytes | Code
    try:
        found = await read(world, file, other, data.draw(st.integers(1, 100)))
    except BackhaulError as exc:
        found = exc.code
    # A header of gzip holds what nobody needs.
    assert found in (whole, Code.FAILED_PRECONDITION)


async def test_no_answer_looks_whole_that_is_not() -> None:
    lines = [line(number, ANN, b'{"text":"%b"}' % (b"x" * 1000)) for number in range(1000)]
    file, _ = filed(written(lines))
    other = written([*lines[1:], lines[0]])
    found: list[bytes] = []

    async def collect() -> None:
        opened = Decrypting(peopled(ANN)).content_of(file, pieces_of(other, PART_BYTES))
        while True:
            found.append(await anext(opened))

    with pytest.raises(BackhaulError, match="something else"):
        await collect()
    # It began, and its end is held back.
    assert PART_BYTES < sum(map(len, found)) < 1000 * (1000 + len('{"text":""}\n'))


async def test_memory_is_bounded_whatever_a_file_inflates_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decrypting, "MAX_LINE_BYTES", 4 * PART_BYTES)
    file, _ = filed(written([line(1, ANN, b"{}")]))
    packed = replace(file, plan=replace(file.plan, shape=Shape("events", gzip=True, encrypted=True)))
    huge = replace(packed, content=replace(packed.content, inflated_bytes=1 << 30))
    # Some hundred KB that inflate to 256 MiB without a line break.
    bomb = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    stored = b"".join([*(bomb.compress(bytes(1 << 20)) for _ in range(256)), bomb.flush()])
    tracemalloc.start()
    try:
        assert "It holds more." in await refused(peopled(ANN), packed, stored)
        assert "Line 1 is none that Backhaul writes." in await refused(peopled(ANN), huge, stored)
        lines = [line(number, ANN, b'{"text":"%b"}' % (b"x" * 1000)) for number in range(2000)]
        inflated = written(lines * 10)
        large, stored = filed(inflated, Shape("events", gzip=True, encrypted=True))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        size = 0
        async with aclosing(Decrypting(peopled(ANN)).content_of(large, pieces_of(stored, PART_BYTES))) as pieces:
            async for piece in pieces:
                size += len(piece)
        assert size == 20_000 * (1000 + len('{"text":""}\n'))
        assert tracemalloc.get_traced_memory()[1] - before < 16 * PART_BYTES < len(inflated) / 6
    finally:
        tracemalloc.stop()


async def test_a_long_line_is_given_in_pieces() -> None:
    plain = b'{"text":"%b"}' % (b"x" * 5 * PART_BYTES)
    file, stored = filed(written([line(1, ANN, plain)]))
    world = peopled(ANN)
    world.files = [file]
    world.objects.objects[file.plan.key] = stored
    async with serving(world) as stub:
        request = pb.GetFileRequest(tenant_id="acme", file_id=file.plan.id, decrypted=True)
        answers = [one async for one in stub.GetFile(request)]
        assert b"".join(one.data for one in answers) == plain + b"\n"
        assert max(len(one.data) for one in answers) == PART_BYTES
        assert [one.HasField("file") for one in answers] == [True] + [False] * (len(answers) - 1)
        assert answers[0].file.encrypted
        # It is as it is stored where nobody asks otherwise.
        request.decrypted = False
        assert b"".join([one.data async for one in stub.GetFile(request)]) == stored
