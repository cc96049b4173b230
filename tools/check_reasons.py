"""Fails when a ``noqa`` or a ``type: ignore`` has no code or no reason, or says them in another form than the rest."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore)")
_WHOLE = re.compile(r"# (?:noqa: [A-Z]+\d+(?:, [A-Z]+\d+)*|type: ignore\[[a-z-]+(?:, [a-z-]+)*\])  # \S.*")


def unexplained(source: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each suppression in a module that is not as it should be."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (found := _SUPPRESSION.search(token.string)):
            said = token.string[found.start() :]
            if not _WHOLE.fullmatch(said):
                yield token.start[0], said


def main() -> int:
    """0 when every suppression gives its reason, 1 with a list of the others otherwise."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607  # git, wherever it is
    files = [file for file in listed.stdout.split("\0") if file and not file.startswith("proto/gen/")]
    wrong = [
        f"{file}:{line}: {said}"
        for file in files
        if (ROOT / file).is_file()
        for line, said in unexplained((ROOT / file).read_text())
    ]
    if wrong:
        print("Write `# noqa: CODE  # why` or `# type: ignore[code]  # why`:", *wrong, sep="\n  ")
        return 1
    print("Every suppression has a code and a reason.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
