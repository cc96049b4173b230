"""What audit needs from outside, and what its parts need of each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from backhaul_common.tenants import Channel, Tenant

from backhaul_audit.model import Chain, ChainKey, Digest, SealedFile


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a bucket says of an object. ``metadata`` is what ``Objects.create`` was given, its names in lower case."""

    size: int
    metadata: Mapping[str, str]
    modified: datetime


class Objects(Protocol):
    """One destination's bucket.

    From every call: UNAVAILABLE while it is away; FAILED_PRECONDITION says in words what people must mend (credentials,
    no such bucket, no room).
    """

    @property
    def bucket(self) -> str:
        """Its name."""
        ...

    async def create(self, key: str, data: bytes | Sequence[bytes], metadata: Mapping[str, str]) -> bool:
        """Store an object where there is none. False: there was one already, and it is as it was.

        ``metadata`` are ASCII texts by lower-case names. After an error it is not known whether the object is there.
        """
        ...

    async def stat(self, key: str) -> ObjectInfo | None:
        """What is there."""
        ...

    def read(self, key: str, *, chunk: int = 1 << 20) -> AsyncIterator[bytes]:
        """Its bytes, about ``chunk`` at a time. NOT_FOUND, with the first piece."""
        ...

    async def delete(self, key: str) -> datetime | None:
        """Delete it. None: it is gone, or never was; a time: a lock holds it until then, and it is still there."""
        ...

    def keys(self, prefix: str, after: str = "") -> AsyncIterator[str]:
        """The keys that begin with ``prefix`` and come behind ``after``, in the order of their bytes."""
        ...

    def link(self, key: str, valid_s: int) -> str:
        """An address from which the object can be read for ``valid_s``."""
        ...


class Destinations(Protocol):
    """Where files lie. A destination is a name: empty for the installation's bucket, else the key of the channel whose
    own bucket it is."""

    def of(self, tenant: Tenant, channel: Channel) -> Objects:
        """Where the channel's files go now. FAILED_PRECONDITION where nothing is set up."""
        ...

    def named(self, registration: str, destination: str) -> Objects:
        """The bucket of a file that is planned or sealed. FAILED_PRECONDITION where it is not set up any more."""
        ...


class Held(NamedTuple):
    """One revision of an event in its file. ``place`` is the event's in the file, from 1."""

    file: SealedFile
    revision: int
    place: int


@dataclass(frozen=True, slots=True)
class FilesQuery:
    """A question for a page of files. Empty texts and None do not filter.

    ``span`` is of arrival, unix time in microseconds, from inclusive to exclusive, 0 open: files with events in it.
    ``size`` 0 stands for ``pages.DEFAULT_ROWS``; ``token`` is that of the page before.
    """

    channel: str = ""
    chain: Chain | None = None
    span: tuple[int, int] = (0, 0)
    size: int = 0
    token: str = ""


class Files(Protocol):
    """Sealed files. UNAVAILABLE while the store is away."""

    async def page(self, registration: str, query: FilesQuery) -> tuple[Sequence[SealedFile], str]:
        """The latest first by when they were sealed, and the token of the next page, empty on the last.

        INVALID_ARGUMENT names ``page_size`` or ``page_token``.
        """
        ...

    async def get(self, registration: str, file_id: str) -> SealedFile | None:
        """One file, whether its object is deleted or not."""
        ...

    async def holding(self, registration: str, event_id: str) -> Sequence[Held]:
        """Every revision of the event that lies in a file, by revision. INVALID_ARGUMENT where it is no event's id."""
        ...

    async def since(self, of: ChainKey, number: int, most: int) -> Sequence[SealedFile]:
        """The first ``most`` files of the chain after ``number``, by number."""
        ...


class Digests(Protocol):
    """Digests. UNAVAILABLE while the store is away."""

    async def page(self, of: ChainKey, size: int, token: str) -> tuple[Sequence[Digest], str]:
        """The latest first, and the token of the next page, empty on the last."""
        ...

    async def get(self, of: ChainKey, number: int) -> Digest | None:
        """One digest."""
        ...

    async def head(self, of: ChainKey) -> Digest | None:
        """The last one."""
        ...

    async def chains(self, registration: str) -> Sequence[ChainKey]:
        """The chains that have a digest."""
        ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """What of a channel lies in no sealed file yet. ``problem`` is empty while nothing is wrong, in words otherwise;
    ``since_us`` is when its first waiting event arrived, 0 where none waits."""

    channel: str
    problem: str
    since_us: int


class States(Protocol):
    """How it stands with the files that are being made, as the copy that makes them last said. UNAVAILABLE."""

    async def waiting(self, registration: str) -> Sequence[Waiting]:
        """Of each channel that has something waiting or wrong."""
        ...

    async def backlog(self) -> int:
        """How many messages of EVENTS lie behind what was read."""
        ...
