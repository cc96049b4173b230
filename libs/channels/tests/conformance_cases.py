"""What every provider must hold, run over the cases in every provider's folder. A new folder is covered by itself.

``tests/cases/signatures.json``, of a provider that signs: {signature_header, another_secret, cases: [{name, secrets,
url, headers, body, settings?, received_at_us?, refusal}]}, ``refusal`` being a Refusal's code, or null for an authentic
request. A case whose settings ask for another proof has a ``signature_header`` and an ``another_secret`` of its own.
``tests/cases/handshake.json``, of a provider that asks whether the address is the tenant's: {source, expected_basis,
another_secret, cases: [{name, secrets, url?, headers?, body, answer}]}, ``answer`` being {status?, content_type?,
body?}, or null for what asks nothing. ``tests/cases/answer.json``: {source, status, content_type?, body?}, what an
accepted callback is answered.
Every other file: a list of {name, body or body_base64, url?, headers?, settings?, from?, events or error,
same_fact_as?}; ``from`` is a ``Source``; ``events`` hold each field that differs from NormalizedEvent's default,
{error} for a part that cannot be read, or {ignored} with the reason.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from backhaul_channels import (
    Adapter,
    Context,
    Proof,
    RawCallback,
    Source,
    load_adapters,
)

ADAPTERS = load_adapters()
Case = dict[str, Any]
NO_EVENTS = {"signatures.json", "answer.json", "handshake.json", "pull.json"}

SIGNING = {name: one for name, one in ADAPTERS.items() if one.proof is Proof.SIGNATURE}
"""Those whose requests are signed."""

UNSIGNED = {name: one for name, one in ADAPTERS.items() if name not in SIGNING}
"""Those that rely on the tenant's credential, and on a name and a password where a channel has them."""

EXPECTED_BASES = {"source_asserted", "documented", "interpreted", "generated", "constructed"}
"""Who may vouch for what a case expects; README.md says what each means."""

ARRIVED_US = 1_763_800_001_000_000

each_adapter = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS.keys())


def case_files(provider: str) -> list[Path]:
    folder = Path(str(files("backhaul_channels.providers").joinpath(provider, "tests", "cases")))
    return sorted(folder.glob("*.json"))


def event_cases(provider: str) -> list[Case]:
    paths = [path for path in case_files(provider) if path.name not in NO_EVENTS]
    assert paths, f"providers/{provider} has no normalisation cases"
    return [case for path in paths for case in json.loads(path.read_text("utf-8"))]


def body_of(case: Case) -> bytes:
    return base64.b64decode(case["body_base64"]) if "body_base64" in case else str(case["body"]).encode()


def callback_of(case: Case, body: bytes | None = None) -> RawCallback:
    headers = [(name.encode(), value.encode()) for name, value in case.get("headers", {}).items()]
    url = case.get("url", "https://callbacks.example.com/api/postevents?channelLabel=Any")
    return RawCallback("POST", url, headers, body_of(case) if body is None else body)


def context_of(adapter: Adapter[Any], case: Case) -> Context[Any]:
    query = parse_qsl(urlsplit(callback_of(case, b"").url).query, keep_blank_values=True)
    return Context(
        adapter.settings_model(**case.get("settings", {})),
        [(name, value) for name, value in query if name.lower() not in ("channellabel", *adapter.own_parameters)],
        Source(case.get("from", "callback")),
        ARRIVED_US,
    )


def parts_of(adapter: Adapter[Any], case: Case) -> Sequence[bytes]:
    return adapter.split(callback_of(case), context_of(adapter, case).settings)
