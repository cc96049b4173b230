"""A keyring in a file, for tests: a backend as the package keyring takes any."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError


class FileKeyring(KeyringBackend):
    """Entries in the file that ``KEYRING_FILE`` names. One that holds ``locked`` is locked."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        return self._entries().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write({**self._entries(), f"{service} {username}": password})

    def delete_password(self, service: str, username: str) -> None:
        entries = self._entries()
        if entries.pop(f"{service} {username}", None) is None:
            raise PasswordDeleteError
        self._write(entries)

    def _file(self) -> Path:
        return Path(os.environ["KEYRING_FILE"])

    def _entries(self) -> dict[str, str]:
        text = self._file().read_text() if self._file().exists() else "{}"
        if text == "locked":
            raise KeyringLocked
        entries: dict[str, str] = json.loads(text)
        return entries

    def _write(self, entries: dict[str, str]) -> None:
        self._file().write_text(json.dumps(entries))
