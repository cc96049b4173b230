"""Where Backhaul is, and what opens it: profiles in a file that its owner alone reads, or the environment."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from backhaul_cli.failing import FailedError
from backhaul_cli.texts import command

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
CREDENTIALS = ("api_key", "admin_token")
"""Those that a keyring may keep."""
_FIELDS = ("url", *CREDENTIALS, "ingest_token", "sample_key")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One way in. ``source`` says where it is from, in words. Credentials do not show themselves. From the
    ``sample_key`` follow the secrets of channels that were made for trying."""

    source: str
    url: str
    api_key: str = field(default="", repr=False)
    admin_token: str = field(default="", repr=False)
    ingest_token: str = field(default="", repr=False)
    sample_key: str = field(default="", repr=False)
    keyring: tuple[str, ...] = ()
    """Which of the two lie in the system's keyring, and are empty here until they are asked for."""

    def has(self, credential: str) -> bool:
        """Whether there is this ``api_key`` or ``admin_token``, here or in the keyring."""
        return bool(getattr(self, credential)) or credential in self.keyring


@dataclass(frozen=True)
class Profiles:
    """All profiles by their names, and which one is used where none is named."""

    known: Mapping[str, Profile]
    current: str = ""

    def with_one(self, name: str, profile: Profile) -> Profiles:
        """With one more, or another in its place. The first one is the current one."""
        if not _NAME.fullmatch(name):
            raise FailedError(f"The name {name!r} is not valid.", "Use letters, digits, - and _, up to 64.")
        return Profiles({**self.known, name: profile}, self.current or name)

    def using(self, name: str) -> Profiles:
        """With another current one."""
        self.one(name)
        return replace(self, current=name)

    def without(self, name: str) -> Profiles:
        """Without one of them."""
        self.one(name)
        known = {other: profile for other, profile in self.known.items() if other != name}
        return Profiles(known, "" if self.current == name else self.current)

    def one(self, name: str) -> Profile:
        """The profile of that name."""
        if name not in self.known:
            there = ", ".join(self.known) or "none"
            raise FailedError(f"There is no profile {name!r}.", f"There is: {there}; backhaul profile add makes one.")
        return self.known[name]


def path(environment: Mapping[str, str]) -> Path:
    """The file of profiles: below XDG_CONFIG_HOME, or ~/.config."""
    base = environment.get("XDG_CONFIG_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".config") / "backhaul" / "config.toml"


def read(file: Path) -> Profiles:
    """The profiles of ``file``, none where it is not there. ``FailedError`` where others could read or change it."""
    try:
        with file.open("rb") as opened:
            # Of what was opened, and not of whatever has that name meanwhile.
            found = os.fstat(opened.fileno())
            if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                raise FailedError(
                    f"{file} has mode {stat.S_IMODE(found.st_mode):04o}, or is not yours, and holds keys.",
                    f"Look who could read them, then: chmod 600 {file}",
                )
            document = tomllib.load(opened)
    except FileNotFoundError:
        return Profiles({})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise FailedError(f"{file} is not TOML: {exc}.", "Mend it, or remove it and add the profiles again.") from None
    tables = document.get("profiles", {})
    if not isinstance(tables, dict):
        raise FailedError(f"{file}: profiles is no table.", "Mend it, or remove it and add the profiles again.")
    return Profiles(
        {name: _profile(file, name, given) for name, given in tables.items()}, str(document.get("current", ""))
    )


def _profile(file: Path, name: str, given: object) -> Profile:
    texts = {key: given.get(key, "") for key in _FIELDS} if isinstance(given, dict) else {}
    if not texts.get("url") or not all(isinstance(text, str) for text in texts.values()):
        raise FailedError(
            f"{file}: the profile {name} needs a url, and texts.", command("profile add", name, url="URL")
        )
    kept = given.get("keyring", []) if isinstance(given, dict) else []
    if not isinstance(kept, list) or not set(map(str, kept)) <= set(CREDENTIALS):
        raise FailedError(
            f"{file}: what is in the keyring of profile {name} is not known.", command("profile add", name, url="URL")
        )
    return Profile(
        source=f"profile {name}",
        url=texts["url"],
        api_key=texts["api_key"],
        admin_token=texts["admin_token"],
        ingest_token=texts["ingest_token"],
        sample_key=texts["sample_key"],
        keyring=tuple(kept),
    )


def write(file: Path, profiles: Profiles) -> None:
    """Put ``profiles`` in the place of what ``file`` holds, at once, with mode 0600."""
    import json
    import tempfile

    lines = [f"current = {json.dumps(profiles.current)}"] if profiles.current else []
    for name, profile in profiles.known.items():
        lines += ["", f"[profiles.{name}]"]
        # JSON's texts are TOML's too, but for a DEL, which no address or credential has.
        lines += [f"{key} = {json.dumps(value)}" for key in _FIELDS if (value := getattr(profile, key))]
        if profile.keyring:
            lines.append(f"keyring = {json.dumps(profile.keyring)}")
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp gives it mode 0600.
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".config-")
    try:
        with os.fdopen(handle, "w") as opened:
            opened.write("\n".join(lines).lstrip("\n") + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def address(url: str) -> str:
    """``url``, if it is that of a gateway."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits, parts = False, urlsplit("")
    if not fits or parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise FailedError("The address is not one of a gateway.", "It is like https://callbacks.example.com.")
    if parts.username is not None or parts.password is not None:
        raise FailedError("The address holds a name or a password.", "Leave them out: the key is asked for by itself.")
    return url.rstrip("/")


def chosen(name: str, environment: Mapping[str, str]) -> Profile:
    """The profile ``name``; without a name the environment's, where it has an address, or else the current one.

    Address and credentials are of one source: a key goes nowhere but where it belongs.
    """
    keys = {
        "api_key": environment.get("BACKHAUL_API_KEY", ""),
        "admin_token": environment.get("BACKHAUL_ADMIN_TOKEN", ""),
    }
    if not name and (url := environment.get("BACKHAUL_URL", "")):
        return Profile(
            source="BACKHAUL_URL", url=address(url), api_key=keys["api_key"], admin_token=keys["admin_token"]
        )
    if not name and any(keys.values()):
        there = "BACKHAUL_API_KEY" if keys["api_key"] else "BACKHAUL_ADMIN_TOKEN"
        raise FailedError(f"{there} is set, and BACKHAUL_URL is not.", "Set both, or name a profile with --profile.")
    profiles = read(path(environment))
    if not (name or profiles.current):
        raise FailedError(
            "Nothing says where Backhaul is.",
            "Run: backhaul profile add NAME --url URL, or set BACKHAUL_URL and BACKHAUL_API_KEY.",
        )
    named = name or profiles.current
    found = profiles.one(named)
    if found.keyring:
        from backhaul_cli import keeping

        kept = {field: keeping.read(named, found.url, field) for field in found.keyring}
        found = replace(
            found,
            api_key=kept.get("api_key", found.api_key),
            admin_token=kept.get("admin_token", found.admin_token),
        )
    return replace(found, url=address(found.url))
