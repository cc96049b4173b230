"""Communications that nobody registered appear when an event first names them."""

from __future__ import annotations

from collections.abc import Iterable

from backhaul_common.documents import Document

from backhaul_normalizer.communications.documents import communication_id_of

_MAX_REMEMBERED = 65_536


class Appeared:
    """Which communications are known to have a document. Whichever has one has it as long as its tenant lives."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def strange(self, named: Iterable[tuple[str, str]]) -> dict[bytes, tuple[str, str]]:
        """Those of these communications, each by registration and id, that are not known to have one; by key."""
        keys = {communication_id_of(*one): one for one in named if one[1]}
        return {key: one for key, one in keys.items() if key not in self._known}

    def remember(self, keys: Iterable[bytes]) -> None:
        """They have one now."""
        if len(self._known) > _MAX_REMEMBERED:
            self._known.clear()
        self._known.update(keys)


def updates(strange: dict[bytes, tuple[str, str]], now_us: int) -> list[Document]:
    """The entries of an update command that give them one."""
    return [
        {
            "q": {"_id": key},
            "u": {
                "$setOnInsert": {
                    "registration": registration,
                    "communication_id": communication_id,
                    "status": "active",
                    "created_at_us": now_us,
                }
            },
            "upsert": True,
        }
        for key, (registration, communication_id) in strange.items()
    ]
