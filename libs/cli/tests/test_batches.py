"""A batch is put as a whole, and what is not said of it is what it was."""

from __future__ import annotations

from typing import Any

import pytest
from answering import Gateway
from backhaul_cli.__main__ import main

PUT = "PUT /v1/communications/c1/batches/b1"
ADD = ["communications", "add-batch", "b1", "--communication", "c1"]
PROGRESS: dict[str, Any] = {
    "members": 0,
    "destinations": 0,
    "waiting": 0,
    "fulfilment": {},
    "processed": 0,
    "final": 0,
}
BATCH: dict[str, Any] = {
    **dict.fromkeys(("created_at", "deadline", "closed_at", "completed_at", "completed_by", "at_completion")),
    "id": "b1",
    "communication_id": "c1",
    "label": "Spring",
    "status": "open",
    "completes_on": "final",
    "expected_members": 7,
    "progress": PROGRESS,
    "changed_since": 0,
}


@pytest.mark.parametrize(
    ("there", "said", "put"),
    [
        (BATCH, [], {"label": "Spring", "expected_members": 7}),
        (BATCH, ["--label", "Autumn"], {"label": "Autumn", "expected_members": 7}),
        (BATCH, ["--expected", "9"], {"label": "Spring", "expected_members": 9}),
        (BATCH, ["--label", ""], {"expected_members": 7}),
        (404, ["--label", "New"], {"label": "New"}),
        (404, [], {}),
    ],
)
def test_what_is_not_said_stays(gateway: Gateway, there: object, said: list[str], put: dict[str, Any]) -> None:
    gateway.says("GET /v1/batches/b1", there)
    gateway.says(PUT, BATCH)
    assert main([*ADD, *said, "--json"]) == 0
    (body,) = gateway.to(PUT)
    assert {name: value for name, value in body.items() if value} == put


def test_nothing_is_put_where_nobody_knows_what_there_is(gateway: Gateway) -> None:
    gateway.says("GET /v1/batches/b1", 403)
    gateway.says(PUT, BATCH)
    assert main(ADD) == 3
    assert gateway.to(PUT) == []
