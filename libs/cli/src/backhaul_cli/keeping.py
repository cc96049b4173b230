"""Keys in the system's keyring, for whoever asked for that: macOS' Keychain, or the Secret Service of a desktop.

It is optional, since on servers and in containers none answers. An entry is named by the profile, the kind of key and
the address, so that a key goes to no other address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from backhaul_cli.failing import Code, FailedError
from backhaul_cli.texts import command

T = TypeVar("T")

SERVICE = "backhaul"


def read(profile: str, url: str, field: str) -> str:
    """The ``api_key`` or ``admin_token`` of a profile. ``FailedError`` where it is not there, or no keyring answers."""
    import_or_say()
    import keyring

    found = _asked(lambda: keyring.get_password(SERVICE, _name(profile, url, field)))
    if not found:
        raise FailedError(
            f"The keyring has no key of profile {profile} for {url}.",
            f"{command('profile add', profile, url=url, keyring=True)} puts it there.",
            code=Code.CREDENTIAL,
        )
    return found


def write(profile: str, url: str, field: str, credential: str) -> None:
    """Keep a key. ``FailedError`` where no keyring answers."""
    import_or_say()
    import keyring

    _asked(lambda: keyring.set_password(SERVICE, _name(profile, url, field), credential))


def remove(profile: str, url: str, field: str) -> None:
    """Forget a key, if it is there. ``FailedError`` where no keyring answers."""
    import_or_say()
    import keyring

    name = _name(profile, url, field)
    if _asked(lambda: keyring.get_password(SERVICE, name)) is not None:
        _asked(lambda: keyring.delete_password(SERVICE, name))


def import_or_say() -> None:
    """``FailedError`` where the package is not installed."""
    try:
        import keyring  # noqa: F401  # whether it is there
    except ImportError:
        raise FailedError(
            "The package keyring is not installed, which asks the system's keyring.",
            "pip install 'backhaul-cli[keyring]', or leave --keyring out: the key is then in a file of yours alone.",
        ) from None


def _name(profile: str, url: str, field: str) -> str:
    return f"{profile} {field} {url}"


def _asked(ask: Callable[[], T]) -> T:
    from keyring import errors

    try:
        return ask()
    except errors.NoKeyringError:
        raise FailedError(
            "No keyring answers here, as on most servers and in containers.",
            "Leave --keyring out: the key is then in a file of yours alone. Or set BACKHAUL_URL and BACKHAUL_API_KEY.",
        ) from None
    except (errors.KeyringLocked, errors.InitError):
        raise FailedError("The keyring is locked, or cannot be opened.", "Unlock it, and try again.") from None
    except errors.KeyringError as exc:
        raise FailedError(f"The keyring failed: {type(exc).__name__}.", "Look whether it works.") from None
