"""EVENTS gets nothing of a tenant who was deleted between commit and publish."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import pytest
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_common.fence import Living
from backhaul_normalizer import publisher as publisher_module
from backhaul_normalizer.fenced import Fenced
from backhaul_normalizer.model import Outgoing
from backhaul_normalizer.store import MongoEventStore
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_testing import make
from normalizer_rig import RigFactory
from tellings import batch_of, told


def event(event_id: str, path: str, registration: str) -> Outgoing:
    payload = Event(id=event_id, registration=registration).SerializeToString()
    return Outgoing(event_id, 1, path, "twilio", "sent", payload, registration)


async def test_what_is_gone_by_the_time_of_the_publish_is_left_out(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        acme = make.tenant("acme")
        doomed = make.tenant("doomed").model_copy(update={"status": "deleting"})
        heir = make.tenant("heir").model_copy(update={"registration": "heir.2"})
        await rig.register(acme, doomed, heir)
        publisher = await rig.publisher()
        await publisher.publish(
            [
                event("1", "path-acme", "acme.1"),
                event("2", "path-doomed", "doomed.1"),
                event("3", "path-heir", "heir.1"),
                event("4", "path-heir", "heir.2"),
                event("5", "path-nobody", "nobody.1"),
            ],
            "",
        )
        assert {(one.id, one.registration) for one in await rig.published()} == {("1", "acme.1"), ("4", "heir.2")}


async def test_an_answer_is_not_believed_for_long(rig_factory: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_ASKED_FOR_S", 0)
    async with rig_factory(copies=0) as rig:
        answers = [{"path-acme": "acme.1"}, {}]
        asked: list[Collection[str]] = []

        async def changing(paths: Collection[str]) -> Mapping[str, str]:
            asked.append(paths)
            return answers[len(asked) - 1]

        publisher = await rig.publisher(changing)
        await publisher.publish([event("1", "path-acme", "acme.1")], "")
        assert asked == [{"path-acme"}, {"path-acme"}]
        assert await rig.published() == []


async def test_nothing_is_published_while_nobody_can_be_asked(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:

        async def away(_: Collection[str]) -> Mapping[str, str]:
            raise unavailable("MongoDB")

        publisher = await rig.publisher(away)
        with pytest.raises(BackhaulError, match="MongoDB is away"):
            await publisher.publish([event("1", "path-acme", "acme.1")], "")
        assert await rig.published() == []


async def test_what_a_commit_was_told_is_believed_as_long(rig_factory: RigFactory) -> None:
    async with rig_factory(copies=0) as rig:
        clock = Clock()
        asked: list[Collection[str]] = []

        async def asking(paths: Collection[str]) -> Mapping[str, str]:
            asked.append(paths)
            return {"acme": "acme.1"}

        fenced = Fenced(clock)
        publisher = await rig.publisher(asking, fenced)
        await rig.register(make.tenant("acme").model_copy(update={"queue_path": "acme"}))
        store = MongoEventStore(rig.client, rig.database, fenced=fenced)
        await store.prepare()
        clock.now = time.monotonic()
        await store.commit(batch_of([told()]), [])
        await publisher.publish([event("1", "acme", "acme.1"), event("2", "acme", "other.1")], "")
        assert asked == []
        assert [one.id for one in await rig.published()] == ["1"]
        # Of a path that no commit was told of, MongoDB is asked; and of each once it was told too long ago.
        await publisher.publish([event("3", "acme", "acme.1"), event("4", "globex", "globex.1")], "")
        assert asked == [{"acme", "globex"}]
        clock.now += 3600
        await publisher.publish([event("5", "acme", "acme.1")], "")
        assert asked[1:] == [{"acme"}]


def test_the_oldest_of_what_was_told_counts_and_is_forgotten() -> None:
    clock = Clock()
    fenced = Fenced(clock)
    fenced.told([Living("acme.1", "a"), Living("globex.1", "g")], 100.0)
    fenced.told([Living("acme.2", "a")], 100.5)
    clock.now = 101.0
    assert fenced.owners(["a", "g"], 1.0) == (100.0, {"a": "acme.2", "g": "globex.1"})
    assert fenced.owners(["a"], 0.5) == (100.5, {"a": "acme.2"})
    assert fenced.owners(["a", "g"], 0.9) is None
    assert fenced.owners(["a", "nobody"], 1.0) is None
    fenced.told([], 111.0)
    assert fenced.owners(["g"], 1e9) is None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
