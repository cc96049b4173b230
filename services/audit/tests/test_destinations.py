"""Which bucket is whose."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from backhaul_audit.objects import Buckets, Place, Probes
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.secrets import SecretBox
from backhaul_local.object_store import ObjectStoreServer

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from buckets_rig import KEY, Tenants, folder, place_at

OWN = {"endpoint": "https://s3.example.com", "bucket": "analytics", "region": "eu-west-1"}


@pytest.fixture
def tenants() -> Tenants:
    return Tenants()


@pytest.fixture
def buckets(tenants: Tenants) -> Iterator[Buckets]:
    made = Buckets(Place("http://127.0.0.1:9", "backhaul", access_key="a", secret_key="b"), tenants, SecretBox([KEY]))
    yield made
    made.close()


def test_without_one_of_its_own_a_channel_has_the_installations(buckets: Buckets, tenants: Tenants) -> None:
    acme, globex = (tenants.put(name, channel=None) for name in ("acme", "globex"))
    bucket = buckets.of(acme, acme.channels["own"])
    assert bucket.bucket == "backhaul"
    assert buckets.of(globex, globex.channels["own"]) is bucket
    assert buckets.named("acme.1", "") is bucket
    assert set(buckets.everywhere()) == {("", "")}


def test_a_channels_own(buckets: Buckets, tenants: Tenants) -> None:
    acme, globex = (tenants.put(name, channel=OWN) for name in ("acme", "globex"))
    bucket = buckets.of(acme, acme.channels["own"])
    assert bucket.place == Place(
        endpoint="https://s3.example.com", bucket="analytics", region="eu-west-1", access_key="a", secret_key="b"
    )
    assert buckets.of(acme, acme.channels["own"]) is bucket
    assert buckets.named("acme.1", "own") is bucket
    assert buckets.of(globex, globex.channels["own"]) is not bucket
    assert set(buckets.everywhere()) == {("", ""), ("acme.1", "own"), ("globex.1", "own")}
    # What else changes of a channel or tenant needs no new connections.
    again = tenants.put("acme", channel=OWN, keys=acme.channels["own"].audit_credentials)
    assert buckets.of(again, again.channels["own"]) is bucket


@pytest.mark.parametrize(
    "change", [{"bucket": "other"}, {"endpoint": "http://s3.example.com"}, {"region": "eu-west-2"}]
)
def test_other_settings_make_another(buckets: Buckets, tenants: Tenants, change: dict[str, str]) -> None:
    acme = tenants.put("acme", channel=OWN)
    bucket = buckets.of(acme, acme.channels["own"])
    acme = tenants.put("acme", channel={**OWN, **change}, keys=acme.channels["own"].audit_credentials)
    assert buckets.of(acme, acme.channels["own"]) is not bucket
    assert buckets.named("acme.1", "own") is buckets.of(acme, acme.channels["own"])
    dropped = weakref.ref(bucket)
    del bucket
    gc.collect()
    assert dropped() is None


def test_other_credentials_make_another(buckets: Buckets, tenants: Tenants) -> None:
    acme = tenants.put("acme", channel=OWN)
    bucket = buckets.of(acme, acme.channels["own"])
    new = SecretBox([KEY]).encrypt(json.dumps({"access_key": "c", "secret_key": "d"}))
    acme = tenants.put("acme", channel=OWN, keys=new)
    assert buckets.of(acme, acme.channels["own"]).place.secret_key == "d"
    assert bucket.place.secret_key == "b"
    assert "'d'" not in repr(buckets.of(acme, acme.channels["own"]).place)


def test_what_is_gone_is_not_found(buckets: Buckets, tenants: Tenants) -> None:
    tenants.put("acme", channel=OWN)
    bucket = weakref.ref(buckets.named("acme.1", "own"))
    for destination in ("missing", "own "):
        with pytest.raises(BackhaulError) as refused:
            buckets.named("acme.1", destination)
        assert refused.value.code is Code.FAILED_PRECONDITION
    # Another life of the same id.
    tenants.put("acme", life=2, channel=OWN)
    with pytest.raises(BackhaulError):
        buckets.named("acme.1", "own")
    gc.collect()
    assert bucket() is None
    assert "no bucket of its own" in Probes(buckets, tenants).problem("acme.1", "own")
    tenants.put("acme", life=2, channel=None)
    with pytest.raises(BackhaulError):
        buckets.named("acme.2", "own")
    tenants.remove("acme")
    with pytest.raises(BackhaulError):
        buckets.named("acme.2", "own")


def test_credentials_that_cannot_be_read(buckets: Buckets, tenants: Tenants) -> None:
    box = SecretBox([KEY])
    for keys in ("", "nonsense", box.encrypt("[]"), box.encrypt("{}"), box.encrypt("no json")):
        acme = tenants.put("acme", channel=OWN, keys=keys)
        with pytest.raises(BackhaulError, match="no audit_credentials that can be read") as refused:
            buckets.of(acme, acme.channels["own"])
        assert refused.value.code is Code.FAILED_PRECONDITION
        assert "Set them again." in Probes(buckets, tenants).problem("acme.1", "own")
        assert set(buckets.everywhere()) == {("", "")}
    # Keyless ones need none.
    acme = tenants.put("acme", channel={**OWN, "credentials": "web_identity"}, keys="")
    assert buckets.of(acme, acme.channels["own"]).place.access_key == ""


def test_nothing_is_set_up(tenants: Tenants) -> None:
    buckets = Buckets(None, tenants, SecretBox([KEY]))
    acme = tenants.put("acme", channel=None)
    with pytest.raises(BackhaulError, match="No object storage is set up") as refused:
        buckets.of(acme, acme.channels["own"])
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert "BACKHAUL_OBJECT_STORE_ENDPOINT" in Probes(buckets, tenants).problem("acme.1", "")
    assert buckets.everywhere() == {}
    # A channel may have one all the same.
    acme = tenants.put("acme", channel=OWN)
    assert buckets.of(acme, acme.channels["own"]).bucket == "analytics"
    buckets.close()


def test_an_installation_with_a_name_that_cannot_be_starts(tenants: Tenants) -> None:
    buckets = Buckets(Place("http://127.0.0.1:9", "no bucket"), tenants, SecretBox([KEY]))
    assert "not one that S3 can have" in Probes(buckets, tenants).problem("acme.1", "")
    with pytest.raises(BackhaulError):
        buckets.named("acme.1", "")


async def test_tenants_with_buckets_of_their_own_do_not_meet(s3_server: ObjectStoreServer, tenants: Tenants) -> None:
    names = {"acme": folder(), "globex": folder()}
    buckets = Buckets(place_at(s3_server), tenants, SecretBox([KEY]))
    config = s3_server.config
    keys = SecretBox([KEY]).encrypt(json.dumps({"access_key": config.access_key, "secret_key": config.secret_key}))
    for tenant_id, name in names.items():
        tenant = tenants.put(tenant_id, channel={"endpoint": s3_server.uri, "bucket": name}, keys=keys)
        assert await buckets.of(tenant, tenant.channels["own"]).create("x", tenant_id.encode(), {})
    for tenant_id in names:
        pieces = [piece async for piece in buckets.named(f"{tenant_id}.1", "own").read("x")]
        assert pieces == [tenant_id.encode()]
    buckets.close()


async def test_one_that_hangs_keeps_no_other_waiting(s3_server: ObjectStoreServer, tenants: Tenants) -> None:
    buckets = Buckets(place_at(s3_server), tenants, SecretBox([KEY]))
    key = f"{folder()}/x"
    # Nobody answers there, however long it takes.
    acme = tenants.put("acme", channel={"endpoint": "http://192.0.2.1:9000", "bucket": "analytics"})
    stuck = buckets.of(acme, acme.channels["own"])
    hanging = [asyncio.create_task(stuck.create(f"{key}{n}", b"1", {})) for n in range(20)]
    assert await buckets.named("acme.1", "").create(key, b"1", {})
    buckets.close()
    for task in hanging:
        with pytest.raises(BackhaulError) as refused:
            await task
        assert refused.value.code is Code.UNAVAILABLE
