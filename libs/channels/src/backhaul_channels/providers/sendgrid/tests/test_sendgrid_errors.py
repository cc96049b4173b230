"""What SendGrid's error codes mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from backhaul_channels import ErrorClass
from backhaul_channels.providers.sendgrid import ADAPTER
from backhaul_channels.providers.sendgrid.errors import REPLIES, STATUSES, WORDS
from backhaul_channels.providers.sendgrid.mapping import ACCOUNT_ERRORS, REJECT_REASONS
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        ("5.1.1", "hard"),
        ("4.1.1", "transient"),
        ("5.1.10", "hard"),
        ("5.2.1", "hard"),
        ("5.2.2", "transient"),
        ("5.3.4", "content"),
        ("5.4.1", "carrier"),
        ("5.7.1", "carrier"),
        ("5.7.26", "account"),
        ("4.7.26", "transient"),
        ("5.0.0", ""),
        ("4.0.0", "transient"),
        # Details and subjects that the registry does not have.
        ("5.3.99", "carrier"),
        ("5.6.77", "content"),
        ("5.1.0", ""),
        ("5.9.9", ""),
        ("4.9.9", "transient"),
        ("550", ""),
        ("421", "transient"),
        ("400", "transient"),
        ("599", ""),
        ("556", "hard"),
        ("bounced_address", "hard"),
        ("unsubscribed_address", "suppress"),
        ("spam_reporting_address", "suppress"),
        ("compliance_ban", "account"),
    ],
)
def test_a_code_has_a_class_and_a_text(code: str, error_class: str) -> None:
    meaning = ADAPTER.explain(code)
    assert meaning is not None
    assert meaning.error_class == error_class
    assert meaning.text.endswith(".")
    assert meaning.url.startswith("https://")


@pytest.mark.parametrize(
    "code", ["", "2.1.5", "250", "3.1.1", "5.1", "5.1.1.1", "5.1.1234", "55", "5500", "5.1.1 ", "x"]
)
def test_what_is_no_error_has_no_meaning(code: str) -> None:
    assert ADAPTER.explain(code) is None


def test_the_tables_say_each_thing_once() -> None:
    for table in (STATUSES, REPLIES, WORDS):
        assert all(text.endswith(".") and text[0].isupper() for _, text in table.values())
    # A code is one entry of a table and no other; a detail is a number as the registry writes it.
    assert all(code == "{}.{}".format(*map(int, code.split("."))) for code in STATUSES)
    assert all(code[0] in "45" and len(code) == 3 and code.isdigit() for code in REPLIES)
    texts = [text for _, text in STATUSES.values()]
    assert len(set(texts)) == len(texts)
    # Whatever is not final is transient, so a class of its own would be read by nobody.
    assert all(REPLIES[code][0] is ErrorClass.TRANSIENT for code in REPLIES if code.startswith("4"))


def test_every_word_that_becomes_a_code_is_explained() -> None:
    assert {code for _, code in REJECT_REASONS.values()} | ACCOUNT_ERRORS == {*WORDS}
    # In subjects of EVENTS a longer one would be "other".
    assert all(len(code) <= 32 for code in WORDS)


def test_every_error_code_of_the_cases_is_explained() -> None:
    seen = set()
    for path in sorted((Path(__file__).parent / "cases").glob("*.json")):
        cases = json.loads(path.read_text("utf-8"))
        for case in cases if isinstance(cases, list) else []:
            seen |= {event.get("error_code", "") for event in case.get("events", [])}
    unexplained = {code for code in seen if ADAPTER.explain(code) is None}
    assert seen > {"5.1.1", "550", "421", "bounced_address", "compliance_suspend"}
    # 2.0.0 says that all went well, which a block contradicts.
    assert unexplained == {"", "2.0.0"}


@given(st.text(max_size=20) | st.from_regex(r"\d\.\d{1,3}\.\d{1,3}|\d{3}", fullmatch=True))
def test_whatever_is_asked_it_does_not_raise(code: str) -> None:
    meaning = ADAPTER.explain(code)
    assert meaning is None or meaning.text
