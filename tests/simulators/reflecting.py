"""A gRPC client that has no contract: it asks the running server what it serves, and how."""

from __future__ import annotations

from itertools import islice
from typing import Any

import grpc
from backhaul_client.suppression import Tls
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

Json = dict[str, Any]

WITHIN_S = 20.0


class ReflectingClient:
    """``with ReflectingClient("127.0.0.1:50052", tls, token) as client``. Requests and answers are JSON, with the names
    that the server tells."""

    def __init__(self, target: str, tls: Tls, token: str) -> None:
        self._channel = grpc.secure_channel(target, tls.credentials(), options=[("grpc.enable_http_proxy", 0)])
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = DescriptorPool(self._database)

    def __enter__(self) -> ReflectingClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._channel.close()

    def services(self) -> set[str]:
        """The full names of what the server serves."""
        return set(self._database.get_services())

    def methods(self, service: str) -> set[str]:
        """The methods of one."""
        return set(self._service(service).methods_by_name)

    def call(self, service: str, method: str, *requests: Json, at_most: int = 100) -> list[Json]:
        """The answers, ``at_most`` so many of a stream's: a stream that has no end is hung up then. Raises
        grpc.RpcError."""
        found: MethodDescriptor = self._service(service).methods_by_name[method]
        request, answer = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
        sent = [ParseDict(one, request()) for one in requests]
        kind = ("stream" if found.client_streaming else "unary", "stream" if found.server_streaming else "unary")
        make = getattr(self._channel, "_".join(kind))
        method_call = make(
            f"/{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        given = iter(sent) if found.client_streaming else sent[0]
        answers = method_call(given, metadata=self._metadata, timeout=WITHIN_S)
        if not found.server_streaming:
            return [_json(answers)]
        taken = [_json(one) for one in islice(answers, at_most)]
        answers.cancel()
        return taken

    def _service(self, name: str) -> ServiceDescriptor:
        return self._pool.FindServiceByName(name)


def _json(message: Any) -> Json:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
