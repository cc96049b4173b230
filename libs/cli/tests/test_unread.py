"""Whoever stops reading changes nothing about what a command answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from answering import Gateway

TEXTS = "id channel chain bucket key format sha256 inflated_sha256"
NUMBERS = "number events bytes inflated_bytes first_position last_position digest"
TIMES = "first_at last_at sealed_at deleted_at"
FILE: dict[str, Any] = dict.fromkeys(TEXTS.split(), "x") | dict.fromkeys(NUMBERS.split(), 1)
FILE |= dict.fromkeys(TIMES.split()) | {"gzip": False}
CHANGE: dict[str, Any] = {"id": "acme", "change": "changed", "fields": [], "channels": [], "subscriptions": []}
APPLIED = {
    "dry_run": True,
    "tenants": [
        CHANGE | {"only_here": {"channels": [], "subscriptions": []}, "api_key": None, "ingest_token": None}
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["suppressions", "check", "+15005550010", "--json"], 7),
        (["diff", "FILE", "--json"], 7),
        (["audits", "list", "--all"], 0),
        (["suppressions", "export"], 0),
    ],
)
def test_a_no_stays_a_no_and_a_list_ends_as_done(
    gateway: Gateway, command: list[str], code: int, tmp_path: Path
) -> None:
    gateway.says("POST /v1/suppressions/check", {"verdict": "suppressed", "blocking": []})
    gateway.says("POST /admin/v1/apply", APPLIED)
    gateway.says("GET /v1/suppressions/export", "address\n")
    # It has no end.
    gateway.says("GET /v1/audits", {"files": [FILE] * 100, "next_cursor": "c"})
    file = tmp_path / "document.json"
    file.write_text('{"tenants": []}')
    unread, out = os.pipe()
    os.close(unread)
    arguments = [str(file) if word == "FILE" else word for word in command]
    done = subprocess.run(  # noqa: S603  # this Python
        [sys.executable, "-m", "backhaul_cli", *arguments], stdout=out, stderr=subprocess.PIPE, check=False
    )
    os.close(out)
    assert gateway.asked, done.stderr
    assert done.returncode == code, done.stderr
