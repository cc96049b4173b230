"""What audit needs from outside, and what its parts need of each other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from backhaul_common.tenants import Channel, Tenant
from backhaul_digests.model import Chain, ChainKey, Digest, Finding

from backhaul_audit.model import SealedFile


class Tenants(Protocol):
    """Who is served."""

    def get(self, tenant_id: str) -> Tenant | None:
        """The tenant as it was last heard of, or None."""
        ...

    async def reload(self, tenant_id: str) -> Tenant | None:
        """Read the tenant now. UNAVAILABLE while the tenants are away."""
        ...


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

    async def link(self, key: str, valid_s: int) -> str:
        """An address from which the object can be read for ``valid_s``, without credentials. Nothing is looked up but
        the credentials where they are not keys, so there may be no such object."""
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

    def lying(self, registration: str, destination: str, bucket: str) -> Objects:
        """Where an object was put: as above, or, where the destination has another bucket by now, the one that is
        called ``bucket``, at the same endpoint and with the same credentials. What is deleted there is gone too where
        there is no such bucket any more."""
        ...


@dataclass(frozen=True, slots=True)
class Holding:
    """Where an event lies. Of ``unknown`` files of the tenant nobody knows which events lie in them: they were found in
    the bucket when EVENTS no longer had what they are of, and their lines do not name it."""

    held: Sequence[Held]
    unknown: int


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

    async def holding(self, registration: str, event_id: str) -> Holding:
        """Every revision of the event that is known to lie in a file, by revision. INVALID_ARGUMENT where it is no
        event's id."""
        ...

    async def plain_channels(self, registration: str) -> Sequence[str]:
        """The channels that have a file which is not encrypted, and not deleted, by name."""
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
    ``since_us`` is when its first waiting event arrived, ``stored_us`` when EVENTS took the first that waits, both 0
    where none waits."""

    channel: str
    problem: str
    since_us: int
    stored_us: int = 0


class States(Protocol):
    """How it stands with the files that are being made, as the copy that makes them last said. UNAVAILABLE."""

    async def waiting(self, registration: str) -> Sequence[Waiting]:
        """Of each channel that has something waiting or wrong."""
        ...

    async def read_to_us(self) -> int:
        """When the last message of EVENTS was stored that was read, unix time in us; 0 before the first."""
        ...


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that digests were signed with. ``public`` are its 32 bytes; ``id`` the first 16 hex digits of their
    SHA-256."""

    id: str
    public: bytes
    created_at_us: int


class Keys(Protocol):
    """The installation's keys. UNAVAILABLE while the store is away."""

    async def all(self) -> Sequence[PublicKey]:
        """Every key there ever was, the present one first; one is made where there is none yet."""
        ...

    async def rotate(self) -> PublicKey:
        """Make a new one, which signs from now on."""
        ...


class Erased(NamedTuple):
    """What an erasure did. ``destroyed``: there was a key. ``before_us``: what arrived before is not filed any more
    either but for its public fields, unix time in microseconds."""

    destroyed: bool
    before_us: int


class People(Protocol):
    """Keys of people, each of one registration. UNAVAILABLE while the store is away."""

    async def by_id(self, registration: str, key_ids: Collection[str]) -> Mapping[str, bytes]:
        """Those keys of the registration that are there, 64 bytes each, by their ids, as lines name them. One look-up:
        ask for those of many lines at once. A key that is missing was destroyed, or never was the registration's.
        FAILED_PRECONDITION where keys cannot be decrypted."""
        ...

    async def erase(self, registration: str, address: str) -> Erased:
        """Destroy the key of whoever has the address, in any spelling. It may be done again, for what came since.

        INVALID_ARGUMENT names ``address`` where it names nobody; NOT_FOUND where the tenant is gone.
        """
        ...


@dataclass(frozen=True, slots=True)
class VerifyQuery:
    """What is to be verified. ``span`` is unix time in microseconds, 0 open: digests that end after its beginning and
    begin before its end. ``chain`` None stands for both. ``heads`` are hashes that somebody has kept."""

    span: tuple[int, int] = (0, 0)
    chain: Chain | None = None
    heads: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Verified:
    """How far it is: what was found since the last one, and how many of each were checked since the beginning.
    ``found`` is from the beginning of the first digest to the end of the last one, 0 where there is none yet. The last
    one is ``done``."""

    findings: Sequence[Finding]
    digests: int
    valid_digests: int
    files: int
    valid_files: int
    found: tuple[int, int] = (0, 0)
    done: bool = False


class Verification(Protocol):
    """Checks a tenant's files and digests against the buckets."""

    def run(self, tenant: Tenant, query: VerifyQuery) -> AsyncGenerator[Verified, None]:
        """How far it is, at least every few seconds and some hundred findings. INVALID_ARGUMENT names ``heads``;
        UNAVAILABLE where a bucket or the store is away: what cannot be read is not invalid."""
        ...


@dataclass(frozen=True, slots=True)
class Locked:
    """How many files of a channel should be gone and are held by locks, and until when the last of them is: unix time
    in microseconds, 0 where there is none."""

    files: int
    until_us: int


class Locks(Protocol):
    """What locks hold. UNAVAILABLE while the store is away."""

    async def locked(self, registration: str) -> Mapping[str, Locked]:
        """By channel, where there is any."""
        ...


class Probed(Protocol):
    """What the probes of the buckets have found, as far as this copy has tried them."""

    def problem(self, registration: str, destination: str) -> str:
        """Why nothing can be stored in the destination's bucket, in words; empty while nothing is known to be wrong."""
        ...

    def weaknesses(self, registration: str, destination: str) -> Sequence[str]:
        """What the destination's bucket was seen not to hold to, in sentences."""
        ...
