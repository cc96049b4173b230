"""JSON that somebody wrote for a command: what is wrong with it is said without what stands there."""

from __future__ import annotations

from typing import Any

from backhaul_cli.failing import FailedError


def value_of(name: str, text: str, example: str) -> Any:
    """What ``text``, of the file ``name``, holds. ``example`` is the sentence that says what does."""
    import json

    try:
        return json.loads(text)
    except ValueError as exc:
        # Where it is, and not what stands there, which may be a secret, or of people.
        where = f" at line {exc.lineno}, column {exc.colno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise FailedError(f"{name} is not JSON{where}.", example) from None


def object_of(name: str, text: str, example: str) -> dict[str, Any]:
    """The same of an object."""
    found = value_of(name, text, example)
    if not isinstance(found, dict):
        raise FailedError(f"{name} holds no JSON object.", example)
    return found
