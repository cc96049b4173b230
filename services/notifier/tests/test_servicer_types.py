"""The catalogue over gRPC."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import Tenant
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.payloads import Renderer
from backhaul_notifier.servicer_types import TypeCalls
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from backhaul_testing import make


class OneTenant:
    async def require(self, tenant_id: str) -> Tenant:
        if tenant_id != "acme":
            raise BackhaulError(Code.NOT_FOUND, "There is no such tenant.", field="tenant_id")
        return make.tenant(tenant_id)


async def test_every_type_has_its_schema_and_a_sample_that_fits() -> None:
    calls = TypeCalls(OneTenant(), Renderer("https://backhaul.example.com"))
    answer = await calls.list(pb.ListEventTypesRequest(tenant_id="acme"))
    assert [each.type for each in answer.types] == list(TYPES)
    for each in answer.types:
        sample = json.loads(each.sample)
        jsonschema_rs.Draft202012Validator(json.loads(each.schema), validate_formats=True).validate(sample)
        assert sample["type"] == each.type
        assert each.title
        assert each.description
    kinds = {each.type: list(each.kinds) for each in answer.types}
    assert kinds["message.delivered"] == [EVENT_KIND_DELIVERED]
    assert kinds["audit.digest"] == []
    # Other calls share the server's bounds: the whole must fit well.
    assert answer.ByteSize() < 1 << 20


async def test_nobody_else_is_answered() -> None:
    calls = TypeCalls(OneTenant(), Renderer("https://backhaul.example.com"))
    with pytest.raises(BackhaulError) as refused:
        await calls.list(pb.ListEventTypesRequest(tenant_id="other"))
    assert refused.value.code is Code.NOT_FOUND
