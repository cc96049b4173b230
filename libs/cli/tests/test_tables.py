"""Tables at 80 columns: what one must be able to type again is whole, however long the rest is."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from answering import Gateway
from backhaul_cli.__main__ import main
from backhaul_client.auditmodels import AuditFile
from backhaul_client.models import DeadLetterSummary
from backhaul_client.replaymodels import Replay, ReplayCounts

ID = "0123456789abcdef0123456789abcdef"
LONG = "A channel of the sort that people name by a sentence"
AT = "2026-11-01T00:00:00Z"


def row(of: type[msgspec.Struct], **known: Any) -> dict[str, Any]:
    """An answer with everything that it must have."""
    made: dict[str, Any] = {}
    for field in msgspec.structs.fields(of):
        name = str(field.type)
        by_type = {"str": LONG, "int": 12_345_678, "bool": True, "datetime": AT, "tuple": []}
        made[field.encode_name] = next((value for part, value in by_type.items() if part in name), None)
    return {**made, **known}


COUNTS = {field.encode_name: 1 for field in msgspec.structs.fields(ReplayCounts)}
TABLES = {
    "dead-letters list": ("GET /v1/dead-letters", "dead_letters", row(DeadLetterSummary, id=ID)),
    "audits list": ("GET /v1/audits", "files", row(AuditFile, id=ID)),
    "replay list": (
        "GET /v1/replays",
        "replays",
        row(Replay, id=ID, kind="dead_letters", state="cancelled", counts=COUNTS),
    ),
}


@pytest.mark.parametrize("command", TABLES)
def test_an_id_is_whole_beside_long_names(
    gateway: Gateway, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    asked, name, answer = TABLES[command]
    gateway.says(asked, {name: [answer], "next_cursor": None})
    assert main(command.split()) == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert ID in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown, "nothing is cut"
