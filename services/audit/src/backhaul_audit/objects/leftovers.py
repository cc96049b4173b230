"""Uploads in parts that a killed process has left: nobody sees their bytes in a listing, and whoever owns the bucket
pays for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from minio import Minio
from minio.error import S3Error

from backhaul_audit.objects.http import NotS3


def end_uploads(client: Minio, bucket: str, prefixes: Sequence[str], before: datetime) -> int:
    """End the uploads under ``prefixes`` that began before; how many. What is not the first page of a thousand is left
    to the next time. 0 where the server or the credentials do not let them be listed or ended: a lifecycle rule of the
    bucket has to, then. Blocks; raises what else the client raises.
    """
    ended = 0
    for prefix in prefixes:
        try:
            # The client has no public call for either, and a program that was killed cannot use the one that has them.
            found = client._list_multipart_uploads(bucket, prefix=prefix).uploads  # see above
            for upload in found:
                began = upload.initiated_time
                key = str(upload.object_name)
                # Not every server heeds the prefix.
                if key.startswith(prefix) and upload.upload_id and began is not None and began < before:
                    client._abort_multipart_upload(bucket, key, upload.upload_id)  # see above
                    ended += 1
        except (S3Error, NotS3) as exc:
            status = exc.status if isinstance(exc, NotS3) else exc.response.status
            if status >= 500 and status != 501:
                raise
    return ended
