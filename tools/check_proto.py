"""Fails when proto/gen is not what the contracts generate."""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def differences(left: Path, right: Path) -> list[str]:
    """Files that are on one side only, or differ; caches aside."""

    def files(base: Path) -> set[Path]:
        return {path.relative_to(base) for path in base.rglob("*.py*") if path.is_file() and path.suffix != ".pyc"}

    common = files(left) & files(right)
    changed = [path for path in common if not filecmp.cmp(left / path, right / path, shallow=False)]
    return sorted(str(path) for path in {*(files(left) ^ files(right)), *changed})


def main() -> int:
    """0 when current, 1 with a list of files otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(  # noqa: S603  # a script of this repository
            [ROOT / "proto" / "generate.sh", folder], check=True, stderr=subprocess.DEVNULL
        )
        found = differences(Path(folder), ROOT / "proto" / "gen")
    if found:
        print("proto/gen is not current; run `make proto` and commit what changes:", *found, sep="\n  ")
        return 1
    print("proto/gen is current.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
