"""Certificates of this process: PEM files that are read again when they are replaced, and what is told of them.

Whoever renews a certificate replaces its files. Connections that stand keep what they have; each new one has the new.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from cryptography import x509

from backhaul_common.logs import get_logger
from backhaul_common.metering import Metrics
from backhaul_common.metrics import CERTIFICATE_EXPIRES, CERTIFICATE_REFUSED

T = TypeVar("T")
Stamp = tuple[tuple[int, int, int], ...]

LOOK_S = 2.0
"""How often the files are looked at. They may be links that are moved, on whatever file system a secret is mounted by,
which tells nobody of a change."""


class UnfitError(ValueError):
    """A certificate that cannot be used; the text says why, and names the file."""


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """What was made of the files, and from when to when the certificate is valid, in Unix time."""

    value: T
    begins: float
    ends: float

    def is_valid(self, now: float) -> bool:
        return self.begins <= now < self.ends


class Files(Generic[T]):
    """What ``make`` makes of a certificate, its key and whatever belongs to them; made anew when one of them was
    replaced. Any thread may ask for it.

    They are replaced one after another, so that a certificate may lie beside the key of its predecessor for a moment.
    What is unfit leaves what there was, and is tried again with each look: it may become valid, or become readable,
    while the files stay. What is not valid now is taken only in the place of what is not either.
    """

    def __init__(self, make: Callable[..., T], *paths: Path, now: Callable[[], float] = time.time) -> None:
        """``paths`` are what ``make`` takes: the certificate with its chain, its key, and more.

        UnfitError where they hold nothing that can be used. A certificate that has expired can: who does not look at
        that is still answered.
        """
        self._make = make
        self._paths = paths
        # Made once: a Path would make its name anew for each look.
        self._names = [os.fspath(path) for path in paths]
        self._now = now
        self._lock = Lock()
        self._unfit: tuple[Stamp, float] = ((), 0.0)
        """As the files were when they were found unfit last, and when."""
        self._stamp = self._stat()
        self._seen = self._read()
        self.made = self._load(self._seen)
        """As of the last look."""

    @property
    def is_valid(self) -> bool:
        return self.made.is_valid(self._now())

    def __str__(self) -> str:
        """For error texts."""
        return " and ".join(self._names)

    def current(self) -> T:
        """As the files are now, for whoever begins a connection."""
        self.renewed()
        return self.made.value

    def renewed(self) -> bool:
        """Whether what is current was made anew just now: of several that ask at once, one is told.

        It takes some microseconds where the file system says that no file has changed. What is unfit is not told of
        here; see ``Watched``.
        """
        with self._lock:
            stamp: Stamp = ()
            try:
                stamp = self._stat()
                if stamp == self._stamp:
                    return False
                # Each connection and each call asks, and to read an unfit one takes a millisecond.
                before, at = self._unfit
                if stamp == before and time.monotonic() - at < LOOK_S:
                    return False
                return self._look(stamp)
            except UnfitError:
                self._unfit = stamp, time.monotonic()
                return False

    def look(self) -> bool:
        """The same by what the files hold, whatever the file system says. UnfitError where that cannot be used."""
        with self._lock:
            return self._look(self._stat())

    def _look(self, stamp: Stamp) -> bool:
        seen = self._read()
        changed = seen != self._seen
        if changed:
            self.made = self._fit(seen)
        # Not before: what was unfit is looked at again.
        self._stamp, self._seen = stamp, seen
        return changed

    def _fit(self, seen: bytes) -> Made[T]:
        found, now = self._load(seen), self._now()
        if not found.is_valid(now) and self.made.is_valid(now):
            when = "not valid yet" if now < found.begins else "no longer valid"
            raise UnfitError(f"{self._names[0]}: it is {when}, and the one that is used is valid")
        return found

    def _stat(self) -> Stamp:
        try:
            return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in map(os.stat, self._names))
        except OSError as exc:
            raise UnfitError(f"{exc.filename}: {exc.strerror}") from exc

    def _read(self) -> bytes:
        parts = []
        for path in self._paths:
            try:
                parts.append(path.read_bytes())
            except OSError as exc:
                raise UnfitError(f"{path}: {exc.strerror}") from exc
        # The key itself is not kept here.
        return sha256(b"\0".join(parts)).digest() + parts[0]

    def _load(self, seen: bytes) -> Made[T]:
        try:
            leaf = x509.load_pem_x509_certificates(seen[sha256().digest_size :])[0]
            begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
            return Made(self._make(*self._paths), begins, ends)
        except (OSError, ValueError, x509.InvalidVersion) as exc:
            # OpenSSL's own words, which hold nothing of the files.
            raise UnfitError(f"{self}: {exc}") from exc


class Watched:
    """A certificate whose files are looked at all the time, whether or not somebody connects."""

    def __init__(self, name: str, files: Files[T]) -> None:
        """``name`` is the certificate's in metrics and in the log."""
        self._files: Files[T] = files
        self._log = get_logger(component="certificate").bind(certificate=name)
        self._doubt = ""
        """Why the last look found the files unfit. One file may be replaced already and the other not yet."""
        self.refusal = ""
        """The same, once two looks in a row have found it."""
        if not files.is_valid:
            self._log.error("certificate_not_valid", files=str(files), **self._until)

    @property
    def ends(self) -> float:
        """When the one that is used expires, in Unix time."""
        return self._files.made.ends

    async def watch(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Have what the files hold used, if it has changed and is fit; otherwise say so once."""
        try:
            changed = self._files.look()
        except UnfitError as error:
            self._refuse(str(error))
            return
        self._doubt = self.refusal = ""
        if changed:
            self._log.info("certificate_loaded", **self._until)

    @property
    def _until(self) -> dict[str, str]:
        return {"valid_until": datetime.fromtimestamp(self.ends, UTC).isoformat()}

    def _refuse(self, why: str) -> None:
        doubt, self._doubt = self._doubt, why
        if doubt == why != self.refusal:
            self.refusal = why
            self._log.error("certificate_refused", error=why, **self._until)


class Certificates:
    """Those of a process, each by a name, in its metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._watched: dict[str, Watched] = {}
        metrics.gauges(CERTIFICATE_EXPIRES, lambda: {name: one.ends for name, one in self._all()})
        metrics.gauges(CERTIFICATE_REFUSED, lambda: {name: float(bool(one.refusal)) for name, one in self._all()})

    def add(self, name: str, files: Files[T]) -> Watched:
        """Tell of one more from now on; somebody has to ``watch`` it."""
        watched = self._watched[name] = Watched(name, files)
        return watched

    def _all(self) -> Sequence[tuple[str, Watched]]:
        # A copy: metrics are collected by a thread of their own.
        return list(self._watched.items())
