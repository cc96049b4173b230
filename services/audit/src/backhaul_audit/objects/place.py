"""Where a bucket is, and by which credentials it is reached."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Literal

from backhaul_common.settings import ObjectStoreSettings
from backhaul_common.tls import context_to

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
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    """Of the installation's own bucket, where it has an authority of its own; otherwise the system's are believed."""

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
            tls=context_to("object-store", settings),
        )
