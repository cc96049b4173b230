"""Which program is run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from backhaul_local.binaries import find_mongod, find_nats_server, find_weed
from backhaul_local.errors import MissingServerError


def test_mongod_on_path_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = find_mongod()
    (tmp_path / "mongod").symlink_to(packaged)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    assert find_mongod() == tmp_path / "mongod"


def test_pinned_servers_are_found_without_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert all(os.access(program, os.X_OK) for program in (find_nats_server(), find_weed()))


def test_missing_server_is_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.resources.files", _not_installed)
    with pytest.raises(MissingServerError, match="BACKHAUL_MONGO_URI"):
        find_mongod()


def _not_installed(anchor: str) -> Path:
    raise ModuleNotFoundError(anchor)
