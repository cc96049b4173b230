"""Servers go away and come back, buckets are wrong, tenants go, and the normalizer repeats itself.

Servers are started again by the thread of the session: they end with the thread that started them.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from backhaul_audit.documents import ABANDONED
from backhaul_audit.states import MongoStates
from backhaul_audit.tenancy import AuditTenantData
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import AUDIT_FILES_COLLECTION, TENANTS_COLLECTION
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat
from backhaul_common.tenants import Tenant
from backhaul_local.mongod import MongoServer
from backhaul_local.nats_server import NatsServer
from backhaul_local.object_store import ObjectStoreServer
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_REPLAY
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_testing import make
from backhaul_testing.waiting import until
from filing_rig import KEY, Objects, Rig, asking, event
from lying_s3 import BUCKET, Answer, LyingS3, error

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def problem_of(filing: Rig, of: Tenant, channel: str) -> str:
    """What keeps the channel's files from being written, once something does."""
    states = MongoStates(filing.database)

    async def wrong() -> str | None:
        waiting = {one.channel: one for one in await states.waiting(of.registration)}
        return waiting[channel].problem or None if channel in waiting else None

    return await until("a problem", wrong, within_s=60)


async def test_object_storage_away_and_back(filing: Rig, s3_server: ObjectStoreServer) -> None:
    acme = asking("acme")
    await filing.register(acme)
    filing.start()
    first = [event(acme, f"first-{one}") for one in range(20)]
    await filing.publish(acme, *first)
    await filing.sealed(20)
    s3_server.kill_blocking()
    try:
        second = [event(acme, f"second-{one}") for one in range(20)]
        await filing.publish(acme, *second)
        assert await problem_of(filing, acme, "sendgrid")
        assert sum(file.content.events for file in await filing.files()) == 20
    finally:
        s3_server.start_blocking()
    await filing.sealed(40)
    await filing.check([*first, *second])


async def test_every_server_is_killed_and_comes_back(
    filing: Rig, s3_server: ObjectStoreServer, mongo_server: MongoServer, fresh_nats: NatsServer
) -> None:
    """While events come; what is published once NATS has acknowledged it lies in exactly one file."""
    acme = asking("acme", gzip=True)
    await filing.register(acme)
    filing.start(audit_max_file_age_s=0.5)
    events: list[Event] = []
    for number, server in enumerate((mongo_server, s3_server, fresh_nats)):
        before = [event(acme, f"{number}-before-{one}") for one in range(20)]
        await filing.publish(acme, *before)
        server.kill_blocking()
        server.start_blocking()
        events += before

        after = [event(acme, f"{number}-after-{one}") for one in range(20)]

        async def publishes(after: list[Event] = after) -> bool:
            try:
                await filing.publish(acme, *after)
            except Exception:  # noqa: BLE001  # nats-py raises whatever it likes while it reconnects
                return False
            return True

        await until("a publish", publishes)
        events += after
    await filing.sealed(len(events), within_s=120)
    await filing.check(events)


def with_own_bucket(of: Tenant, endpoint: str, bucket: str, server: ObjectStoreServer) -> Tenant:
    """The tenant, whose channel Twilio has a bucket at ``endpoint``."""
    keys = {"access_key": server.config.access_key, "secret_key": server.config.secret_key}
    own = {"enabled": True, "bucket": {"endpoint": endpoint, "region": "us-east-1", "bucket": bucket}}
    twilio = of.channels["twilio"].model_copy(
        update={"settings": {"audit": own}, "audit_credentials": SecretBox([KEY]).encrypt(json.dumps(keys))}
    )
    return of.model_copy(update={"channels": {**of.channels, "twilio": twilio}, "revision": of.revision + 1})


async def test_a_bucket_of_a_channels_own_keeps_nobody_elses_files_waiting(
    filing: Rig, s3_server: ObjectStoreServer
) -> None:
    """Not even when what waits for it is more than memory may hold. Once it is mended all of it is filed."""
    acme, globex = asking("acme"), asking("globex")
    nowhere = with_own_bucket(acme, "http://127.0.0.1:1", filing.bucket, s3_server)
    await filing.register(nowhere, globex)
    filing.start(audit_memory_bytes=16 << 20)
    text = "x" * 100_000

    def large(name: str) -> Any:
        one = event(nowhere, name, channel="twilio")
        one.raw = json.dumps({**json.loads(one.raw), "text": text}).encode()
        return one

    theirs = [large(f"large-{number}") for number in range(250)]
    ours = []
    for number in range(0, 250, 5):
        await filing.publish(nowhere, *theirs[number : number + 5])
        ours += [event(globex, f"{number}-{one}") for one in range(5)]
        await filing.publish(globex, *ours[-5:])
    await filing.sealed(len(ours))
    assert await problem_of(filing, nowhere, "twilio")
    await filing.register(with_own_bucket(nowhere, s3_server.uri, filing.bucket, s3_server))
    await filing.sealed(len(ours) + len(theirs), within_s=120)
    await filing.check([*ours, *theirs])


async def test_what_nobody_wants_any_more_makes_room(filing: Rig, s3_server: ObjectStoreServer) -> None:
    """An installation without object storage: what has no place fills memory, until its channel stops asking."""
    acme, globex = asking("acme"), with_own_bucket(asking("globex"), s3_server.uri, filing.bucket, s3_server)
    await filing.register(acme, globex)
    filing.start(object_store_endpoint="", audit_memory_bytes=16 << 20)
    text = "x" * 100_000
    for number in range(40):
        await filing.publish(acme, *(event(acme, f"{number}-{one}", raw=text.encode()) for one in range(5)))
    assert await problem_of(filing, acme, "sendgrid")
    ours = [event(globex, "waits", channel="twilio")]
    await filing.publish(globex, *ours)
    await filing.register(make.tenant(acme.id, twilio={}, sendgrid={}).model_copy(update={"revision": 2}))
    await filing.sealed(1, within_s=30)
    await filing.check(ours)


async def test_what_the_normalizer_repeats_is_left_out(filing: Rig) -> None:
    """Marked messages, and unmarked ones of a publisher that was slow: in open piles, sealed files, after a kill."""
    acme = asking("acme")
    await filing.register(acme)
    copy = filing.start()
    events = [event(acme, f"first-{one}") for one in range(20)]
    await filing.publish(acme, *events)
    await filing.sealed(20)
    # In sealed files, with one that is new, and a revision that is.
    new = [event(acme, "new"), event(acme, "first-3", revision=1)]
    await filing.publish(acme, *events[:10], *new, again=True)
    await filing.sealed(22)
    filing.kill(copy)
    # A message that was marked and brought what is in no file yet, and then the same from the slow publisher: once on
    # the pile of a copy that began after a kill.
    late = [event(acme, f"late-{one}") for one in range(10)]
    await filing.publish(acme, *late, again=True)
    await filing.publish(acme, *late)
    await filing.publish(acme, *events[:5])  # The first publisher of the first repetition.
    copy = filing.start(audit_max_file_age_s=2)
    await filing.sealed(32)
    last = [event(acme, "last")]
    await filing.publish(acme, *late, *last, again=True)
    await filing.publish(acme, *late, *events[:10])
    await filing.sealed(33)
    end = [event(acme, "end")]
    await filing.publish(acme, *end)
    await filing.sealed(34)
    await filing.check([*events, *new, *late, *last, *end])


async def test_a_tenant_that_goes_takes_what_was_being_made_with_it(filing: Rig, s3_server: ObjectStoreServer) -> None:
    """While its files cannot be uploaded: nothing more is made of them, and its documents can be deleted."""
    acme, globex = asking("acme"), asking("globex")
    await filing.register(acme, globex)
    filing.start()
    s3_server.kill_blocking()
    files = filing.database[AUDIT_FILES_COLLECTION]
    objects = Objects()
    data = AuditTenantData(filing.database, StoreFormat(filing.database), objects)
    try:
        # Of one message, so that both its files are closed before the bucket is known to be away.
        await filing.publish(acme, event(acme, "one"), event(acme, "one-more", source=SOURCE_REPLAY))
        ours = [event(globex, "two")]
        await filing.publish(globex, *ours)

        async def recorded() -> bool:
            return await files.count_documents({"registration": acme.registration, "state": "recorded"}) == 2

        await until("two plans", recorded, within_s=60)
        going = acme.model_copy(update={"status": "deleting", "revision": 2})
        await filing.register(going)
        with pytest.raises(BackhaulError) as raised:
            await data.purge(acme.id, acme.registration)
        assert raised.value.code is Code.UNAVAILABLE

        async def given_up() -> bool:
            return await files.find_one({"registration": acme.registration, "state": ABANDONED}) is not None

        await until("the end of its plan", given_up, within_s=60)
        await data.purge(acme.id, acme.registration)
        assert [key.startswith("tenants/acme.1/") for key in objects.deleted] == [True, True]
        assert await files.find_one({"registration": acme.registration}) is None
        await filing.database[TENANTS_COLLECTION].delete_one({"_id": acme.id})
    finally:
        s3_server.start_blocking()
    await filing.sealed(1)
    await filing.check(ours)


@pytest.mark.timed
async def test_it_is_said_before_what_waits_is_lost(filing: Rig, s3_server: ObjectStoreServer) -> None:
    """When half of the time has passed for which EVENTS keeps it, and no more when it is filed."""
    nowhere = with_own_bucket(asking("acme"), "http://127.0.0.1:1", filing.bucket, s3_server)
    await filing.register(nowhere)
    filing.start(stream_max_age_s=20)
    one = event(nowhere, "one", channel="twilio")
    await filing.publish(nowhere, one)

    async def said(name: str) -> bool:
        lines = [json.loads(line) for line in filing.log().splitlines() if name in line]
        return [line["event"] for line in lines[:1]] == [name]

    await until("a warning", lambda: said("events_wait_too_long"), within_s=60)
    (states,) = await MongoStates(filing.database).waiting(nowhere.registration)
    assert time.time() - states.stored_us / 1e6 > 10
    await filing.register(with_own_bucket(nowhere, s3_server.uri, filing.bucket, s3_server))
    await until("its end", lambda: said("events_wait_too_long_over"), within_s=60)
    await filing.check([one])


class Refusing(LyingS3):
    """Answers whoever asks, and takes no object: as a bucket that is full, or whose credentials may only read."""

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if method in ("PUT", "POST"):
            self.requests.append((method, path, headers))
            return error(403, "AccessDenied")
        return super().handle(method, path, headers, body)


async def test_a_bucket_that_only_answers_has_not_all_be_read_again_and_again(
    filing: Rig, s3_server: ObjectStoreServer
) -> None:
    """Files of others are closed by their age, which each reading would begin anew."""
    acme, globex = asking("acme"), asking("globex")
    with Refusing().serving() as endpoint:
        theirs = with_own_bucket(acme, endpoint, BUCKET, s3_server)
        await filing.register(theirs, globex)
        filing.start(audit_memory_bytes=16 << 20, audit_max_file_age_s=8)
        text = "x" * 100_000
        for number in range(250):
            raw = json.dumps({"text": text, "number": number}).encode()
            await filing.publish(theirs, event(theirs, f"large-{number}", channel="twilio", raw=raw))
        ours = [event(globex, f"{number}") for number in range(5)]
        await filing.publish(globex, *ours)
        files = await filing.sealed(len(ours), within_s=40)
        assert {file.plan.tenant_id for file in files} == {"globex"}
        assert 1 <= filing.log().count("events_read_again") <= 2


class Elsewhere(LyingS3):
    """Says of every file that it is there already, and is another."""

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.requests.append((method, path, headers))
        if method == "PUT" and path.startswith(f"/{BUCKET}/tenants/"):
            return error(412, "PreconditionFailed")
        if method == "HEAD" and path.startswith(f"/{BUCKET}/tenants/"):
            return 200, {"Content-Length": "0", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, b""
        return super().handle(method, path, headers, body)


async def test_a_bucket_that_has_everything_already_is_left_alone(filing: Rig, s3_server: ObjectStoreServer) -> None:
    acme = asking("acme")
    server = Elsewhere()
    with server.serving() as endpoint:
        theirs = with_own_bucket(acme, endpoint, BUCKET, s3_server)
        await filing.register(theirs)
        filing.start()
        await filing.publish(theirs, event(theirs, "one", channel="twilio"))

        async def told() -> bool:
            return "takes no file" in await problem_of(filing, theirs, "twilio")

        await until("what is wrong is said", told, within_s=60)
        tried = [path for method, path, _ in server.requests if method == "PUT" and "/tenants/" in path]
        rows = await filing.database[AUDIT_FILES_COLLECTION].count_documents({"tenant_id": "acme"})
        # Each try makes a document that says what became of it.
        assert len(tried) <= 6
        assert rows <= 7


class Partial(LyingS3):
    """Takes no object whose key begins with ``refused``: a policy of the bucket says so."""

    refused = ""

    def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if self.refused and method in ("PUT", "POST") and path.startswith(f"/{BUCKET}/{self.refused}"):
            return error(403, "AccessDenied")
        return super().handle(method, path, headers, body)


async def test_what_the_bucket_of_all_refuses_of_one_tenant_stops_nobody_else(filing: Rig) -> None:
    """Not even when what is refused is more than memory may hold. Once it is taken, all of it is filed."""
    acme, globex = asking("acme"), asking("globex")
    await filing.register(acme, globex)
    server = Partial()
    server.refused = f"tenants/{acme.registration}/"
    with server.serving() as endpoint:
        filing.start(object_store_endpoint=endpoint, object_store_bucket=BUCKET, audit_memory_bytes=16 << 20)
        # It comes first, and alone: as far as anybody knows, the bucket is away.
        theirs = [event(acme, "first")]
        await filing.publish(acme, *theirs)
        assert await problem_of(filing, acme, "sendgrid")
        ours = [event(globex, f"first-{one}") for one in range(5)]
        await filing.publish(globex, *ours)
        await filing.sealed(len(ours), within_s=60)
        text = "x" * 100_000
        for number in range(0, 250, 5):
            large = [
                event(acme, f"large-{one}", raw=json.dumps({"text": text, "number": one}).encode())
                for one in range(number, number + 5)
            ]
            await filing.publish(acme, *large)
            theirs += large
            ours += [event(globex, f"{number}-{one}") for one in range(5)]
            await filing.publish(globex, *ours[-5:])
        files = await filing.sealed(len(ours), within_s=90)
        assert {file.plan.tenant_id for file in files} == {"globex"}
        assert await problem_of(filing, acme, "sendgrid")
        server.refused = ""
        files = await filing.sealed(len(ours) + len(theirs), within_s=120)
        assert sum(file.content.events for file in files) == len(ours) + len(theirs)
        assert {one.key for one in server.objects if one.key.startswith("tenants/")} == {one.plan.key for one in files}
