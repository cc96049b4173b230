"""JSON with the form's field names says what the form says."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from backhaul_channels import Context, ConversationSettings, RawCallback
from backhaul_channels.engines.forms import parse_form
from backhaul_channels.providers.twilio import ADAPTER

FOLDER = Path(str(files("backhaul_channels.providers.twilio").joinpath("tests", "cases")))
CASES = [
    case
    for name in ("statuses", "error_codes", "inbound", "attributes", "voice", "whatsapp")
    for case in json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    if case.get("body", "")[:1] not in ("", "{", "[")
]
FORMS = [
    pytest.param(case["body"].encode(), id=case["name"])
    for case in CASES
    if "error" not in case and "error" not in case["events"][0]
]
SETTINGS = ConversationSettings()


def normalize_one(body: bytes) -> Any:
    (part,) = ADAPTER.split(RawCallback("POST", "", [], body), SETTINGS)
    return ADAPTER.normalize(part, Context(SETTINGS))


@pytest.mark.parametrize("form", FORMS)
def test_the_same_fields_are_the_same_fact(form: bytes) -> None:
    fields = parse_form(form)
    assert normalize_one(json.dumps(fields).encode()) == normalize_one(form)
    assert normalize_one(json.dumps([fields], ensure_ascii=False).encode()) == normalize_one(form)
