"""Where a bucket is, and by which credentials it is reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from backhaul_common.settings import ObjectStoreSettings

Credentials = Literal["keys", "web_identity", "instance_role"]


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
