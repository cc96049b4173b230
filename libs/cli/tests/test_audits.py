"""What a verification found is told, however it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answering import Gateway
from backhaul_cli.__main__ import main

VERIFY = "GET /v1/audits/verify"


def progress(number: int, *, wrong: bool = False, done: bool = False) -> bytes:
    finding = {"chain": "events", "subject": "file", "name": f"file-{number}", "valid": not wrong}
    told = {"problem": "hash" if wrong else None, "detail": "It is another one." if wrong else None}
    counts: dict[str, Any] = {"digests": 1, "valid_digests": 1, "files": number, "valid_files": 1}
    span = {"found_from": None, "found_to": None, "done": done}
    return json.dumps({"findings": [finding | told], **counts, **span}).encode() + b"\n"


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (progress(1) + progress(2, done=True), 0),
        (progress(1), 6),
        (progress(1) + progress(2, wrong=True), 7),
        (progress(1, wrong=True) + progress(2, done=True), 7),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_what_was_found_is_told_and_counts_before_how_it_ended(
    gateway: Gateway, told: bytes, code: int, cut: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.says(VERIFY, told if cut else told.decode())
    broke_off = cut and code != 7
    assert main(["audits", "verify"]) == (6 if broke_off else code)
    said = capsys.readouterr()
    assert ("It is another one." in said.out) == (code == 7)
    assert ("broke off" in said.err) == (cut or b"true}" not in told)

    assert main(["audits", "verify", "--json"]) == (6 if broke_off else code)
    out = capsys.readouterr().out
    if not broke_off:
        assert json.loads(out)["findings"][0]["name"] == "file-1"
        assert len(json.loads(out)["findings"]) == told.count(b"\n")


def test_nothing_that_was_verified_is_no_success(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"digests": 0, "valid_digests": 0, "files": 0, "valid_files": 0, "found_from": None, "found_to": None}
    gateway.says(VERIFY, json.dumps({"findings": [], "done": True, **counts}) + "\n")
    assert main(["audits", "verify", "--from", "2d", "--json"]) == 4
    said = capsys.readouterr()
    assert json.loads(said.out)["digests"] == 0
    assert "nothing was verified" in said.err


def test_a_proof_comes_with_the_heads_to_which_it_leads(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.says("GET /v1/audits/proof", {"proofs": [], "heads": []})
    assert main(["audits", "prove", "e1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"proofs": [], "heads": []}
