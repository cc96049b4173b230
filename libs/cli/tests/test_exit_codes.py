"""What docs/cli.md says of exit codes is what happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from answering import Gateway
from backhaul_cli.__main__ import main
from backhaul_cli.failing import MEANINGS

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"
GET = "GET /v1/subscriptions/s1"
PAUSE = ["subscriptions", "pause", "s1", "--yes"]
SHOW = ["subscriptions", "show", "s1"]
ENDS: list[tuple[int, list[str], dict[str, Any]]] = [
    (0, ["keys", "list"], {"GET /v1/keys": {"keys": []}}),
    (1, ["keys", "list"], {"GET /v1/keys": "Another program answers here."}),
    (1, ["keys", "list"], {"GET /v1/keys": 500}),
    (2, ["keys", "lst"], {}),
    (2, ["keys", "list", "--no-such"], {}),
    (2, ["keys", "list", "--profile", "nobody"], {}),
    (2, ["diff", "no-such-file.json"], {}),
    (3, SHOW, {GET: 401}),
    (3, SHOW, {GET: 403}),
    (4, SHOW, {GET: 404}),
    (5, SHOW, {GET: 409}),
    (6, PAUSE, {GET: 429}),
    (6, PAUSE, {GET: 503}),
    (6, PAUSE, {GET: 504}),
]


def documented() -> dict[int, str]:
    """The table of the document."""
    table = DOCUMENT.read_text().partition("## Exit codes\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in table.splitlines() if line.startswith("| ")]
    return {int(code): meaning for code, meaning in rows[1:]}


def test_the_document_has_all_of_them() -> None:
    assert documented() == {code.value: meaning for code, meaning in MEANINGS.items()}


@pytest.mark.parametrize(("code", "arguments", "answers"), ENDS)
def test_a_command_ends_as_it_is_documented(
    gateway: Gateway,
    code: int,
    arguments: list[str],
    answers: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The client tries again what may succeed later, and waits before it does.
    monkeypatch.setattr("time.sleep", lambda _: None)
    for asked, answer in answers.items():
        gateway.says(asked, answer)
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert code == 0 or err.count("\n") == 1, err
    assert code in documented()


def test_an_address_where_nobody_answers_may_answer_later(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("BACKHAUL_URL", "http://127.0.0.1:9")
    assert main(["keys", "list"]) == 6


def test_a_no_is_an_answer(gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "body").write_text("{}")
    (tmp_path / "keys").write_text("whsec_" + "QUJD" * 10)
    call = ["signature", "verify", str(tmp_path / "body"), "--keys", str(tmp_path / "keys")]
    found = main([*call, "--id", "1", "--signature", "x"])
    assert found == 7, capsys.readouterr()


def test_ctrl_c_is_no_success(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backhaul_cli.connecting.tenant", interrupted)
    assert main(["keys", "list"]) == 130


def test_every_code_was_tried() -> None:
    assert {code for code, *_ in ENDS} | {7, 130} == set(documented())
