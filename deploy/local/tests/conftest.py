"""What the tests of the local stack share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backhaul_local.scratch import scratch


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder for servers' data, removed afterwards: pytest keeps `tmp_path`, and mongod takes 300 MB of it."""
    with scratch() as folder:
        yield folder
