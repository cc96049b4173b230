"""What the tests of the manifests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Test folders are no packages: what several test files of this one share is found by its name.
sys.path.insert(0, str(Path(__file__).parent))

OVERLAYS = Path(__file__).parents[1] / "overlays"


@pytest.fixture(scope="session", params=sorted(path.name for path in OVERLAYS.iterdir()))
def overlay(request: pytest.FixtureRequest) -> Path:
    """The folder of each overlay in turn."""
    return OVERLAYS / str(request.param)


@pytest.fixture(scope="session")
def manifests(overlay: Path) -> list[dict[str, object]]:
    """All that an overlay asks of Kubernetes."""
    from kustomizing import build

    return build(overlay)
