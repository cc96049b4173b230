"""Finds the providers: every folder under ``providers/`` is one, and its ``ADAPTER`` is what it offers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from backhaul_channels.adapter import Adapter, Answer, Proof
from backhaul_channels.event import EventKind
from backhaul_channels.pull import PullCredentials, Puller
from backhaul_channels.settings import ChannelSettings

PROVIDERS_PACKAGE = "backhaul_channels.providers"

_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")


def _set_of(holds: Callable[[Any], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, frozenset) and all(map(holds, value))


_PROMISES: tuple[tuple[str, Callable[[object], bool], str], ...] = (
    (
        "labels",
        lambda value: isinstance(value, tuple) and all(isinstance(one, str) and one for one in value),
        "a tuple of non-empty strings",
    ),
    (
        "settings_model",
        lambda value: isinstance(value, type) and issubclass(value, ChannelSettings),
        "a subclass of ChannelSettings",
    ),
    (
        "own_parameters",
        _set_of(lambda one: isinstance(one, str) and one == one.lower()),
        "a frozenset of strings in lower case",
    ),
    (
        "signature_headers",
        _set_of(lambda one: isinstance(one, bytes) and one == one.lower()),
        "a frozenset of bytes in lower case",
    ),
    (
        "puller",
        lambda value: (
            value is None or (isinstance(value, Puller) and issubclass(value.credentials_model, PullCredentials))
        ),
        "None, or a Puller with a subclass of PullCredentials",
    ),
    ("accepted", lambda value: isinstance(value, Answer), "an Answer"),
    ("proof", lambda value: isinstance(value, Proof), "a Proof"),
    ("once", _set_of(lambda one: isinstance(one, EventKind)), "a frozenset of members of EventKind"),
    (
        "ignores",
        _set_of(lambda one: isinstance(one, str) and _WORD.fullmatch(one) is not None),
        "a frozenset of words of at most 32 lower-case letters, digits and underscores",
    ),
)
"""What an adapter declares, what must hold of it, and the same in words."""


class MalformedAdapterError(RuntimeError):
    """A provider folder that breaks the contract. It stops the start, since a channel that silently is not there would
    refuse its callbacks for as long as nobody looks."""


def load_adapters(package: str = PROVIDERS_PACKAGE) -> Mapping[str, Adapter[Any]]:
    """The adapters of ``package`` by provider name, sorted by name, read-only.

    Raises MalformedAdapterError, naming the folder and the fix, for a folder without a proper ``ADAPTER``. What a
    folder's own import raises is passed on.
    """
    return MappingProxyType({folder: _load(package, folder) for folder in _folders(package)})


def _folders(package: str) -> list[str]:
    # Folders are listed rather than modules, so that one whose __init__.py was forgotten is reported, not skipped.
    return sorted(
        entry.name for entry in files(package).iterdir() if entry.is_dir() and not entry.name.startswith(("_", "."))
    )


def _load(package: str, folder: str) -> Adapter[Any]:
    adapter = getattr(importlib.import_module(f"{package}.{folder}"), "ADAPTER", None)
    if adapter is None:
        raise MalformedAdapterError(f"providers/{folder}: __init__.py defines no ADAPTER; assign an Adapter to it.")
    if not isinstance(adapter, Adapter):
        raise MalformedAdapterError(
            f"providers/{folder}: ADAPTER is of type {type(adapter).__name__}; it must be an instance of an Adapter."
        )
    # ClassVar declarations are promises that nothing keeps at run time, so each is looked at here.
    provider = getattr(adapter, "provider", None)
    if provider != folder:
        raise MalformedAdapterError(
            f"providers/{folder}: ADAPTER.provider is {provider!r}; it must be the folder's name, {folder!r}."
        )
    for name, holds, must in _PROMISES:
        value: object = getattr(adapter, name, None)
        if not holds(value):
            raise MalformedAdapterError(f"providers/{folder}: ADAPTER.{name} is {value!r}; it must be {must}.")
    if adapter.proof is Proof.SIGNATURE and type(adapter).verifier is Adapter.verifier:
        raise MalformedAdapterError(
            f"providers/{folder}: its proof is a signature and it has no verifier; write one, or say that "
            "Proof.CREDENTIAL is its proof."
        )
    return adapter
