"""Files as their readers get them: their bytes, what is in them, and addresses to fetch them from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import cast

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.places import Places

from backhaul_audit.decrypting import Decrypting
from backhaul_audit.model import SealedFile
from backhaul_audit.ports import Destinations, Files

MAX_READS_OF_TENANT, MAX_READS = 4, 32

PIECE_BYTES = 256 << 10
"""How much of a file is held for each of its readers, about: the bucket is asked for more when they have taken it."""

DEFAULT_LINK_S, MAX_LINK_S = 900, 604_800
"""S3 signs no address for longer than a week."""


class Reading:
    """Reads sealed files."""

    def __init__(self, files: Files, destinations: Destinations, decrypting: Decrypting) -> None:
        self._files = files
        self._destinations = destinations
        self._decrypting = decrypting
        self._places = Places("files that are being read", of_tenant=MAX_READS_OF_TENANT, of_all=MAX_READS)

    async def require(self, registration: str, file_id: str) -> SealedFile:
        """The file. NOT_FOUND."""
        file = await self._files.get(registration, file_id)
        if file is None:
            raise BackhaulError(
                Code.NOT_FOUND,
                "There is no such file.",
                field="file_id",
                fix="Pass the id of a file of the list. One is listed when it is whole and in its place.",
            )
        return file

    async def bytes_of(self, registration: str, file: SealedFile) -> AsyncGenerator[bytes, None]:
        """The file as it is stored, in pieces. FAILED_PRECONDITION where its object is gone; RATE_LIMITED where too
        many files are being read; UNAVAILABLE, also in the middle."""
        _require_kept(file)
        objects = self._destinations.lying(registration, file.plan.destination, file.plan.bucket)
        with self._places.taken(registration):
            reading = objects.read(file.plan.key, chunk=PIECE_BYTES)
            try:
                async with aclosing(cast("AsyncGenerator[bytes, None]", reading)) as pieces:
                    async for piece in pieces:
                        yield piece
            except BackhaulError as exc:
                if exc.code is not Code.NOT_FOUND:
                    raise
                raise BackhaulError(
                    Code.FAILED_PRECONDITION,
                    f"{file.plan.bucket}/{file.plan.key} is not there any more, and Backhaul did not delete it.",
                    fix="Have the bucket's owner restore it. A verification names every file that is missing.",
                ) from exc

    async def content_of(self, registration: str, file: SealedFile) -> AsyncGenerator[bytes, None]:
        """What is in the file, inflated and decrypted, in pieces. Fails as above, and as ``Decrypting.content_of``."""
        async with (
            aclosing(self.bytes_of(registration, file)) as stored,
            aclosing(self._decrypting.content_of(file, stored)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def link(self, registration: str, file: SealedFile, valid_s: int) -> tuple[str, int]:
        """An address that is good for ``valid_s`` seconds, and for how many it is. INVALID_ARGUMENT names ``valid_s``;
        FAILED_PRECONDITION as above."""
        _require_kept(file)
        if not 0 <= valid_s <= MAX_LINK_S:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                f"A link is good for 1 to {MAX_LINK_S} seconds.",
                field="valid_s",
                fix="Ask for less.",
            )
        seconds = valid_s or DEFAULT_LINK_S
        objects = self._destinations.lying(registration, file.plan.destination, file.plan.bucket)
        return await objects.link(file.plan.key, seconds), seconds


def _require_kept(file: SealedFile) -> None:
    if file.deleted_at_us:
        when = datetime.fromtimestamp(file.deleted_at_us / 1e6, UTC).isoformat(timespec="seconds")
        raise BackhaulError(
            Code.FAILED_PRECONDITION,
            f"The file was deleted at {when}: the tenant keeps files for so long. Its hashes stay.",
            fix="Read a file that is kept.",
        )
