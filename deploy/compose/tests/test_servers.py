"""What ``servers`` prepares may begin later than it does."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
import servers
from backhaul_local.object_store import ObjectStoreConfig, ObjectStoreServer
from minio import Minio


@pytest.mark.slow
async def test_the_bucket_is_made_once_the_store_takes_connections(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ObjectStoreServer(ObjectStoreConfig(data_dir=tmp_path / "s3"))
    keys = store.config.access_key, store.config.secret_key
    caplog.set_level(logging.WARNING, logger="servers")
    preparing = asyncio.create_task(asyncio.to_thread(servers.prepare_bucket, store.uri, *keys, "wanted", "us-east-1"))
    try:
        async with asyncio.timeout(60):
            while "bucket wanted was not made yet" not in caplog.text and not preparing.done():
                await asyncio.sleep(0.05)
        assert not preparing.done()
        await store.start()
        await asyncio.wait_for(preparing, 60)
        assert Minio(store.uri.partition("://")[2], *keys, secure=False, region="us-east-1").bucket_exists("wanted")
    finally:
        await store.kill()
