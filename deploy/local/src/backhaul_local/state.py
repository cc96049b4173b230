"""What `up` keeps in its data folder between runs: credentials, and who is running there now."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from backhaul_local.errors import DataInUseError, SettingError
from backhaul_local.files import write_private, write_private_beside
from backhaul_local.stack import Credentials

_PRIVATE_FOLDER = 0o700


def credentials_path(data_dir: Path) -> Path:
    return data_dir / "credentials.json"


def admin_token_path(data_dir: Path) -> Path:
    return data_dir / "admin-token"


def admin_header_path(data_dir: Path) -> Path:
    """A file for `curl -H @file`: a token among curl's arguments is seen by every user of the machine."""
    return data_dir / "admin-header"


def running_path(data_dir: Path) -> Path:
    return data_dir / "running.json"


def load_credentials(data_dir: Path) -> Credentials:
    """Read the credentials of this data folder, making them at the first run.

    They must outlive a run: what is stored is encrypted with the secret keys. Raises `SettingError` for a damaged
    file instead of replacing it, because new keys would make the stored secrets unreadable; and for a folder that
    cannot be made or written to.
    """
    path = credentials_path(data_dir)
    with _usable(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
        if not path.exists():
            _create_private(path, json.dumps(asdict(Credentials.generate()), indent=2) + "\n")
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            credentials = Credentials(**kept)
        except (ValueError, TypeError) as error:
            problem = f"{path} cannot be read ({error}). Restore it; deleting it makes the stored secrets unreadable."
            raise SettingError(problem) from None
        if asdict(credentials).keys() != kept.keys():
            # Written before there were passwords of servers: those that were made up now must outlive this run too.
            write_private(path, json.dumps(asdict(credentials), indent=2) + "\n")
        write_private(admin_token_path(data_dir), credentials.admin_token + "\n")
        write_private(admin_header_path(data_dir), f"Authorization: Bearer {credentials.admin_token}\n")
    return credentials


@contextmanager
def running(data_dir: Path, facts: Mapping[str, object]) -> Iterator[None]:
    """Hold the data folder and leave a note of what runs there.

    Raises `DataInUseError` when another holds it, `SettingError` when it cannot be written to. The lock is the system's
    (flock), so it ends with the process however that ends; the note is for people and tools.
    """
    note = running_path(data_dir)
    with ExitStack() as held:
        with _usable(data_dir):
            lock = held.enter_context((data_dir / "lock").open("a", encoding="utf-8"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataInUseError(
                    f"{data_dir} is in use{_holder(note)}. Stop that one, or choose another folder with --data-dir."
                ) from None
            write_private(note, json.dumps({"pid": os.getpid(), **facts}, indent=2) + "\n")
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


@contextmanager
def _usable(data_dir: Path) -> Iterator[None]:
    """Turn what the system has against the folder, or a file in it, into a `SettingError` that names both."""
    try:
        yield
    except OSError as error:
        raise SettingError(
            f"{data_dir} cannot hold the data ({error.strerror}: {error.filename}). "
            "Mend that, or choose another folder with --data-dir."
        ) from None


def _holder(note: Path) -> str:
    try:
        return f" by process {json.loads(note.read_text(encoding='utf-8'))['pid']}"
    except (OSError, ValueError, KeyError):  # The note is a courtesy; the lock alone decides.
        return " by another process"


def _create_private(path: Path, text: str) -> None:
    """Create a file unless it exists: of two first runs at once, one wins and both read the same credentials."""
    temporary = write_private_beside(path, text)
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
