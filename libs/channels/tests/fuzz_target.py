"""What must hold of an adapter for any body at all; what fuzzing tries, and what the corpus is replayed against.

A provider's corpus is ``tests/corpus.txt`` in its folder: bodies that fuzzing found to reach different code, and those
that once failed, one a line, as base64.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
from backhaul_channels import (
    Adapter,
    Context,
    Ignored,
    InvalidSecretError,
    MalformedError,
    NormalizedEvent,
    RawCallback,
    Verifier,
)
from backhaul_channels.reading import read_part
from backhaul_channels.values import MAX_ID
from conformance_cases import ARRIVED_US, body_of, case_files, event_cases

MAX_PARTS_TRIED = 50
MAX_KEY = 4096


class Target:
    """One adapter under each of the settings that its cases have. Which of them a body meets, the body decides."""

    def __init__(self, adapter: Adapter[Any]) -> None:
        self._adapter = adapter
        variants = {repr(case.get("settings", {})): case.get("settings", {}) for case in event_cases(adapter.provider)}
        self._settings = [
            adapter.settings_model(),
            *(adapter.settings_model(**one) for one in variants.values() if one),
        ]
        self._secrets = _secrets_of(adapter.provider)
        self._verifiers = [self._verifier(one) for one in self._settings]

    def seeds(self) -> Iterator[bytes]:
        """Bodies to begin with: those of all cases, and the corpus."""
        for case in event_cases(self._adapter.provider):
            yield body_of(case)
        yield from corpus_of(self._adapter.provider)

    def words(self) -> set[str]:
        """Names and words that the adapter may look for: whatever its cases have in quotes or before an equals sign."""
        found: set[str] = set()
        for body in self.seeds():
            for token in body.decode("utf-8", "replace").replace("=", '"').replace("&", '"').split('"'):
                if 1 < len(token) <= 32 and token.isascii() and token.isprintable():
                    found.add(token)
        return found

    def check(self, body: bytes) -> None:
        """Raises AssertionError, or whatever the adapter raises against its contract."""
        which = crc32(body) % len(self._settings)
        settings, verifier = self._settings[which], self._verifiers[which]
        callback = self._callback(body)
        # Nothing that a stranger sends may raise here, and nobody who does not have the secret proves anything.
        if verifier is not None:
            assert verifier.verify(callback) is not None
        self._adapter.handshake(callback, self._secrets, settings)
        self._adapter.issue_token(callback, self._secrets, settings)
        try:
            parts = self._adapter.split(callback, settings)
        except MalformedError:
            return
        context = Context(settings, [("id", body[:32].decode("latin-1"))], received_at_us=ARRIVED_US)
        for part in parts[:MAX_PARTS_TRIED]:
            with suppress(MalformedError):
                event = read_part(self._adapter, part, context)
                assert read_part(self._adapter, part, context) == event, "the same part must give the same fact"
                self._hold(event)

    def _callback(self, body: bytes) -> RawCallback:
        """A request whose headers and address are parts of the body too."""
        told = body[:256].replace(b"\r", b"").replace(b"\n", b"")
        names = [*sorted(self._adapter.signature_headers), b"authorization", b"content-type"]
        url = "https://callbacks.example.com/api/postevents?channelLabel=Any&x=" + told[:64].decode("latin-1")
        return RawCallback("POST", url, [(name, told[n:]) for n, name in enumerate(names)], body, ARRIVED_US)

    def _verifier(self, settings: Any) -> Verifier | None:
        """None where these settings ask for other secrets, or for none."""
        with suppress(InvalidSecretError):
            return self._adapter.verifier(self._secrets, settings) if self._secrets else None
        return None

    def _hold(self, event: NormalizedEvent | Ignored) -> None:
        if isinstance(event, Ignored):
            assert event.reason in self._adapter.ignores
            return
        assert 0 < len(event.key) <= MAX_KEY
        for name in (event.message_id, event.recipient, event.sender, event.error_code, *event.aliases):
            assert len(name) <= MAX_ID
        # A lone surrogate would get no further than the first encoder.
        msgspec.json.encode(event)
        repr(event).encode()


def _secrets_of(provider: str) -> list[str]:
    """All secrets of the provider's cases."""
    found = [path for path in case_files(provider) if path.name == "signatures.json"]
    cases = [case for path in found for case in json.loads(path.read_text("utf-8"))["cases"]]
    return list(dict.fromkeys(secret for case in cases for secret in case["secrets"]))


def corpus_file(provider: str) -> Path:
    """Where the provider's corpus is, or would be."""
    return case_files(provider)[0].parent.parent / "corpus.txt"


def corpus_of(provider: str) -> list[bytes]:
    """The provider's corpus; empty where it has none."""
    path = corpus_file(provider)
    return [base64.b64decode(line) for line in path.read_text("ascii").split()] if path.exists() else []
