"""Runs compose.yaml with podman-compose and looks at what must hold of it: the second half of tools/test_containers.sh.

``run_containers.py <folder of compose.yaml> [--quick]``: quick leaves out the demo and the upgrade of the gateways. The
folder is of a copy of the repository that is this test's own. Leaves nothing running.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import yaml
from containers import BUILD, Platform, compose, container, kill, must, run, stop, wait_for
from containers_upgrade import upgrade_gateways

ROOT = Path(__file__).resolve().parents[1]
ADDED, ADDED_TO = "added", "notifier"
"""A library that nothing but its own folder names, and the one service that declares it."""


def add_a_library(tree: Path) -> None:
    """As somebody would who adds one: a folder, and the line of the service that needs it."""
    package = tree / "libs" / ADDED
    (package / "src" / f"backhaul_{ADDED}").mkdir(parents=True)
    (package / "src" / f"backhaul_{ADDED}" / "__init__.py").write_text('"""Nothing."""\n', "utf-8")
    backend = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    wheel = f'[tool.hatch.build.targets.wheel]\npackages = ["src/backhaul_{ADDED}"]\n'
    (package / "pyproject.toml").write_text(
        f'{backend}[project]\nname = "backhaul-{ADDED}"\nversion = "0.1.0"\n{wheel}', "utf-8"
    )
    project = tree / "services" / ADDED_TO / "pyproject.toml"
    declared = project.read_text("utf-8")
    project.write_text(declared.replace("dependencies = [", f'dependencies = [\n    "backhaul-{ADDED}",', 1), "utf-8")


def look_at_images(services: list[str], tree: Path) -> None:
    """Nobody is root, nothing installs anything, and each holds what its service declares, and nothing else."""
    look = (ROOT / "tools" / "inside_image.py").read_text("utf-8")
    for service in services:
        image = f"localhost/backhaul-{service}:test"
        confined = ("podman", "run", "--rm", "--read-only", "--network", "none", "--entrypoint", "python")
        inside = json.loads(run(*confined, image, "-c", look, service))
        must(inside["user"] == 10001, f"{service} is run by user {inside['user']}")
        must(not inside["surplus"], f"the image of {service} holds {inside['surplus']}, which it does not declare")
        must(not inside["tools"], f"{service} has build tools: {inside['tools']}")
        holds_added = f"backhaul-{ADDED}" in inside["packages"]
        must(holds_added == (service == ADDED_TO), f"the image of {service} and the library that was added")
        must(_scripts(inside["bill"]) == _declared_scripts(tree, inside["packages"]), f"the scripts of {service}")
        config = json.loads(run("podman", "image", "inspect", image))[0]
        must("healthcheck" in {key.lower() for key in config}, f"{service} has no HEALTHCHECK")
        title = config["Labels"]["org.opencontainers.image.title"]
        must(title == f"backhaul-{service}", f"{service} is labelled {title}")
        print(f"  {service}: user 10001, {len(inside['packages'])} packages, {config['Size'] >> 20} MiB with the base")


Scripts = set[tuple[str, str, str, str]]
"""Package, version, licence and SHA-256 of each file that others wrote."""


def _scripts(bill: list[dict[str, Any]]) -> Scripts:
    npm = [one for one in bill if one["purl"].startswith("pkg:npm/")]
    return {
        (one["name"], one["version"], one["licenses"][0]["license"]["id"], one["hashes"][0]["content"]) for one in npm
    }


def _declared_scripts(tree: Path, packages: list[str]) -> Scripts:
    of_packages = [tree / "libs" / name.removeprefix("backhaul-") / "src" for name in packages]
    lists = [tomllib.loads(one.read_text("utf-8")) for folder in of_packages for one in folder.rglob("vendored.toml")]
    return {
        (file["package"], file["version"], file["licence"], file["sha256"]) for one in lists for file in one["file"]
    }


def network_address() -> str:
    """This machine's address as containers reach it."""
    (network,) = json.loads(run("podman", "network", "inspect", "backhaul_default"))
    return str(network["subnets"][0]["gateway"])


def story(folder: Path, services: list[str], servers: list[str], *, quick: bool) -> None:
    files = [] if quick else ["-f", "compose.yaml", "-f", "demo.yaml", "--profile", "balanced"]
    print("Building", flush=True)
    add_a_library(folder.parents[1])
    compose("--parallel", "1", "--podman-build-args", BUILD, "build", *services)
    look_at_images(services, folder.parents[1])
    print("Starting", flush=True)
    # podman-compose does not wait for what has to end before others start, so the order is made here.
    compose("run", "--rm", "--no-deps", "secrets")
    os.environ["DEMO_HOST"] = network_address()
    balanced = [] if quick else ["gateway-2", "balancer"]
    compose(*files, "up", "--detach", "--no-build", "--no-deps", *services, *servers, *balanced)
    compose("run", "--rm", "--no-deps", "servers")
    print(compose("run", "--rm", "--no-deps", "hello"), end="")
    for service in services:
        run("podman", "exec", container(service), "ready")
        (described,) = json.loads(run("podman", "inspect", container(service)))
        must(described["HostConfig"]["ReadonlyRootfs"], f"{service} can write to its root")
    print("Using", flush=True)
    if not quick:
        said = run("make", "--no-print-directory", "-C", str(ROOT), "demo", f"ARGS=--compose {folder}")
        print(f"  make demo: {next(line for line in said.splitlines() if line.startswith('✓ All'))}", flush=True)
    platform = Platform((folder / "secrets/kept/admin-token").read_text("utf-8").strip())
    must(platform.post(1) == httpx.codes.OK, "a callback was not answered 200")
    wait_for("a callback became a message's state", lambda: platform.knows(1))
    kill("normalizer")
    must(platform.post(2) == httpx.codes.OK, "a callback was not answered 200 while the normalizer was dead")
    run("podman", "start", container("normalizer"))
    wait_for("so did one that came while the normalizer was dead", lambda: platform.knows(2))
    if not quick:
        print("Upgrading", flush=True)
        upgrade_gateways(platform, files)
    print("Stopping", flush=True)
    for service in services:
        stop(service)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    folder = given.folder.resolve()
    os.chdir(folder)
    known = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))["services"]
    services = sorted(one.parent.name for one in (folder / "../../services").glob("*/pyproject.toml"))
    servers = [
        name
        for name, of in known.items()
        if name not in (*services, "secrets", "servers", "hello") and "profiles" not in of
    ]
    try:
        story(folder, services, servers, quick=given.quick)
    except BaseException:
        # Whatever it is: when containers are gone, so is what they said.
        for service in services:
            print(f"== {service}\n{run('podman', 'logs', '--tail', '5', container(service), check=False)}")
        raise
    finally:
        compose("--profile", "balanced", "down", "--volumes", check=False)
    print("All holds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
