"""Object storage: one destination's bucket over the ``minio`` client, and which destination is whose."""

from backhaul_audit.objects.bucket import Bucket
from backhaul_audit.objects.destinations import Buckets
from backhaul_audit.objects.place import Place
from backhaul_audit.objects.probe import Probes

__all__ = ["Bucket", "Buckets", "Place", "Probes"]
