"""`make check` tests what a change may break, and no more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[3] / "tools/affected.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("affected", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_is_there_with_what_it_declares(tool: ModuleType) -> None:
    packages = tool.packages()
    assert {"proto", "libs/common", "libs/channels", "services/gateway", "services/normalizer", "deploy/local"} <= set(
        packages
    )
    assert {"libs/common", "libs/channels", "proto"} <= packages["services/gateway"]


DEPENDS: dict[str, set[str]] = {
    "proto": set(),
    "libs/common": {"proto"},
    "libs/channels": set(),
    "services/gateway": {"libs/common", "libs/channels"},
    "services/tally": {"libs/common"},
    "deploy/local": set(),
}


@pytest.mark.parametrize(
    ("changed", "affected"),
    [
        ([], []),
        (["services/tally/src/backhaul_tally/app.py"], ["services/tally"]),
        (["libs/channels/tests/test_a.py"], ["libs/channels", "services/gateway"]),
        (["libs/common/src/a.py"], ["libs/common", "services/gateway", "services/tally"]),
        # Through the library that lies between.
        (["proto/gen/a.py"], ["libs/common", "proto", "services/gateway", "services/tally"]),
        (["docs/reading.md", "README.md"], ["deploy/local"]),
        (["tests/e2e/test_a.py", "bench/run.py"], []),
        (["requirements.lock"], sorted(DEPENDS)),
        (["services/tally/a.py", "pyproject.toml"], sorted(DEPENDS)),
        # A folder whose name only begins with a package's is not that package.
        (["libs/common_more/a.py"], sorted(DEPENDS)),
    ],
)
def test_what_depends_on_a_change_is_affected_by_it(tool: ModuleType, changed: list[str], affected: list[str]) -> None:
    assert tool.affected(changed, DEPENDS) == affected
