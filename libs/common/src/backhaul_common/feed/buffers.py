"""What waits of each queue path, and a batch of it in equal shares. Pure: no broker, no clock, no task."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    """What can wait: one message of a stream. ``path`` is whose it is, and ``reply`` where it is answered."""

    @property
    def path(self) -> str: ...
    @property
    def stream_seq(self) -> int: ...
    @property
    def reply(self) -> str: ...
    @property
    def data(self) -> bytes: ...


T = TypeVar("T", bound=Item)


class Put(Enum):
    """What became of a message that came in."""

    BUFFERED = "buffered"
    PARKED = "parked"
    """Its bytes are dropped; its position and its reply are kept."""
    KNOWN = "known"
    """It waits here already."""


class _Buffer(Generic[T]):
    """What waits under one path. ``parked`` leads from positions to replies."""

    __slots__ = ("bytes", "items", "parked", "seqs")

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.seqs: dict[int, str] = {}
        self.bytes = 0
        self.parked: dict[int, str] = {}


class FairBuffers(Generic[T]):
    """A buffer for each path, of at most ``path_bytes``; what has no room in it is parked.

    One message is always taken into an empty buffer, however large it is. Where ``path_bytes`` is None nothing is
    parked, and whoever fills the buffers bounds them by ``bytes``.
    """

    def __init__(self, path_bytes: int | None) -> None:
        self._path_bytes = path_bytes
        self._buffers: dict[str, _Buffer[T]] = {}
        # Paths with something in their buffers. Whoever was given more than its share last is at the end.
        self._ready: dict[str, None] = {}
        self.bytes = 0
        """Of all that is buffered."""

    def __len__(self) -> int:
        """How many paths have something in their buffers."""
        return len(self._ready)

    @property
    def parked(self) -> int:
        """How many messages are parked. May be asked by another thread."""
        return sum(len(buffer.parked) for buffer in list(self._buffers.values()))

    # What comes in.

    def put(self, item: T) -> Put:
        """Take in what the broker delivered."""
        buffer = self._buffer(item.path)
        if item.stream_seq in buffer.seqs:
            return Put.KNOWN
        # Behind what is parked already, too: otherwise a flood would keep what came first waiting for ever.
        if (
            self._path_bytes is not None
            and buffer.items
            and (buffer.parked or buffer.bytes + len(item.data) > self._path_bytes)
        ):
            buffer.parked[item.stream_seq] = item.reply
            return Put.PARKED
        self._append(buffer, item)
        return Put.BUFFERED

    def unpark(self, item: T) -> None:
        """Take in what was parked and has been read again."""
        buffer = self._buffer(item.path)
        if item.stream_seq not in buffer.seqs:
            self._append(buffer, item)

    def take_back(self, items: Sequence[T]) -> None:
        """Take in ``items``, which were taken last, before all others of their paths."""
        for item in reversed(items):
            buffer = self._buffer(item.path)
            if item.stream_seq in buffer.seqs:
                continue  # The broker delivered it again meanwhile.
            buffer.parked.pop(item.stream_seq, None)
            buffer.seqs[item.stream_seq] = item.reply
            buffer.items.appendleft(item)
            buffer.bytes += len(item.data)
            self.bytes += len(item.data)
            self._ready.setdefault(item.path)

    # What goes out.

    def next_batch(self, budget: int, paths: Iterable[str] | None = None) -> list[T]:
        """About ``budget`` bytes of ``paths``, or of all, in equal shares: what one does not need is the others'.

        - Nobody gets more than one message above its share. What fits into its path's share is in the batch.
        - A path whose next message is larger than its share gets it in turn, the one that waited longest first.
        - A batch is larger than ``budget`` by less than one message, and holds at least one while anything waits.
        - The order of each path's messages is kept.
        """
        batch: list[T] = []
        left = budget
        hungry = list(self._ready if paths is None else paths)
        got = dict.fromkeys(hungry, 0)
        while hungry:
            # What is left, and what they have: as much of it for each. Only a path that needs less makes it grow.
            share = self._share(left + sum(got[path] for path in hungry), len(hungry))
            still: list[str] = []
            for path in hungry:
                buffer = self._buffers[path]
                while buffer.items and got[path] + len(buffer.items[0].data) <= share:
                    size = self._take(path, buffer, batch)
                    got[path] += size
                    left -= size
                if buffer.items:
                    still.append(path)
            if len(still) == len(hungry):
                break
            hungry = still
        for path in hungry:
            if left <= 0:
                break
            left -= self._take(path, self._buffers[path], batch)
            if path in self._ready:
                del self._ready[path]
                self._ready[path] = None
        return batch

    def uneven(self, little: int, much: int) -> bool:
        """Whether no more than ``little`` bytes wait of some path, and more than ``much`` of another."""
        sizes = [self._buffers[path].bytes for path in self._ready]
        return bool(sizes) and min(sizes) <= little and max(sizes) > much

    def apart(self, much: int) -> tuple[list[str], list[str]]:
        """The paths of which more than ``much`` bytes wait, or something is parked; and the others of which anything
        does."""
        floods: list[str] = []
        others: list[str] = []
        for path in self._ready:
            buffer = self._buffers[path]
            (floods if buffer.parked or buffer.bytes > much else others).append(path)
        return floods, others

    def take_all(self) -> list[str]:
        """The replies of all that waits, which does not wait any more."""
        replies = [
            reply
            for buffer in self._buffers.values()
            for waiting in (buffer.seqs, buffer.parked)
            for reply in waiting.values()
        ]
        self._buffers.clear()
        self._ready.clear()
        self.bytes = 0
        return replies

    def drop(self, path: str) -> None:
        """Forget what waits under ``path``."""
        buffer = self._buffers.pop(path, None)
        if buffer is not None:
            self.bytes -= buffer.bytes
            self._ready.pop(path, None)

    # What is parked, and what waits.

    def room(self) -> list[str]:
        """The paths with something parked whose buffers are at most half full."""
        assert self._path_bytes is not None  # noqa: S101  # narrows the type; else nothing is parked
        half = self._path_bytes // 2
        return [path for path, buffer in self._buffers.items() if buffer.parked and buffer.bytes <= half]

    def parked_of(self, path: str) -> dict[int, str]:
        """What is parked under ``path``: replies by position, in the order in which it came. Not to be changed."""
        buffer = self._buffers.get(path)
        return buffer.parked if buffer is not None else {}

    def forget(self, path: str, seqs: Iterable[int]) -> None:
        """Have what is parked under ``path`` at ``seqs`` not wait any more."""
        buffer = self._buffers.get(path)
        if buffer is not None:
            for seq in seqs:
                buffer.parked.pop(seq, None)
            self._tidy(path, buffer)

    def positions(self) -> Iterator[tuple[str, int]]:
        """Path and position of all that waits, parked or buffered."""
        for path, buffer in self._buffers.items():
            for seq in buffer.seqs:
                yield path, seq
            for seq in buffer.parked:
                yield path, seq

    def reply(self, path: str, seq: int) -> str:
        """Where what waits at ``seq`` is answered; empty when it does not wait any more."""
        buffer = self._buffers.get(path)
        return "" if buffer is None else buffer.parked.get(seq) or buffer.seqs.get(seq, "")

    def _share(self, size: int, paths: int) -> int:
        return size // paths

    def _buffer(self, path: str) -> _Buffer[T]:
        buffer = self._buffers.get(path)
        if buffer is None:
            buffer = self._buffers[path] = _Buffer()
        return buffer

    def _append(self, buffer: _Buffer[T], item: T) -> None:
        buffer.parked.pop(item.stream_seq, None)
        buffer.seqs[item.stream_seq] = item.reply
        buffer.items.append(item)
        buffer.bytes += len(item.data)
        self.bytes += len(item.data)
        self._ready.setdefault(item.path)

    def _take(self, path: str, buffer: _Buffer[T], batch: list[T]) -> int:
        item = buffer.items.popleft()
        del buffer.seqs[item.stream_seq]
        size = len(item.data)
        buffer.bytes -= size
        self.bytes -= size
        batch.append(item)
        if not buffer.items:
            del self._ready[path]
            self._tidy(path, buffer)
        return size

    def _tidy(self, path: str, buffer: _Buffer[T]) -> None:
        if not buffer.items and not buffer.parked:
            del self._buffers[path]
