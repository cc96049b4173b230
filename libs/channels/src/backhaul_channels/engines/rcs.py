"""What a person sends by RCS: files, places, pressed buttons. Google's objects, which other providers pass on.

https://developers.google.com/business-communications/rcs-business-messaging/guides/build/messages/receive
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from backhaul_channels.values import MAX_TEXT, MAX_WORD, bounded

_FILE = {
    "fileUri": "media_url_0",
    "mimeType": "media_content_type_0",
    "fileName": "file_name",
    "fileSizeBytes": "file_size_bytes",
}

Attributes = list[tuple[str, str]]


class Pressed(NamedTuple):
    """A button that a person pressed: what it does (in capitals), what they saw, what the sender attached."""

    action: str
    option: str
    payload: str


def written(text: object) -> str:
    """What a person wrote; empty where there is something else than a text."""
    return text[:MAX_TEXT] if isinstance(text, str) else ""


def is_file(value: object) -> bool:
    """Whether ``value`` describes a file."""
    return isinstance(value, dict) and not _FILE.keys().isdisjoint(value)


def file_of(value: object) -> Attributes:
    """A file's attributes; none for what describes no file."""
    return _attributes(value, _FILE)


def place_of(value: object) -> Attributes:
    """A place's attributes, whether its numbers are texts or not; none for what is no place."""
    return _attributes(value, {"latitude": "latitude", "longitude": "longitude"})


def pressed_of(value: object) -> Pressed:
    """The button that was pressed; each part is empty where the provider does not say."""
    told: Mapping[str, Any] = value if isinstance(value, dict) else {}
    action = bounded(told.get("type"), MAX_WORD).upper()
    return Pressed(action, bounded(told.get("text")), bounded(told.get("postbackData")))


def _attributes(value: object, names: Mapping[str, str]) -> Attributes:
    if not isinstance(value, dict):
        return []
    return [(attribute, text) for name, attribute in names.items() if (text := bounded(value.get(name)))]
