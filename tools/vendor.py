"""Fetches what is vendored from npm, as each ``vendored.toml`` names it, its licence beside it.

To take another version: write it there, run this, which writes the new hashes too, and look at what has changed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
LISTS = (
    ROOT / "libs" / "console" / "src" / "backhaul_console" / "static" / "vendored.toml",
    ROOT / "tests" / "console" / "vendored" / "vendored.toml",
)
_LICENCE = "package/LICENSE"


def main() -> None:
    """Write each file of each list, and its hash where it is another one."""
    with tempfile.TemporaryDirectory() as folder:
        for listed in LISTS:
            text = listed.read_text()
            for entry in tomllib.loads(text)["file"]:
                archive = _packed(f"{entry['package']}@{entry['version']}", folder)
                content = _member(archive, entry["member"])
                (listed.parent / entry["name"]).write_bytes(content)
                licence = listed.parent / "licences" / f"{entry['package']}.txt"
                licence.parent.mkdir(exist_ok=True)
                licence.write_bytes(_member(archive, _LICENCE))
                found = hashlib.sha256(content).hexdigest()
                if found != entry["sha256"]:
                    sys.stdout.write(f"{entry['name']}: {found}\n")
                    text = text.replace(entry["sha256"], found)
            listed.write_text(text)


@cache
def _packed(package: str, folder: str) -> Path:
    """The package's tarball, which npm has held to the hash that its registry tells."""
    command = ["npm", "pack", package, "--silent", "--pack-destination", folder]
    told = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # names of our own lists
    return Path(folder) / told.stdout.strip().splitlines()[-1]


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as packed:
        file = packed.extractfile(name)
        if file is None:
            raise SystemExit(f"{archive.name} has no file {name}.")
        return file.read()


if __name__ == "__main__":
    main()
