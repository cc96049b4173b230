"""An image has our own libraries, whatever an index has by their names."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

DOCKER = Path(__file__).resolve().parents[2] / "docker"


def wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    described = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in needs)]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", "\n".join(["Metadata-Version: 2.1", *described, ""]))
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


def test_what_an_index_has_by_the_name_of_a_library_of_ours_is_not_installed(tmp_path: Path) -> None:
    own, index = tmp_path / "wheels", tmp_path / "index"
    wheel(own, "backhaul_common", "0.1.0")
    wheel(own, "backhaul_gateway", "0.1.0", "backhaul-common", "other")
    for name in ("backhaul_common", "backhaul_gateway", "other"):
        page = index / name.replace("_", "-")
        wheel(page, name, "9.9")
        (page / "index.html").write_text(f'<a href="{name}-9.9-py3-none-any.whl">{name}-9.9-py3-none-any.whl</a>')
    said = subprocess.run(["sh", DOCKER / "own.sh", own], check=True, capture_output=True)  # noqa: S603, S607  # our own script
    (tmp_path / "own.txt").write_bytes(said.stdout)
    (tmp_path / "requirements.lock").write_text("other==9.9\n")
    # As deploy/docker/install.sh has it.
    constraints = ("--constraint", "requirements.lock", "--constraint", "own.txt")
    where = ("--target", tmp_path / "there", "--python", sys.executable)
    install = (
        Path(sys.executable).with_name("uv"),
        "--no-config",
        "pip",
        "install",
        "--no-cache",
        *constraints,
        *where,
    )
    subprocess.run([*install, "--index-url", index.as_uri(), "backhaul-gateway"], cwd=tmp_path, check=True)  # noqa: S603  # the lock's uv
    installed = {path.name for path in (tmp_path / "there").glob("*.dist-info")}
    assert installed == {
        f"{name}.dist-info" for name in ("backhaul_common-0.1.0", "backhaul_gateway-0.1.0", "other-9.9")
    }
    assert "--constraint requirements.lock --constraint own.txt" in (DOCKER / "install.sh").read_text()
