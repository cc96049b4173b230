"""Finds the providers: every folder under ``providers/`` is one, and its ``ADAPTER`` is what it offers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from backhaul_channels.adapter import Adapter, Answer, ChannelSettings, Proof

PROVIDERS_PACKAGE = "backhaul_channels.providers"

_WORD = re.compile(r"[a-z][a-z0-9_]{0,31}")


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
    proof: object = adapter.proof
    if not isinstance(proof, Proof):
        raise MalformedAdapterError(f"providers/{folder}: ADAPTER.proof is {proof!r}; it must be a Proof.")
    if proof is Proof.SIGNATURE and type(adapter).verifier is Adapter.verifier:
        raise MalformedAdapterError(
            f"providers/{folder}: its proof is a signature and it has no verifier; write one, or say that "
            "Proof.CREDENTIAL is its proof."
        )
    ignores: object = adapter.ignores
    if not isinstance(ignores, frozenset) or not all(
        isinstance(word, str) and _WORD.fullmatch(word) for word in ignores
    ):
        raise MalformedAdapterError(
            f"providers/{folder}: ADAPTER.ignores is {ignores!r}; it must be a frozenset of words of at most 32 "
            "lower-case letters, digits and underscores."
        )
    return adapter
