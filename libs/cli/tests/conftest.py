"""What the test files of the command line share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

from answering import Gateway  # found by the line above


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    """The one that the environment names, with a key and a token."""
    for name in list(os.environ):
        if name.startswith("BACKHAUL_"):
            monkeypatch.delenv(name)
    with Gateway() as gateway:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        monkeypatch.setenv("BACKHAUL_URL", gateway.url)
        monkeypatch.setenv("BACKHAUL_API_KEY", "bhk_0123")
        monkeypatch.setenv("BACKHAUL_ADMIN_TOKEN", "token")
        Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield gateway
        gateway.shutdown()
