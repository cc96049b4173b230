"""Which methods other systems may call, and what they need for each."""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_common.accounts import Verb
from backhaul_common.changelog import Logged, logged
from backhaul_proto.audit.v1 import audit_pb2

SERVICE = audit_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name

_METHODS: Mapping[Verb, tuple[str, ...]] = {
    # They show what people wrote and clicked.
    "audit": ("ListFiles", "DescribeFile", "GetFile", "LinkFile", "Prove", "GetState"),
    # They show hashes and counts: a witness needs no more.
    "verify": ("ListDigests", "GetDigest", "GetHead", "Verify", "Recount"),
    # It destroys what nobody can bring back, and shows nothing: whoever reads files need not have it.
    "erase": ("ErasePerson",),
}

VERBS: Mapping[str, Verb] = {f"{SERVICE}.{method}": verb for verb, methods in _METHODS.items() for method in methods}
"""By full name. Keys are Backhaul's own services' to rotate, and everybody's to read, at the gateway."""

LOGGED: Mapping[str, Logged | None] = {f"{SERVICE}.ErasePerson": logged("recipient", hides="address")}
"""What the log of changes keeps of each by which something is changed."""

WITHOUT_TENANT = (f"{SERVICE}.ListKeys", f"{SERVICE}.RotateKey")
"""They are about the installation."""
