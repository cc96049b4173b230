"""A contract of the tests' own, with a method of each shape: descriptors as protoc would make them."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "backhaul_test.v1.Service"

_METHODS = {
    # Its name: whether requests and answers are streams, and whether the request names a tenant.
    "Get": (False, False, True),
    "Watch": (False, True, True),
    "Import": (True, False, True),
    "Check": (True, True, True),
    "Keys": (False, False, False),
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="backhaul_test/v1/service.proto", package="backhaul_test.v1", syntax="proto3"
    )
    kind = descriptor_pb2.FieldDescriptorProto
    for name, fields in (
        ("Ask", {"tenant_id": kind.TYPE_STRING, "text": kind.TYPE_STRING, "number": kind.TYPE_INT64}),
        ("Answer", {"text": kind.TYPE_STRING, "number": kind.TYPE_INT64}),
    ):
        message = file.message_type.add(name=name)
        for number, (field, field_type) in enumerate(fields.items(), 1):
            message.field.add(name=field, number=number, type=field_type, label=kind.LABEL_OPTIONAL)
    service = file.service.add(name="Service")
    for name, (many_requests, many_answers, of_tenant) in _METHODS.items():
        service.method.add(
            name=name,
            input_type=".backhaul_test.v1.Ask" if of_tenant else ".backhaul_test.v1.Answer",
            output_type=".backhaul_test.v1.Answer",
            client_streaming=many_requests,
            server_streaming=many_answers,
        )
    return file


_described = descriptor_pool.Default().AddSerializedFile(_file().SerializeToString())
Ask: Any = message_factory.GetMessageClass(_described.message_types_by_name["Ask"])
Answer: Any = message_factory.GetMessageClass(_described.message_types_by_name["Answer"])

_SHAPES = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


def handlers(server: grpc.aio.Server, servicer: Any) -> None:
    """Add ``servicer``, whose method ``do_get`` is Get and so on. Methods are looked up when they are called."""
    made = {}
    for name, (many_requests, many_answers, of_tenant) in _METHODS.items():
        make = getattr(grpc, f"{_SHAPES[many_requests, many_answers]}_rpc_method_handler")

        def call(request: Any, context: Any, name: str = name) -> Any:
            return getattr(servicer, f"do_{name.lower()}")(request, context)

        made[name] = make(
            call,
            request_deserializer=(Ask if of_tenant else Answer).FromString,
            response_serializer=Answer.SerializeToString,
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, made),))


class Stub:
    """A stub, as a generated module would make it."""

    Get: Any
    Keys: Any
    Watch: Any
    Import: Any
    Check: Any

    def __init__(self, channel: grpc.aio.Channel) -> None:
        for name, (many_requests, many_answers, of_tenant) in _METHODS.items():
            begin = getattr(channel, _SHAPES[many_requests, many_answers])
            call = begin(
                f"/{SERVICE}/{name}",
                request_serializer=(Ask if of_tenant else Answer).SerializeToString,
                response_deserializer=Answer.FromString,
                _registered_method=True,
            )
            setattr(self, name, call)
