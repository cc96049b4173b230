"""Buckets without keys: the machine's role, and the workload's identity."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from backhaul_audit.objects import Bucket, Place
from backhaul_audit.objects.place import Credentials
from backhaul_common.errors import BackhaulError, Code

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from lying_s3 import BUCKET, Answer, Lies, LyingS3

KINDS: list[Credentials] = ["web_identity", "instance_role"]
TOKEN = "header.payload-of-the-identity.signature"  # Made up.


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_IDENTITY_TOKEN_FILE", "ROLE_ARN", "REGION", "ENDPOINT_URL_STS", "ROLE_SESSION_NAME"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)


@pytest.fixture
def s3() -> Iterator[tuple[LyingS3, str]]:
    server = LyingS3()
    with server.serving() as endpoint:
        yield server, endpoint


def until(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def role(key: str, ends: str) -> Answer:
    """What the service of a container's role answers."""
    found = {"AccessKeyId": key, "SecretAccessKey": "s", "Token": "the-session", "Expiration": ends}
    return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()


def identity(key: str, ends: str) -> Answer:
    """What an STS answers to ``AssumeRoleWithWebIdentity``."""
    found = f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
    found = f"<Credentials>{found}<Expiration>{ends}</Expiration></Credentials>"
    result = f"<AssumeRoleWithWebIdentityResult>{found}</AssumeRoleWithWebIdentityResult>"
    whole = f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>"
    return 200, {"Content-Type": "text/xml"}, whole.encode()


async def test_the_role_of_the_machine(s3: tuple[LyingS3, str], monkeypatch: pytest.MonkeyPatch) -> None:
    server, endpoint = s3
    metadata = LyingS3(lies=Lies(answer=role("FIRST", until(3600))))
    with metadata.serving() as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/role")
        bucket = Bucket(Place(endpoint, BUCKET, credentials="instance_role"))
        assert await bucket.create("x", b"1", {})
        assert await bucket.stat("x") is not None
        link = await bucket.link("x", 60)
        assert "X-Amz-Security-Token=the-session" in link
        # Asked for once, and kept until they end.
        assert len(metadata.requests) == 1
        shown = [headers for _, _, headers in server.requests]
        assert all("Credential=FIRST/" in headers["authorization"] for headers in shown)
        assert all(headers["x-amz-security-token"] == "the-session" for headers in shown)
        bucket.close()


async def test_credentials_that_end_are_fetched_again(s3: tuple[LyingS3, str], monkeypatch: pytest.MonkeyPatch) -> None:
    server, endpoint = s3
    metadata = LyingS3(lies=Lies(answer=role("FIRST", until(-10))))
    with metadata.serving() as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/role")
        bucket = Bucket(Place(endpoint, BUCKET, credentials="instance_role"))
        assert await bucket.create("x", b"1", {})
        metadata.lies.answer = role("SECOND", until(3600))
        assert await bucket.create("y", b"1", {})
        assert "Credential=SECOND/" in server.requests[-1][2]["authorization"]
        bucket.close()


async def test_the_identity_of_the_workload(
    s3: tuple[LyingS3, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, endpoint = s3
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    sts = LyingS3(lies=Lies(answer=identity("WEB", until(3600))))
    with sts.serving() as url:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/audit")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        bucket = Bucket(Place(endpoint, BUCKET, credentials="web_identity"))
        assert await bucket.create("x", b"1", {})
        assert "Credential=WEB/" in server.requests[-1][2]["authorization"]
        # The token is shown to the STS alone, and never to the endpoint.
        assert f"WebIdentityToken={TOKEN}" in sts.requests[0][1]
        assert all(TOKEN not in str(request) for request in server.requests)
        bucket.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_where_nothing_is_given(
    s3: tuple[LyingS3, str],
    kind: Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _, endpoint = s3
    file = tmp_path / "token"
    file.write_text(TOKEN)
    refusing = LyingS3(lies=Lies(answer=(403, {"Content-Type": "text/xml"}, f"<no>{TOKEN}</no>".encode())))
    with refusing.serving() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/role")
        if kind == "web_identity":
            monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
        bucket = Bucket(Place(endpoint, BUCKET, credentials=kind))
        for call in (bucket.create("x", b"1", {}), bucket.stat("x"), bucket.link("x", 60)):
            with pytest.raises(BackhaulError, match="The cloud gives no credentials") as refused:
                await call
            assert refused.value.code is Code.FAILED_PRECONDITION
            assert refused.value.__cause__ is None
        bucket.close()
    assert len(refusing.requests) == 3
    assert TOKEN not in "".join(capfd.readouterr())


async def test_without_an_identity_it_says_which_variables_lack(s3: tuple[LyingS3, str]) -> None:
    bucket = Bucket(Place(s3[1], BUCKET, credentials="web_identity"))
    with pytest.raises(BackhaulError, match="AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN"):
        await bucket.create("x", b"1", {})
    bucket.close()
