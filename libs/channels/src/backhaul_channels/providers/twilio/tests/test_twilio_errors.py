"""The table of error codes: whole, in our words, and of use to whoever acts upon a class."""

from __future__ import annotations

import re

import pytest
from backhaul_channels import ErrorClass
from backhaul_channels.providers.twilio import ADAPTER
from backhaul_channels.providers.twilio.errors import ERRORS, RANGES
from backhaul_channels.providers.twilio.mapping import INVALID_RECIPIENT


@pytest.mark.parametrize("code", ERRORS)
def test_each_code_has_a_class_a_sentence_and_an_address(code: str) -> None:
    meaning = ADAPTER.explain(code)
    assert meaning is not None
    assert meaning.error_class is not ErrorClass.UNKNOWN
    assert re.fullmatch(r"[A-Z0-9][^\n]{8,110}\.", meaning.text)
    if len(code) == len("30001"):
        assert meaning.url == f"https://www.twilio.com/docs/api/errors/{code}"
    else:
        assert 400 <= int(code) <= 699
        assert "sip-parameters" in meaning.url


@pytest.mark.parametrize(
    ("codes", "error_class"),
    [
        ("21211 21217 21614 30005 30006 404 484 604", ErrorClass.HARD),
        ("21610 30630 63014 63033 607", ErrorClass.SUPPRESS),
        ("30001 30003 30008 30017 63009 63018 480 486 503", ErrorClass.TRANSIENT),
        ("30004 21612 32017 403", ErrorClass.CARRIER),
        ("30007 63016 63021 63028", ErrorClass.CONTENT),
        ("30002 30032 30034 63007 63051", ErrorClass.ACCOUNT),
        ("63003 63024 63036 63049 30011", ErrorClass.CHANNEL),
    ],
)
def test_the_class_says_who_or_what_is_at_fault(codes: str, error_class: ErrorClass) -> None:
    for code in codes.split():
        meaning = ADAPTER.explain(code)
        assert meaning is not None
        assert meaning.error_class is error_class, code


def test_a_number_that_can_never_receive_is_hard() -> None:
    assert {ERRORS[code][0] for code in INVALID_RECIPIENT} == {ErrorClass.HARD}


def test_a_range_stands_in_for_codes_that_have_no_entry() -> None:
    for one in RANGES:
        assert one.first <= one.last
        unlisted = [code for code in range(one.first, one.last + 1) if str(code) not in ERRORS]
        assert unlisted, "the range covers nothing"
        meaning = ADAPTER.explain(str(unlisted[0]))
        assert meaning is not None
        assert (meaning.error_class, meaning.text) == (one.error_class, one.text)
        assert meaning.url.endswith(f"/{unlisted[0]}")


@pytest.mark.parametrize(
    "code",
    ["", "0", "99999", "30099", "3010", "+3010", "\uff13\uff10\uff17\uff10\uff10", "30700 ", "-9999", "200", "x" * 64],
)
def test_a_code_that_nobody_knows_means_nothing(code: str) -> None:
    assert ADAPTER.explain(code) is None


def test_the_table_covers_the_codes_of_messages_not_a_dozen() -> None:
    def of(first: int, last: int) -> int:
        return sum(len(code) == len("30001") and first <= int(code) <= last for code in ERRORS)

    assert of(21200, 21799) > 60
    assert of(30000, 30999) > 60
    assert of(31000, 32999) > 50
    assert of(63000, 63999) > 50
