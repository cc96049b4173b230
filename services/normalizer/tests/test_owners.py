"""EVENTS gets nothing of a tenant who was deleted between commit and publish."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from backhaul_common.errors import BackhaulError, unavailable
from backhaul_normalizer import publisher as publisher_module
from backhaul_normalizer.model import Outgoing
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_testing import make
from normalizer_rig import RigFactory


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
