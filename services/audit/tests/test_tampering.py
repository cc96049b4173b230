"""Whatever is done to a bucket is named for what it is, by each of the three who verify alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from backhaul_audit.model import SealedFile
from backhaul_digests.line import signature_line, to_object
from backhaul_digests.model import Chain, ChainKey, Digest
from backhaul_digests.signing import SigningKey
from signed_world import ACME, Found, World, day, resigned

EVENTS = ChainKey(ACME, Chain.EVENTS)


@dataclass
class Scene:
    """A day that was signed; what is done to it takes place here."""

    world: World

    def file(self, number: int) -> SealedFile:
        """A file of the chain of events."""
        return self.world.files[EVENTS][number - 1]

    def digest(self, number: int) -> Digest:
        """A digest of the chain of events; -1 is the last."""
        made = self.world.digests_made[EVENTS]
        return made[number - 1 if number > 0 else number]

    def edit(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Change an object's bytes."""
        self.world.objects[key] = change(self.world.objects[key])

    def found(self, number: int, problem: str) -> Found:
        """What should be found of a file."""
        return {("file", self.file(number).plan.key, problem)}

    def found_digest(self, number: int, problem: str) -> Found:
        """What should be found of a digest."""
        return {("digest", self.digest(number).key, problem)}


Tampering = Callable[[Scene], Found]


def flip(at: int) -> Callable[[bytes], bytes]:
    """Change one bit of the byte ``at``."""
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if at >= 0 else flip(len(data) + at)(data)


def bit_of_a_file(scene: Scene) -> Found:
    scene.edit(scene.file(2).plan.key, flip(3))
    return scene.found(2, "hash")


def bit_of_a_compressed_file(scene: Scene) -> Found:
    scene.edit(scene.file(3).plan.key, flip(20))
    return scene.found(3, "hash")


def dropped_file(scene: Scene) -> Found:
    del scene.world.objects[scene.file(3).plan.key]
    return scene.found(3, "not_found")


def swapped_files(scene: Scene) -> Found:
    two, three = scene.file(2).plan.key, scene.file(4).plan.key
    objects = scene.world.objects
    objects[two], objects[three] = objects[three], objects[two]
    return scene.found(2, "hash") | scene.found(4, "hash")


def truncated_file(scene: Scene) -> Found:
    scene.edit(scene.file(3).plan.key, lambda data: data[:-3])
    return scene.found(3, "hash")


def emptied_file(scene: Scene) -> Found:
    scene.edit(scene.file(2).plan.key, lambda _: b"")
    return scene.found(2, "hash")


def bytes_behind_the_compressed_data(scene: Scene) -> Found:
    scene.edit(scene.file(3).plan.key, lambda data: data + b'{"more":1}\n')
    return scene.found(3, "trailing_data")


def many_bytes_behind_the_compressed_data(scene: Scene) -> Found:
    scene.edit(scene.file(3).plan.key, lambda data: data + bytes(3 << 20))
    return scene.found(3, "trailing_data")


def bytes_behind_plain_data(scene: Scene) -> Found:
    scene.edit(scene.file(2).plan.key, lambda data: data + b'{"more":1}\n')
    return scene.found(2, "hash")


def moved_file(scene: Scene) -> Found:
    key = scene.file(2).plan.key
    scene.world.objects[key.replace("dt=2026-01-15", "dt=2026-01-16")] = scene.world.objects.pop(key)
    return scene.found(2, "not_found")


def bit_of_a_digest(scene: Scene) -> Found:
    scene.edit(scene.digest(2).key, lambda data: data.replace(b'"events":2', b'"events":3', 1))
    return scene.found_digest(2, "signature")


def bit_of_a_signature(scene: Scene) -> Found:
    digest = scene.digest(2)
    other = scene.digest(3).signature
    scene.edit(digest.key, lambda data: data.replace(digest.signature.encode(), other.encode()))
    return scene.found_digest(2, "signature")


def moved_digest(scene: Scene) -> Found:
    key = scene.digest(2).key
    moved = key.replace("_00000002", "_00000009")
    scene.world.objects[moved] = scene.world.objects.pop(key)
    return scene.found_digest(2, "not_found") | {("digest", moved, "moved")}


def copied_digest(scene: Scene) -> Found:
    copy = scene.digest(3).key.replace("/2026/01/15/", "/2026/01/16/")
    scene.world.objects[copy] = scene.world.objects[scene.digest(3).key]
    return {("digest", copy, "moved")}


def digest_of_another_chain(scene: Scene) -> Found:
    (backfill,) = scene.world.digests_made[ChainKey(ACME, Chain.BACKFILL)]
    copy = backfill.key.replace("/backfill/", "/events/")
    scene.world.objects[copy] = scene.world.objects[backfill.key]
    return {("digest", copy, "moved")}


def deleted_digest(scene: Scene) -> Found:
    del scene.world.objects[scene.digest(3).key]
    return scene.found_digest(3, "not_found")


def several_deleted_digests(scene: Scene) -> Found:
    for number in (2, 3, 4):
        del scene.world.objects[scene.digest(number).key]
    return scene.found_digest(4, "not_found") | {("span", "", "gap")}


def deleted_first_digest(scene: Scene) -> Found:
    del scene.world.objects[scene.digest(1).key]
    return scene.found_digest(1, "not_found")


def forged_under_a_known_name(scene: Scene) -> Found:
    digest = scene.digest(3)
    forged = resigned(digest, SigningKey.new(), files=[])
    scene.world.put(replace(forged, key_id=digest.key_id))
    return scene.found_digest(3, "signature")


def forged_by_another_key(scene: Scene) -> Found:
    key = SigningKey.new()
    scene.world.put(resigned(scene.digest(3), key, digestPublicKeyId=key.id))
    return scene.found_digest(3, "key_not_found")


def changed_and_signed_by_another_key(scene: Scene) -> Found:
    scene.world.put(resigned(scene.digest(2), SigningKey.new(), files=[]))
    return scene.found_digest(2, "key_not_found")


def written_anew_by_the_key(scene: Scene) -> Found:
    # Whoever has the key can sign anything, but the digest after it was signed after another one.
    world = scene.world
    first_key = world.keys[scene.digest(2).key_id]
    assert first_key != world.key.public
    world.put(resigned(scene.digest(5), world.key, deletions=[]))
    return scene.found(1, "not_found") | scene.found_digest(6, "previous")


def no_signature(scene: Scene) -> Found:
    scene.edit(scene.digest(2).key, lambda data: data.partition(b"\n")[0] + b"\n")
    return scene.found_digest(2, "invalid_format")


def two_signatures(scene: Scene) -> Found:
    digest = scene.digest(2)
    scene.edit(digest.key, lambda data: data + signature_line(digest.key_id, digest.signature) + b"\n")
    return scene.found_digest(2, "invalid_format")


def no_json(scene: Scene) -> Found:
    scene.edit(scene.digest(2).key, lambda data: data[1:])
    return scene.found_digest(2, "invalid_format")


def json_without_end(scene: Scene) -> Found:
    scene.edit(scene.digest(2).key, lambda data: b"[" * 200_000 + data)
    return scene.found_digest(2, "invalid_format")


def something_else_among_the_digests(scene: Scene) -> Found:
    scene.world.objects[f"digests/{EVENTS.id}/2026/readme.txt"] = b"hello\n"
    return {("digest", f"digests/{EVENTS.id}/2026/readme.txt", "invalid_format")}


def wrong_key_in_the_key_file(scene: Scene) -> Found:
    signed_by = scene.digest(1).key_id
    scene.world.keys[signed_by] = SigningKey.new().public
    by_it = [one for made in scene.world.digests_made.values() for one in made if one.key_id == signed_by]
    assert len(by_it) == 4
    return {("digest", one.key, "key_not_found") for one in by_it}


def wrong_count(scene: Scene) -> Found:
    # Only whoever has the key can do it: an event fewer than was signed.
    file = scene.world.file(b'{"g":7}', b'{"h":8}')
    lying = replace(file, content=replace(file.content, events=3))
    scene.world.digest(files=[lying])
    return {("file", file.plan.key, "count")}


def wrong_inflated_hash(scene: Scene) -> Found:
    file = scene.world.file(b'{"g":7}', b'{"h":8}')
    lying = replace(file, content=replace(file.content, inflated_sha256="0" * 64))
    scene.world.digest(files=[lying])
    return {("file", file.plan.key, "inflated_hash")}


def file_that_was_never_listed(scene: Scene) -> Found:
    # Only whoever has the key can do it: files are numbered over all digests of a chain.
    scene.world.file(b'{"g":7}')
    scene.world.file(b'{"h":8}')
    scene.world.digest(files=scene.world.files[EVENTS][-1:])
    return {("span", "", "gap")}


def event_added(scene: Scene) -> Found:
    scene.edit(scene.file(2).plan.key, lambda data: data + data)
    return scene.found(2, "hash")


def event_removed(scene: Scene) -> Found:
    scene.edit(scene.file(4).plan.key, lambda data: data.replace(b'{"f":6}\n', b""))
    return scene.found(4, "hash")


TABLE: list[Tampering] = [
    bit_of_a_file,
    bit_of_a_compressed_file,
    dropped_file,
    swapped_files,
    truncated_file,
    emptied_file,
    bytes_behind_the_compressed_data,
    many_bytes_behind_the_compressed_data,
    bytes_behind_plain_data,
    moved_file,
    bit_of_a_digest,
    bit_of_a_signature,
    moved_digest,
    copied_digest,
    digest_of_another_chain,
    deleted_digest,
    several_deleted_digests,
    deleted_first_digest,
    forged_under_a_known_name,
    forged_by_another_key,
    changed_and_signed_by_another_key,
    written_anew_by_the_key,
    no_signature,
    two_signatures,
    no_json,
    json_without_end,
    something_else_among_the_digests,
    wrong_key_in_the_key_file,
    wrong_count,
    wrong_inflated_hash,
    file_that_was_never_listed,
    event_added,
    event_removed,
]


@pytest.mark.parametrize("tampering", TABLE, ids=lambda tampering: tampering.__name__)
def test_it_is_named_for_what_it_is(tampering: Tampering, tmp_path: Path) -> None:
    scene = Scene(day())
    expected = tampering(scene)

    found, summary = scene.world.by_service()
    assert found == expected
    assert scene.world.by_command(tmp_path / "command") == (expected, summary, 1)
    assert scene.world.by_script(tmp_path / "script") == (expected, summary, 1)


def last_digest(scene: Scene) -> None:
    del scene.world.objects[scene.digest(-1).key]


def old_bucket(scene: Scene) -> None:
    for number in (3, 4, 5, 6):
        del scene.world.objects[scene.digest(number).key]
    scene.world.objects |= scene.world.deleted


def written_anew_from_its_beginning(scene: Scene) -> None:
    # Whoever has a key that is known makes another chain of the same length.
    world = scene.world
    again = day()
    world.keys |= again.keys
    for made in again.digests_made[EVENTS]:
        world.put(made)


@pytest.mark.parametrize("tampering", [last_digest, old_bucket, written_anew_from_its_beginning])
def test_only_who_kept_a_hash_finds_what_is_whole_in_itself(tampering: Callable[[Scene], None], tmp_path: Path) -> None:
    scene = Scene(day())
    head = scene.digest(-1).hash
    tampering(scene)

    assert scene.world.by_service()[0] == set()
    assert scene.world.by_command(tmp_path / "a")[2] == 0
    assert scene.world.by_script(tmp_path / "b")[2] == 0

    expected = {("digest", head, "unknown_head")}
    found, summary = scene.world.by_service([head])
    assert found == expected
    assert scene.world.by_command(tmp_path / "c", [head]) == (expected, summary, 1)
    assert scene.world.by_script(tmp_path / "d", [head]) == (expected, summary, 1)


def test_every_byte_below_the_signed_line_counts() -> None:
    world = World()
    digest = world.digest()
    whole = to_object(digest.line, digest.key_id, digest.signature)
    for at in range(len(digest.line), len(whole)):
        for changed in (bytes([whole[at] ^ 1]), b"", whole[at : at + 1] + b" "):
            world.objects[digest.key] = whole[:at] + changed + whole[at + 1 :]
            assert world.by_service()[0], (at, changed)
