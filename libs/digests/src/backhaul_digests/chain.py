"""Walking a chain of digests from its end to its beginning."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec

from backhaul_digests.digest import Seen, look
from backhaul_digests.files import DELETED, check_file
from backhaul_digests.findings import Problem, Tally
from backhaul_digests.line import DigestLine, chain_prefix, iso, named
from backhaul_digests.model import ChainKey, Digest, Finding, Subject
from backhaul_digests.ports import Place, PublicKeys, Stored

MAX_MISSING = 1000
"""Files that are not there and of which it is told together, about: see ``ChainWalk``."""


@dataclass(frozen=True, slots=True)
class Span:
    """Digests that end after the one time and begin before the other, unix time in microseconds; 0 is open."""

    from_us: int = 0
    to_us: int = 0

    def begins_in(self, from_us: int) -> bool:
        """Whether what begins at ``from_us`` begins before the span is over."""
        return not self.to_us or from_us < self.to_us

    def ends_in(self, to_us: int) -> bool:
        """Whether what ends at ``to_us`` ends after the span has begun."""
        return to_us > self.from_us

    def has(self, from_us: int, to_us: int) -> bool:
        """Whether what lies between the two belongs to it."""
        return self.begins_in(from_us) and self.ends_in(to_us)


class _Numbers:
    """Numbers of files, as bits: years of them in a megabyte."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        byte, bit = divmod(number, 8)
        self._bits.extend(bytes(max(0, byte + 1 - len(self._bits))))
        self._bits[byte] |= 1 << bit

    def __contains__(self, number: int) -> bool:
        byte, bit = divmod(number, 8)
        return byte < len(self._bits) and bool(self._bits[byte] & 1 << bit)


class ChainWalk:
    """Checks one chain. It goes backwards, so that it knows of a file's deletion before it comes to the file, and of
    each digest what the one after it says.

    Digests after the span are read for what they say of deletions, and the one before it for the link to it. So are
    those that are signed meanwhile, before a file is said to be missing: reading everything takes longer than an hour.
    """

    def __init__(
        self, stored: Stored, keys: PublicKeys, of: ChainKey, span: Span, unknown: set[str], tally: Tally
    ) -> None:
        """What is found of the hashes ``unknown`` is taken from them. ``tally`` is told which span was found."""
        self._stored = stored
        self._keys = keys
        self._of = of
        self._span = span
        self._unknown = unknown
        self._tally = tally
        self._deleted = _Numbers()
        self._newest = ""
        """The last digest that was listed."""
        self._not_there: list[tuple[int, Finding]] = []
        """Files by their numbers, of which it is not told yet."""
        self._invalid: dict[str, int] = {}
        """Objects that are no valid digests, and the numbers in their names."""
        self._next_file = 0
        """The number of the first file of the digests that were seen; 0 before there is one."""

    async def findings(self, last: Digest | None = None) -> AsyncIterator[Finding]:
        """All that is found. ``last`` is a digest that must be there, since whoever keeps the chain knows of it."""
        keys = await self._list()
        # Where it is not, all between it and the last one that is there was taken away with it.
        absent = msgspec.json.decode(last.line, type=DigestLine) if last is not None and last.key not in keys else None
        if absent is not None and self._span.has(absent.from_us, absent.to_us):
            place = Place("", absent.digest_bucket, absent.digest_object)
            yield self._finding(place, Problem.NOT_FOUND, "It is the last one of its chain, and it is not there.")
        after: Seen | None = None
        begun = False
        while keys and not begun:
            seen = await self._look(keys.pop(), last)
            if seen.said is None:
                told, begun = self._unusable(seen, keys)
                if told:
                    yield seen.finding
                continue
            async for finding in self._between(after or absent, seen):
                yield finding
            begun = not self._span.ends_in(seen.said.to_us)
            after, absent = None if begun else seen, None
        async for finding in self._between(after or absent, None):
            yield finding
        async for finding in self._missed():
            yield finding
        while keys and self._unknown:
            await self._look(keys.pop(), None)

    def _unusable(self, seen: Seen, keys: Sequence[str]) -> tuple[bool, bool]:
        """Of what is no valid digest: whether it is told of, and whether the span begins behind it. ``keys`` are those
        before it."""
        # All that is known of it is its name.
        end_us, number = named(seen.place.key) or (0, 0)
        self._invalid[seen.place.key] = number
        if number > 0 and not self._span.ends_in(end_us + 999_999):
            return False, True
        before = named(keys[-1]) if keys else None
        return not number or self._span.begins_in(before[0] if before else 0), False

    async def _between(self, after: Seen | DigestLine | None, before: Seen | None) -> AsyncIterator[Finding]:
        """What is found of ``after``, and between it and ``before``; nothing of the line of one that is not there."""
        if isinstance(after, Seen):
            async for finding in self._settled(after, before):
                yield finding
        elif after is not None:
            for finding in self._missing(after, before.said if before else None):
                yield finding

    async def _list(self) -> list[str]:
        """The keys of the digests that came behind what was listed before."""
        keys = sorted({key async for key in self._stored.digests(chain_prefix(self._of)) if key > self._newest})
        self._newest = keys[-1] if keys else self._newest
        return keys

    async def _look(self, key: str, last: Digest | None) -> Seen:
        seen = await look(self._stored, self._keys, self._of, key)
        self._unknown.discard(seen.hash)
        if last is not None and seen.said is not None and key == last.key and seen.hash != last.hash:
            detail = f"It is signed, and not the digest that was recorded: that one's hash is {last.hash}."
            return replace(seen, finding=self._finding(seen.place, Problem.UNKNOWN_HEAD, detail), said=None)
        for entry in seen.said.deletions if seen.said else ():
            self._deleted.add(entry.number)
        return seen

    async def _settled(self, seen: Seen, before: Seen | None) -> AsyncIterator[Finding]:
        """What is found of a valid digest and its files, and of what should be between it and ``before``, the valid one
        before it."""
        said, said_before = seen.said, before.said if before else None
        if said is None:
            return
        if self._span.has(said.from_us, said.to_us):
            self._tally.cover(said.from_us, said.to_us)
            yield self._linked(seen, said, before)
            for entry in said.files:
                finding = await check_file(self._stored, self._of.chain, entry, deleted=entry.number in self._deleted)
                if finding.problem == Problem.NOT_FOUND:
                    self._not_there.append((entry.number, finding))
                else:
                    yield finding
            if len(self._not_there) >= MAX_MISSING:
                async for finding in self._missed():
                    yield finding
            for finding in self._files_missing(said):
                yield finding
        for finding in self._missing(said, said_before):
            yield finding

    async def _missed(self) -> AsyncIterator[Finding]:
        """Tell of files that are not there, if nothing that was signed since says that they may be gone."""
        if self._not_there:
            for key in await self._list():
                await self._look(key, None)
        for number, finding in self._not_there:
            yield finding._replace(problem="", detail=DELETED) if number in self._deleted else finding
        self._not_there.clear()

    def _linked(self, seen: Seen, said: DigestLine, before: Seen | None) -> Finding:
        claim = (
            said.previous_digest_bucket,
            said.previous_digest_object,
            said.previous_digest_hash_value,
            said.previous_digest_signature,
        )
        if (said.digest_number == 1) != (claim == (None,) * 4) or (said.digest_number > 1 and None in claim):
            return self._finding(seen.place, Problem.PREVIOUS, "What it says of the digest before it makes no sense.")
        if before is not None and before.said is not None and before.said.digest_number >= said.digest_number - 1:
            fact = (before.place.bucket, before.place.key, before.hash, before.signature)
            if claim != fact:
                detail = f"It was signed after another digest than {before.place.name}."
                return self._finding(seen.place, Problem.PREVIOUS, detail)
        return seen.finding

    def _missing(self, said: DigestLine, before: DigestLine | None) -> Iterator[Finding]:
        """What is found of the digests, or of the time, between two valid digests."""
        since_us = before.to_us if before else self._span.from_us
        if not self._span.has(since_us, said.from_us):
            return
        first, number = before.digest_number + 1 if before else 1, said.digest_number - 1
        if first > number:
            if before is not None and before.to_us != said.from_us:
                yield self._gap(before.to_us, said.from_us, "No digest covers this time.")
            return
        self._next_file = 0
        if (key := said.previous_digest_object or "") not in self._invalid:
            place = Place("", said.previous_digest_bucket or "", key)
            yield self._finding(place, Problem.NOT_FOUND, f"It is not there, and digest {said.digest_number} names it.")
        known = {other for other in self._invalid.values() if first <= other < number}
        if lost := number - first - len(known):
            yield self._gap(since_us, said.from_us, f"{lost} more digests before number {number} are not there.")

    def _files_missing(self, said: DigestLine) -> Iterator[Finding]:
        """Files have numbers without gaps, over all digests of a chain."""
        numbers = [entry.number for entry in said.files]
        expected = list(range(numbers[0], numbers[0] + len(numbers))) if numbers else []
        if numbers != expected or (numbers and self._next_file and numbers[-1] + 1 != self._next_file):
            yield self._gap(said.from_us, said.to_us, "A file that was sealed is in no digest.")
        self._next_file = numbers[0] if numbers else self._next_file
        if said.digest_number == 1 and self._next_file > 1:
            yield self._gap(said.from_us, said.to_us, "The first files that were sealed are in no digest.")

    def _gap(self, from_us: int, to_us: int, detail: str) -> Finding:
        name = f"{iso(from_us) if from_us else 'the beginning'} to {iso(to_us)}"
        return Finding(self._of.chain, Subject.SPAN, name, Problem.GAP, detail)

    def _finding(self, place: Place, problem: Problem, detail: str) -> Finding:
        return Finding(self._of.chain, Subject.DIGEST, place.name, problem, detail)


async def verify(
    stored: Stored,
    keys: PublicKeys,
    chains: Collection[ChainKey],
    span: Span,
    heads: Collection[str],
    tally: Tally,
    last: Mapping[ChainKey, Digest] = MappingProxyType({}),
) -> AsyncGenerator[Finding, None]:
    """All that is found of ``chains`` in a span of time; ``tally`` counts it.

    ``heads`` are hashes of digests that somebody has kept: each must be there, whatever the span. ``last`` are digests
    of which it is known that they are there. Raises what ``stored`` raises where it does not answer.
    """
    unknown = {head.strip().lower() for head in heads}
    for of in chains:
        walk = ChainWalk(stored, keys, of, span, unknown, tally)
        async for finding in walk.findings(last.get(of)):
            tally.add(finding)
            yield finding
    for head in sorted(unknown):
        detail = "No digest that is there has this hash: what was signed was taken away, or written anew."
        finding = Finding(None, Subject.DIGEST, head, Problem.UNKNOWN_HEAD, detail)
        tally.add(finding)
        yield finding
