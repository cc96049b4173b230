"""How tests read the log of changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway_rig import Running

Json = dict[str, Any]


async def changes(gateway: Running, headers: Mapping[str, str], where: str = "/v1", **filters: str) -> list[Json]:
    answer = await gateway.client.get(f"{where}/changes", headers=headers, params=filters)
    assert answer.status_code == 200, answer.text
    found: list[Json] = answer.json()["changes"]
    return found


def stored(gateway: Running) -> list[Json]:
    return list(gateway.mongo[gateway.settings.mongo_database]["changes"].find().sort("_id", 1))
