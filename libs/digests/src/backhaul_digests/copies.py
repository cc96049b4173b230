"""Copies of a bucket in a folder, and keys in a file."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from backhaul_digests.line import PREFIX, chain_of
from backhaul_digests.model import ChainKey
from backhaul_digests.ports import NotThereError, Place
from backhaul_digests.signing import key_id

_PIECE = 1 << 20


class Copies:
    """Objects as files of a folder, under their keys. Nothing outside of the folder is ever read."""

    bucket = ""
    """Copies do not tell."""

    def __init__(self, root: Path, others: Mapping[str, Path]) -> None:
        """``others`` are folders with copies of other buckets, by the bucket's name; all else lies under ``root``."""
        self._root = root
        self._others = others

    async def digests(self, prefix: str) -> AsyncIterator[str]:
        """See ``Stored``."""
        top = self._root.joinpath(*prefix.split("/"))
        for path in sorted(top.rglob("*")):
            if path.is_file():
                yield path.relative_to(self._root).as_posix()

    async def read(self, place: Place) -> AsyncIterator[bytes]:
        """See ``Stored``."""
        root = self._others.get(place.bucket, self._root).resolve()
        missing = NotThereError("It is not there.")
        try:
            path = root.joinpath(*place.key.split("/")).resolve()
            # A pipe would be waited for as long as nobody writes into it.
            if not path.is_relative_to(root) or not path.is_file():
                raise missing
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        except (ValueError, RuntimeError):
            # No name of a file, or a link that leads to itself.
            raise missing from None
        except OSError as exc:
            raise NotThereError(f"It cannot be read: {exc.strerror}.") from None

    def chains(self, tenant_id: str = "") -> list[ChainKey]:
        """The chains that there are digests of, of this tenant or of all."""
        found = set()
        for path in self._root.joinpath(PREFIX.rstrip("/")).rglob("*"):
            of = chain_of(path.relative_to(self._root).as_posix()) if path.is_file() else None
            if of is not None and tenant_id in ("", of.registration, of.registration.rpartition(".")[0]):
                found.add(of)
        return sorted(found)


class KeyFile:
    """The answer of ``/.well-known/backhaul-audit-keys``, as it was kept."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys

    @classmethod
    def read(cls, path: Path) -> KeyFile:
        """Of a file. A key that is not the one of its id is left out: nothing that it signed is valid. ValueError where
        the file is no such answer; OSError."""
        try:
            said = json.loads(path.read_text("utf-8"))
            keys = {str(one["key_id"]): base64.b64decode(one["public_key"], validate=True) for one in said["keys"]}
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            raise ValueError(f"{path} does not hold keys as /.well-known/backhaul-audit-keys answers them.") from exc
        return cls({name: public for name, public in keys.items() if key_id(public) == name})

    async def public(self, key_id: str) -> bytes | None:
        """See ``PublicKeys``."""
        return self._keys.get(key_id)
