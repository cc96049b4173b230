"""The services behind the gateway. An installation may do without some: a call to one that is not installed says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from backhaul_common.rpc import Channel
from backhaul_common.service import Service
from backhaul_proto.audit.v1.audit_pb2_grpc import AuditServiceStub
from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceStub
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from backhaul_proto.normalizer.v1.replays_pb2_grpc import ReplayServiceStub
from backhaul_proto.notifier.v1.notifier_pb2_grpc import NotifierServiceStub
from backhaul_proto.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceStub
from backhaul_proto.secretkeys.v1.secretkeys_pb2_grpc import SecretKeysServiceStub
from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceStub

from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web.problems import NotInstalledError


class Services:
    """The services behind the gateway, where the settings say that they are."""

    def __init__(self, service: Service, settings: GatewaySettings) -> None:
        to = partial(_channel_to, service)
        self.normalizer = NormalizerServiceStub(service.channel(settings.gateway_normalizer_target))
        self.communications = CommunicationServiceStub(service.channel(settings.gateway_normalizer_target))
        self.replays = ReplayServiceStub(service.channel(settings.gateway_normalizer_target))
        self.suppression = SuppressionServiceStub(to(settings.gateway_suppression_target, "suppression"))
        self.audit = AuditServiceStub(to(settings.gateway_audit_target, "audit"))
        self.reconciler = ReconcilerServiceStub(to(settings.gateway_reconciler_target, "reconciler"))
        self.secret_keys = {
            "audit": SecretKeysServiceStub(to(settings.gateway_audit_target, "audit")),
            "notifier": SecretKeysServiceStub(to(settings.gateway_notifier_target, "notifier")),
        }
        self.notifier = NotifierServiceStub(to(settings.gateway_notifier_target, "notifier"))


def _channel_to(service: Service, target: str, name: str) -> Channel:
    """The channel to the service ``name`` at ``target`` (host:port); one to nowhere, where that is empty."""
    if target:
        return service.channel(target)
    shown = name.capitalize() if name in ("suppression", "audit") else f"The {name}"
    return _Nowhere(shown, f"BACKHAUL_GATEWAY_{name.upper()}_TARGET")


class _Nowhere(Channel):
    """A channel as generated stubs take it, each call over which raises NotInstalledError. It has nothing to close."""

    def __init__(self, service: str, setting: str) -> None:
        self._said = service, setting

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        """One request, one answer."""
        return self._raise

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        """Many requests, one answer."""
        return self._raise

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        """One request, many answers."""
        return self._answers

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        """Many requests, many answers."""
        return self._answers

    async def _raise(self, *_: Any, **__: Any) -> Any:
        raise NotInstalledError(*self._said)

    async def _answers(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        none: tuple[Any, ...] = ()
        for answer in none:
            yield answer  # Makes it what a call with many answers is.
        raise NotInstalledError(*self._said)
