"""Finds the providers: every folder under ``providers/`` is one, and its ``ADAPTER`` is what it offers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from backhaul_channels.adapter import Adapter, Answer, ChannelSettings

PROVIDERS_PACKAGE = "backhaul_channels.providers"


class MalformedAdapterError(RuntimeError):
    """A provider folder that breaks the contract. It stops the start, since a channel that silently is not there would
    refuse its callbacks for as long as nobody looks."""


def load_adapters(package: str = PROVIDERS_PACKAGE) -> Mapping[str, Adapter]:
    """The adapters of ``package`` by provider name, sorted by name, read-only.

    Raises MalformedAdapterError, naming the folder and the fix, for a folder without a proper ``ADAPTER`` and for two
    providers that claim one label. What a folder's own import raises is passed on.
    """
    adapters: dict[str, Adapter] = {}
    label_owner: dict[str, str] = {}
    for folder in _folders(package):
        adapter = _load(package, folder)
        for label in adapter.labels:
            other = label_owner.setdefault(label.casefold(), folder)
            if other != folder:
                raise MalformedAdapterError(
                    f"providers/{folder}: the label {label!r} already means the provider {other!r}; "
                    "labels are compared without case, so choose another one."
                )
        adapters[folder] = adapter
    return MappingProxyType(adapters)


def _folders(package: str) -> list[str]:
    # Folders are listed rather than modules, so that one whose __init__.py was forgotten is reported, not skipped.
    return sorted(
        entry.name for entry in files(package).iterdir() if entry.is_dir() and not entry.name.startswith(("_", "."))
    )


def _load(package: str, folder: str) -> Adapter:
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
    labels = getattr(adapter, "labels", None)
    if not isinstance(labels, tuple) or not labels or not all(isinstance(label, str) and label for label in labels):
        raise MalformedAdapterError(
            f"providers/{folder}: ADAPTER.labels is {labels!r}; it must be a tuple of at least one non-empty string."
        )
    model: object = adapter.settings_model
    if not (isinstance(model, type) and issubclass(model, ChannelSettings)):
        raise MalformedAdapterError(
            f"providers/{folder}: ADAPTER.settings_model is {model!r}; it must be a subclass of ChannelSettings."
        )
    own: object = adapter.own_parameters
    if not isinstance(own, frozenset) or not all(isinstance(name, str) and name == name.lower() for name in own):
        raise MalformedAdapterError(
            f"providers/{folder}: ADAPTER.own_parameters is {own!r}; it must be a frozenset of strings in lower case."
        )
    headers: object = adapter.signature_headers
    if not isinstance(headers, frozenset) or not all(
        isinstance(name, bytes) and name == name.lower() for name in headers
    ):
        raise MalformedAdapterError(
            f"providers/{folder}: ADAPTER.signature_headers is {headers!r}; it must be a frozenset of bytes in lower "
            "case."
        )
    if not isinstance(adapter.accepted, Answer):
        raise MalformedAdapterError(
            f"providers/{folder}: ADAPTER.accepted is of type {type(adapter.accepted).__name__}; it must be an Answer."
        )
    return adapter
