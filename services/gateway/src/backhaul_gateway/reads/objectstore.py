"""Object storage, as far as the status tells of it: nothing that the gateway does needs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.objectstore import signing_region
from backhaul_common.settings import ObjectStoreSettings
from backhaul_common.tls import context_to

if TYPE_CHECKING:
    from minio import Minio


class BucketCheck:
    """An ``ObjectStorage``."""

    def __init__(self, settings: ObjectStoreSettings) -> None:
        self.configured = bool(settings.object_store_endpoint)
        self._bucket = settings.object_store_bucket
        self._client: Minio | None = None
        if self.configured:
            # Imported here, because it takes half a second that an installation without object storage need not wait.
            import urllib3
            from minio import Minio

            endpoint = urlsplit(settings.object_store_endpoint)
            self._client = Minio(
                endpoint.netloc,
                access_key=settings.object_store_access_key.get_secret_value(),
                secret_key=settings.object_store_secret_key.get_secret_value(),
                secure=endpoint.scheme == "https",
                # Named, so that no bucket lookup precedes the check.
                region=signing_region(settings.object_store_endpoint, settings.object_store_region) or None,
                http_client=urllib3.PoolManager(
                    timeout=urllib3.Timeout(connect=1, read=2),
                    retries=False,
                    ssl_context=context_to("object-store", settings),
                ),
            )

    async def check(self) -> None:
        """See ``ObjectStorage``."""
        if self._client is None:
            raise BackhaulError(Code.FAILED_PRECONDITION, "not configured")
        from minio.error import S3Error

        try:
            exists = await asyncio.to_thread(self._client.bucket_exists, self._bucket)
        except S3Error as exc:
            if exc.response.status != 403:
                raise
            # The answer to this question has no body, so it does not say whether the keys are wrong or may too little.
            message = f"the credentials are wrong, or may not do anything in the bucket {self._bucket!r}"
            raise BackhaulError(Code.FAILED_PRECONDITION, message) from None
        if not exists:
            raise BackhaulError(Code.FAILED_PRECONDITION, f"the bucket {self._bucket!r} does not exist")
