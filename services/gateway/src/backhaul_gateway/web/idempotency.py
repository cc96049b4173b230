"""The header by which whoever repeats a request says that it is the same one."""

from __future__ import annotations

from typing import Annotated, Any

from backhaul_common.limits import MAX_IDEMPOTENCY_KEY
from fastapi import Header


def _key(description: str) -> Any:
    return Header(alias="Idempotency-Key", max_length=MAX_IDEMPOTENCY_KEY, description=description)


IdempotencyKey = Annotated[
    str, _key("The same request repeated under one key is carried out once. 409 where another request has it.")
]
"""Of a route that changes something."""

IdempotencyKeyOfSends = Annotated[
    str,
    _key(
        "Tells apart refused sends that say the same and have no id. Repeat the same sends, in their order, under the "
        "same key."
    ),
]
"""Of a route that takes in what may be known already."""
