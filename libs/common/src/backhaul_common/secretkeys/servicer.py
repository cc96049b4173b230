"""gRPC to what a service keeps encrypted, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from backhaul_proto.secretkeys.v1 import secretkeys_pb2 as pb
from backhaul_proto.secretkeys.v1 import secretkeys_pb2_grpc

from backhaul_common.secretkeys.renewal import SecretRenewal

SERVICE = pb.DESCRIPTOR.services_by_name["SecretKeysService"].full_name


class SecretKeysServicer(secretkeys_pb2_grpc.SecretKeysServiceServicer):
    """``backhaul_proto.secretkeys.v1.SecretKeysService``."""

    def __init__(self, renewal: SecretRenewal) -> None:
        self._renewal = renewal

    async def RenewSecrets(self, request: pb.RenewSecretsRequest, context: Any) -> pb.RenewSecretsResponse:
        """Some of them."""
        return await self._renewal.some(request)


def registrations(renewal: SecretRenewal) -> dict[str, Callable[[grpc.aio.Server], None]]:
    """What ``Service.serve`` takes to offer it; ``SERVICE`` is to be exempt from naming a tenant."""
    servicer = SecretKeysServicer(renewal)
    return {SERVICE: partial(secretkeys_pb2_grpc.add_SecretKeysServiceServicer_to_server, servicer)}
