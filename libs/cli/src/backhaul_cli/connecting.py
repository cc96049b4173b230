"""Clients for the profile that a command uses. They come with httpx, so they are imported when they are needed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from backhaul_cli import profiles
from backhaul_cli.failing import Code, FailedError

if TYPE_CHECKING:
    from backhaul_client import AdminClient, AsyncTenantClient, TenantClient

    from backhaul_cli.profiles import Profile

_TIMEOUT_S = 30.0
_PATIENCE_S = 600.0
_LONG_S = 1.0
WAITING = "Not now: trying again for up to 10 min."
"""What is said where somebody waits for so long."""


def tenant(profile: str, *, waiting: Callable[[], None] | None = None) -> TenantClient:
    """The tenant's side, by the API key. ``profile`` is empty where none was named. With ``waiting`` it is asked again
    for minutes where there is no answer, as while it is restarted; it is called when the pauses get longer."""
    found = _with_key(profile)
    from backhaul_client import Retries, TenantClient

    if waiting is None:
        return TenantClient(found.url, found.api_key, timeout_s=_TIMEOUT_S)

    last_s = 0.0

    def sleep(pause_s: float) -> None:
        nonlocal last_s
        if pause_s >= _LONG_S > last_s:
            waiting()
        last_s = pause_s
        time.sleep(pause_s)

    patient = Retries(tries=1_000, max_pause_s=_PATIENCE_S, longest_pause_s=5.0)
    return TenantClient(found.url, found.api_key, timeout_s=_TIMEOUT_S, retries=patient, sleep=sleep)


def at_once(profile: str) -> AsyncTenantClient:
    """The same for whoever asks several things at once."""
    found = _with_key(profile)
    from backhaul_client import AsyncTenantClient

    return AsyncTenantClient(found.url, found.api_key, timeout_s=_TIMEOUT_S)


def _with_key(profile: str) -> Profile:
    found = profiles.chosen(profile, os.environ)
    if not found.api_key:
        raise FailedError(
            f"There is no API key in {found.source}.",
            f"{_having('api_key')}backhaul profile add asks for one; BACKHAUL_API_KEY goes with BACKHAUL_URL.",
            code=Code.CREDENTIAL,
        )
    return found


def platform(profile: str) -> AdminClient:
    """The platform team's side, by the admin token."""
    found = profiles.chosen(profile, os.environ)
    if not found.admin_token:
        raise FailedError(
            f"There is no admin token in {found.source}.",
            f"{_having('admin_token')}backhaul profile add --admin asks for one; "
            "BACKHAUL_ADMIN_TOKEN goes with BACKHAUL_URL.",
            code=Code.CREDENTIAL,
        )
    from backhaul_client import AdminClient

    return AdminClient(found.url, found.admin_token, timeout_s=_TIMEOUT_S)


def _having(credential: str) -> str:
    """Which profiles have it, as the beginning of a sentence."""
    try:
        known = profiles.read(profiles.path(os.environ)).known
    except FailedError:
        return ""
    names = [f"--profile {name}" for name, profile in known.items() if profile.has(credential)]
    return f"Say {' or '.join(names)}, which has one; " if names else ""


def is_platform(profile: str) -> bool:
    """Whether the profile opens the platform team's side alone."""
    found = profiles.chosen(profile, os.environ)
    return bool(found.admin_token) and not found.api_key
