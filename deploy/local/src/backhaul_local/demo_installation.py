"""An installation that the demo is shown on: where it is, and what opens it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backhaul_testing.endpoints import LOOPBACK

from backhaul_local.demo_asking import DemoError
from backhaul_local.stack import ObjectStoreAccess, Stack

API_PORT = 8091
"""Where the reconciler of demo.yaml asks for Twilio's API."""

DEMO_HOST, DOCKER_HOST = "DEMO_HOST", "172.17.0.1"
"""The variable of demo.yaml with the address by which containers reach this machine, and Docker's."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """``host`` is the address of this machine by which it is reached from there; ``api_port`` 0 where any will do."""

    url: str
    admin_token: str = field(repr=False)
    bucket: ObjectStoreAccess
    host: str = LOOPBACK
    api_port: int = 0


def of_stack(stack: Stack) -> Installation:
    """A stack that was started."""
    assert stack.object_store is not None  # noqa: S101  # narrows the type; a stack is started with one
    return Installation(url=stack.gateway_url, admin_token=stack.admin_token, bucket=stack.object_store)


def of_compose(folder: Path, environ: Mapping[str, str] = os.environ) -> Installation:
    """compose.yaml and demo.yaml of ``folder``, as they publish it. Raises DemoError where its secrets are missing."""
    kept = folder / "secrets" / "kept"
    try:
        token, access_key, secret_key = (
            (kept / name).read_text("utf-8").strip() for name in ("admin-token", "s3-access-key", "s3-secret-key")
        )
    except OSError as exc:
        raise DemoError(
            f"{exc}: {folder} is no folder of a compose.yaml that has run, or its secrets are not yours to read."
        ) from exc
    store = ObjectStoreAccess(
        endpoint=environ.get("OBJECT_STORE_PUBLIC_ENDPOINT", "http://127.0.0.1:9000"),
        access_key=access_key,
        secret_key=secret_key,
        bucket=environ.get("OBJECT_STORE_BUCKET", "backhaul"),
    )
    return Installation(
        url=environ.get("PUBLIC_BASE_URL", "http://127.0.0.1:8080"),
        admin_token=token,
        bucket=store,
        host=environ.get(DEMO_HOST, DOCKER_HOST),
        api_port=API_PORT,
    )
