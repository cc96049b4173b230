"""What the tests of the local stack share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder for servers' data, removed afterwards: pytest keeps `tmp_path`, and mongod takes 300 MB of it."""
    with tempfile.TemporaryDirectory(prefix="backhaul-local-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
