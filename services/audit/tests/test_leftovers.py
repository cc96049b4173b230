"""Uploads in parts that a killed process has left are ended, and nobody else's are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from backhaul_audit.objects import Bucket, Buckets, Probes, probe
from backhaul_audit.objects.bucket import PART_BYTES
from backhaul_audit.objects.leftovers import end_uploads
from backhaul_common.secrets import SecretBox
from backhaul_local.object_store import ObjectStoreServer
from buckets_rig import KEY, Tenants, bucket_at, client_at, folder, place_at
from lying_s3 import BUCKET, Lies, LyingS3, error
from minio import Minio
from minio.error import S3Error


@pytest.fixture
def bucket(s3_server: ObjectStoreServer) -> Iterator[Bucket]:
    """One of the test's own."""
    name = folder()
    client_at(s3_server).make_bucket(name)
    with bucket_at(s3_server, bucket=name) as made:
        yield made


def begin(client: Minio, bucket: str, key: str) -> str:
    """What a process has done by the time that it is killed."""
    upload: str = client._create_multipart_upload(bucket, key, {})
    client._upload_part(bucket, key, bytes(PART_BYTES), None, upload, 1)
    return upload


def going_on(client: Minio, bucket: str) -> list[str]:
    return sorted(str(one.object_name) for one in client._list_multipart_uploads(bucket).uploads)


async def test_uploads_are_ended_by_their_age_and_place(s3_server: ObjectStoreServer, bucket: Bucket) -> None:
    client = client_at(s3_server)
    keys = ["digests/x", "tenants/acme.1/x", "tenants/acme.10/x", "theirs/tenants/acme.1/x"]
    for key in keys:
        begin(client, bucket.bucket, key)
    yesterday, later = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (-1440, 1))
    assert end_uploads(client, bucket.bucket, ["tenants/", "digests/"], yesterday) == 0
    assert going_on(client, bucket.bucket) == keys
    assert end_uploads(client, bucket.bucket, ["tenants/acme.1/"], later) == 1
    assert going_on(client, bucket.bucket) == ["digests/x", "tenants/acme.10/x", "theirs/tenants/acme.1/x"]
    assert end_uploads(client, bucket.bucket, ["tenants/", "digests/"], later) == 2
    assert going_on(client, bucket.bucket) == ["theirs/tenants/acme.1/x"]


async def test_the_probe_ends_those_of_the_buckets_it_tries(
    s3_server: ObjectStoreServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, tenants = client_at(s3_server), Tenants()
    buckets = Buckets(place_at(s3_server, bucket=bucket.bucket), tenants, SecretBox([KEY]))
    probes = Probes(buckets, tenants)
    upload = begin(client, bucket.bucket, "tenants/acme.1/x")
    begin(client, bucket.bucket, "theirs/x")
    await probes.step()
    assert going_on(client, bucket.bucket) == ["tenants/acme.1/x", "theirs/x"]
    monkeypatch.setattr(probe, "MAX_UPLOAD_S", -60.0)
    again = Probes(buckets, tenants)
    await again.step()
    assert going_on(client, bucket.bucket) == ["theirs/x"]
    assert again.problem("acme.1", "") == ""
    # It cannot be completed any more.
    with pytest.raises(S3Error):
        client._upload_part(bucket.bucket, "tenants/acme.1/x", bytes(PART_BYTES), None, upload, 2)
    buckets.close()


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (501, "NotImplemented"), (400, "InvalidRequest")])
def test_who_may_not_list_them_leaves_them_to_the_bucket(status: int, code: str) -> None:
    server = LyingS3(lies=Lies(answer=error(status, code)))
    with server.serving() as endpoint:
        client = Minio(endpoint.removeprefix("http://"), "a", "b", secure=False, region="us-east-1")
        assert end_uploads(client, BUCKET, ["tenants/"], datetime.now(UTC)) == 0
    assert server.requests
