"""Files that only their owner may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_PRIVATE_FILE = 0o600


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner only."""
    write_private_beside(path, text).replace(path)


def write_private_beside(path: Path, text: str) -> Path:
    """A new file beside ``path`` with the same text, to be put in its place."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return temporary
