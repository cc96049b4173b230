"""What every provider must hold, run over the cases in every provider's folder. A new folder is covered by itself.

``tests/cases/signatures.json``: {signature_header, another_secret, cases: [{name, secrets, url, headers, body,
refusal}]}, ``refusal`` being a Refusal's code, or null for an authentic request. ``tests/cases/answer.json``: {source,
status, content_type?, body?}, what an accepted callback is answered. Every other file: a list of {name, body or
body_base64, settings?, events or error, same_fact_as?}; ``events`` hold each field that differs from
NormalizedEvent's default, or {error} for a part that cannot be read.
"""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from backhaul_channels import (
    load_adapters,
)

ADAPTERS = load_adapters()
Case = dict[str, Any]
NO_EVENTS = {"signatures.json", "answer.json"}

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
