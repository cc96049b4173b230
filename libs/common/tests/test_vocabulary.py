"""Words for enums' values."""

from __future__ import annotations

from enum import StrEnum

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.vocabulary import UNKNOWN, Values, Words, pascal
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


class _Serving(StrEnum):
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    SERVICE_UNKNOWN = "service_unknown"


def test_an_enum_of_the_same_words() -> None:
    values = Values(HealthCheckResponse.ServingStatus.DESCRIPTOR, _Serving)
    assert (values.value(2, "status"), values.number(_Serving.NOT_SERVING)) == (_Serving.NOT_SERVING, 2)
    assert values.value(0, "status") is None
    with pytest.raises(BackhaulError, match="status has no value 9") as refused:
        values.value(9, "status")
    assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "status")
    assert "not_serving" in refused.value.fix
