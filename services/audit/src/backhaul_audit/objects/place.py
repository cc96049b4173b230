"""Where a bucket is, and by which credentials it is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from backhaul_common.settings import ObjectStoreSettings

Credentials = Literal["keys", "web_identity", "instance_role"]

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_REGION_ELSEWHERE = "us-east-1"
"""What S3 servers that are not Amazon's call their region, unless they were told another name."""


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket. Endpoints are URLs without a path; ``public_endpoint`` is what links name, empty for ``endpoint``."""

    endpoint: str
    bucket: str
    region: str = ""
    public_endpoint: str = ""
    credentials: Credentials = "keys"
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)

    @property
    def signing_region(self) -> str:
        """The region that requests are signed for; empty where Amazon's host names it itself."""
        host = urlsplit(self.endpoint).hostname or ""
        return self.region or ("" if host.endswith(_AMAZON) else _REGION_ELSEWHERE)

    @classmethod
    def of(cls, settings: ObjectStoreSettings) -> Place | None:
        """The installation's bucket; None where none is set up."""
        if not settings.object_store_endpoint:
            return None
        return cls(
            endpoint=settings.object_store_endpoint,
            bucket=settings.object_store_bucket,
            region=settings.object_store_region,
            public_endpoint=settings.object_store_public_endpoint,
            access_key=settings.object_store_access_key.get_secret_value(),
            secret_key=settings.object_store_secret_key.get_secret_value(),
        )
