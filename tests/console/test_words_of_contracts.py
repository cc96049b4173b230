"""Each word that the API makes of its contracts' names can be read by people."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from backhaul_common.vocabulary import Words
from backhaul_console.words import words

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

_CONTRACTS = ("event", "normalizer", "reconciler", "notifier", "suppression", "audit")
_NOT_SHOWN = {"json_lines", "invalid_number"}
"""What HTTP spells otherwise: ``jsonl``, ``InvalidNumber``."""


def test_no_word_of_several_parts_is_shown_as_a_name() -> None:
    raw = {
        word
        for name in _CONTRACTS
        for enum in _file(name).enum_types_by_name.values()
        for word in Words(enum).words
        if "_" in word and word == words(word)
    }
    assert raw - _NOT_SHOWN == set()


def _file(name: str) -> FileDescriptor:
    module = import_module(f"backhaul_proto.{name}.v1.{name}_pb2")
    descriptor: FileDescriptor = module.DESCRIPTOR
    return descriptor
