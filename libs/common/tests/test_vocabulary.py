"""Words for enums' values."""

from __future__ import annotations

from backhaul_common.vocabulary import UNKNOWN, Words, pascal
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileOptions
from grpc_health.v1.health_pb2 import HealthCheckResponse


def test_a_value_and_its_word() -> None:
    words = Words(FileOptions.OptimizeMode.DESCRIPTOR)
    assert words.words == ("speed", "code_size", "lite_runtime")
    assert (words.word(2), words.number("code_size"), words.number("CODE_SIZE")) == ("code_size", 2, 2)
    assert (words.word(99), words.number("nonsense")) == (UNKNOWN, None)
    assert Words(FileOptions.OptimizeMode.DESCRIPTOR, pascal).words == ("Speed", "CodeSize", "LiteRuntime")


def test_what_says_nothing_has_no_word() -> None:
    words = Words(HealthCheckResponse.ServingStatus.DESCRIPTOR)
    assert (words.word(0), words.number("unknown"), words.number("")) == (UNKNOWN, None, None)


def test_the_enums_own_name_is_no_part_of_a_word() -> None:
    assert Words(FieldDescriptorProto.Label.DESCRIPTOR).words == ("optional", "repeated", "required")
    assert Words(FieldDescriptorProto.Type.DESCRIPTOR).word(9) == "string"
