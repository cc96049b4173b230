"""Writes what an image needs beside its packages: the bill of materials, and the commands ``serve`` and ``ready``.

``describe.py <service> <folder>``, run by the Python of the folder; refuses a package that requirements.lock does not
name, and a script of others' that is not the one of its ``vendored.toml``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def unlocked(installed: Mapping[str, str], lock: str) -> list[str]:
    """Those of ``installed`` (versions by name) that are neither Backhaul's own nor, in that version, in the lock."""
    locked = {(normal(name), version) for name, version in _LOCKED.findall(lock)}
    return sorted(
        f"{name}=={version}"
        for name, version in installed.items()
        if not normal(name).startswith("backhaul-") and (normal(name), version) not in locked
    )


def vendored(lists: Iterable[Path]) -> list[dict[str, Any]]:
    """The components of what others wrote and packages carry, as each ``vendored.toml`` has it.

    Raises ValueError where a file is not that one.
    """
    components = []
    for listed in lists:
        for file in tomllib.loads(listed.read_text("utf-8"))["file"]:
            name, version, digest = file["package"], file["version"], file["sha256"]
            if hashlib.sha256((listed.parent / file["name"]).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{file['name']} is not the one of vendored.toml. Run tools/vendor.py.")
            components.append(
                {
                    "type": "library",
                    "name": name,
                    "version": version,
                    "purl": f"pkg:npm/{name}@{version}#{file['member'].removeprefix('package/')}",
                    "licenses": [{"license": {"id": file["licence"]}}],
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                }
            )
    return components


def bill(service: str, installed: Mapping[str, str], carried: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """CycloneDX of what is installed, and of what it has ``carried`` in itself."""
    version = installed[f"backhaul-{service}"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": f"backhaul-{service}", "version": version}},
        "components": [
            {"type": "library", "name": name, "version": version, "purl": f"pkg:pypi/{normal(name)}@{version}"}
            for name, version in sorted(installed.items())
        ]
        + list(carried),
    }


def target(project: Mapping[str, Any]) -> str:
    """What tells whether a service is ready: see ``backhaul_common.probe``."""
    local = project["tool"]["backhaul"]["local"]
    if "http_port" in local:
        plain = f"http://localhost:{local['ports'][local['http_port']]}/readyz"
        # Where there is a certificate the other port may be the only one: docs/operations.md, HTTPS.
        return f"{plain} https://localhost:8443/readyz"
    return f"localhost:{local['ports'][local['grpc_port']]}"


def main() -> int:
    service, folder = sys.argv[1], Path(sys.argv[2])
    installed = {one.metadata["Name"]: one.version for one in distributions()}
    if surplus := unlocked(installed, Path("requirements.lock").read_text("utf-8")):
        sys.stderr.write(f"Not in requirements.lock: {', '.join(surplus)}. Run make lock.\n")
        return 1
    lists = (Path(one.locate()) for all_ in distributions() for one in all_.files or () if one.name == "vendored.toml")
    try:
        carried = vendored(sorted(lists))
    except ValueError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    (folder / "sbom.cdx.json").write_text(json.dumps(bill(service, installed, carried), indent=1) + "\n", "utf-8")
    project = tomllib.loads(Path("services", service, "pyproject.toml").read_text("utf-8"))
    for command, arguments in (
        ("serve", f"backhaul_{service}"),
        ("ready", f"backhaul_common.probe {target(project)}"),
    ):
        path = folder / "bin" / command
        path.write_text(f"#!/bin/sh\nexec {folder}/bin/python -m {arguments}\n", "utf-8")
        path.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
