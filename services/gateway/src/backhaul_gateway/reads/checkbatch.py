"""The body of ``/v1/suppressions/check-batch``: ten thousand addresses are taken apart in turns."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from backhaul_gateway.twins.suppressioncalls import MAX_CORRELATION, MAX_ITEMS, CheckBatchIn
from backhaul_gateway.twins.turns import Steps
from backhaul_gateway.web.problems import MALFORMED_BODY, HttpError

MAX_BATCH_BYTES = 4 << 20
"""Ten thousand of the longest addresses with ids of a usual length."""

MAX_BATCHES_BYTES = 16 * MAX_BATCH_BYTES
"""Bytes of such bodies that are held at once."""

_ITEMS_A_STEP = 100


class _Item(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``CheckItemIn``, made sixteen times as fast."""

    address: str
    correlation_id: Annotated[str, msgspec.Meta(max_length=MAX_CORRELATION)] = ""


def batch_of(body: bytes, tenant_id: str) -> Steps[pb.CheckBatchRequest]:
    """The call that ``body`` asks for. Raises what FastAPI would of a body that does not fit ``CheckBatchIn``, and
    INVALID_ARGUMENT for one of the items."""
    try:
        parts = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        yield
        rest = {name: msgspec.json.decode(part) for name, part in parts.items() if name != "items"}
        items = msgspec.json.decode(parts.get("items", b"null"), type=list[_Item] | None)
    except msgspec.ValidationError as exc:
        raise _unfit(str(exc)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HttpError(
            MALFORMED_BODY, "The body is not valid JSON.", field="body", fix="Send a JSON object."
        ) from None
    yield
    # What the items are is known; whether they are there, and not too many, the model says as of any other field.
    given: dict[str, Any] = rest if items is None else {**rest, "items": []}
    try:
        request = CheckBatchIn.model_validate(given).request(tenant_id)
    except ValidationError as exc:
        raise RequestValidationError(
            [{**one, "loc": ("body", *one["loc"])} for one in exc.errors()], body=given
        ) from None
    assert items is not None  # noqa: S101  # the model refuses a body without them
    if len(items) > MAX_ITEMS:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"There are {len(items)} addresses in the batch.",
            field="items",
            fix=f"Send at most {MAX_ITEMS:,} at once.",
        )
    for start in range(0, len(items), _ITEMS_A_STEP):
        request.items.extend(
            [
                pb.CheckItem(address=item.address, correlation_id=item.correlation_id)
                for item in items[start : start + _ITEMS_A_STEP]
            ]
        )
        yield
    return request


def _unfit(said: str) -> BackhaulError:
    """What msgspec says, which ends in the place: ``… - at `$[3].address```."""
    message, _, place = said.partition(" - at `$")
    return BackhaulError(
        Code.INVALID_ARGUMENT,
        "The request does not fit what is expected here.",
        field="items" + place.rstrip("`"),
        fix=f"{message}.",
    )


def _documented() -> dict[str, Any]:
    schema = CheckBatchIn.model_json_schema()
    schema["properties"]["items"]["items"] = schema.pop("$defs")["CheckItemIn"]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


BATCH_DOCUMENTED = _documented()
"""The body for the OpenAPI document, since the route reads it by itself."""
