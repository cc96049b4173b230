"""A new service is named in one place, its folder: all that goes over the packages finds it there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from backhaul_local.errors import SettingError
from backhaul_local.ports import LOOPBACK
from backhaul_local.service import default_services

ROOT = Path(__file__).parents[3]
PROJECT = """
[project]
name = "backhaul-tally"
version = "0.1.0"
dependencies = ["backhaul-common"]

[tool.backhaul.local]
ports = { grpc = 50099, metrics = 9199 }
grpc_port = "grpc"
env = { BACKHAUL_TALLY_GRPC_LISTEN = "127.0.0.1:{grpc}", BACKHAUL_METRICS_PORT = "{metrics}" }
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the repository, with one folder more under services/."""
    kept = shutil.ignore_patterns(".*", "__pycache__", "tests", "bench", "docs")
    copy = Path(shutil.copytree(ROOT, tmp_path / "repository", ignore=kept))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    package = copy / "services/tally/src/backhaul_tally"
    package.mkdir(parents=True)
    (copy / "services/tally/pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text('"""Counts."""\n\nfrom backhaul_common import ids as ids\n')
    (copy / "services/left_over/__pycache__").mkdir(parents=True)  # What another branch had.
    return copy


def run(tree: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", **environ}
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)  # noqa: S603  # given by the tests below


def stand_in(folder: Path, name: str, script: str) -> str:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_lint_looks_at_its_types(tree: Path, tmp_path: Path) -> None:
    (tree / "services/tally/tests").mkdir()
    shipped, *tests = run(
        tree, "sh", "tools/types.sh", MYPY=stand_in(tmp_path, "mypy", 'echo "$@"')
    ).stdout.splitlines()
    assert {"services/tally/src", "services/gateway/src", "libs/common/src"} <= set(shipped.split())
    assert [line for line in tests if line.endswith(" services/tally/tests")]
    assert "left_over" not in shipped


@pytest.mark.slow
def test_lint_holds_it_to_the_house_s_import_rules(tree: Path) -> None:
    package = tree / "services/tally/src"
    lint = ("python", "tools/lint_imports.py")
    kept = run(tree, *lint, PYTHONPATH=str(package))
    assert kept.returncode == 0, kept.stdout + kept.stderr
    (package / "backhaul_tally/app.py").write_text("import backhaul_gateway.app\nimport backhaul_local.stack\n")
    broken = run(tree, *lint, PYTHONPATH=str(package))
    assert broken.returncode == 1
    assert "Services do not import services, and nothing imports a service BROKEN" in broken.stdout
    assert "Services do not import the local stack BROKEN" in broken.stdout


@pytest.mark.slow
def test_lint_compares_what_it_declares_with_what_it_imports(tree: Path) -> None:
    project, check = tree / "services/tally/pyproject.toml", ("sh", "tools/check_dependencies.sh")
    assert run(tree, *check).returncode == 0
    (tree / "services/tally/src/backhaul_tally/app.py").write_text("import orjson\n")
    project.write_text(project.read_text().replace('["backhaul-common"]', '["backhaul-common", "minio"]'))
    broken = run(tree, *check)
    assert broken.returncode == 1
    assert broken.stdout.startswith("services/tally:\n")
    assert "'orjson' imported but" in broken.stdout
    assert "'minio' defined as a dependency but not used" in broken.stdout
    assert broken.stdout.count("DEP0") == 2


def test_setup_installs_it(tree: Path, tmp_path: Path) -> None:
    said = run(tree, "sh", "tools/install.sh", PYTHON=stand_in(tmp_path, "python", 'echo "$@"'))
    assert "--editable ./services/tally" in said.stdout
    assert "--editable ./services/gateway" in said.stdout
    assert "left_over" not in said.stdout
    # A package that is new, or changed, makes .venv out of date.
    assert "services/tally/pyproject.toml" in run(tree, "make", "-pn", "setup").stdout


def test_lock_resolves_it(tree: Path, tmp_path: Path) -> None:
    said = run(tree, "sh", "tools/lock.sh", UV=stand_in(tmp_path, "uv", 'echo "$@"; cat'))
    assert "./services/tally" in said.stdout.splitlines()
    assert "--no-emit-package backhaul-tally" in said.stdout
    assert "left_over" not in said.stdout


def test_the_local_stack_runs_it(tree: Path) -> None:
    services = {spec.name: spec for spec in default_services(tree / "services")}
    assert set(services) == {"tally", *(spec.name for spec in default_services())}
    tally = services["tally"]
    assert tally.module == "backhaul_tally"
    assert tally.ports == {"grpc": 50099, "metrics": 9199}
    assert tally.port_settings()["BACKHAUL_TALLY_GRPC_LISTEN"] == "tally_grpc"
    assert tally.env["BACKHAUL_TALLY_GRPC_LISTEN"].startswith(LOOPBACK)
    # Whoever answers from outside starts last and stops first.
    assert list(services)[-1] == "gateway"


@pytest.mark.parametrize("key", ["grcp_port", "python"])
def test_a_key_that_means_nothing_is_named(tree: Path, key: str) -> None:
    project = tree / "services/tally/pyproject.toml"
    project.write_text(project.read_text().replace("grpc_port", key))
    with pytest.raises(SettingError, match=rf"tally/pyproject\.toml: tool\.backhaul\.local knows no {key}"):
        default_services(tree / "services")
