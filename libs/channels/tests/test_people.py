"""Which addresses are one person's."""

from __future__ import annotations

import pytest
from backhaul_channels.addresses import canonical
from backhaul_channels.people import is_canonical, person, spellings
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("written", "who"),
    [
        (
            ["+14155550123", " +1 (415) 555-0123", "0014155550123", "tel:+14155550123", "+14155550123;ext=7"],
            "+14155550123",
        ),
        (["whatsapp:+14155550123", "WhatsApp:+1 415 555 0123", "rcs:+14155550123", "sms:+14155550123"], "+14155550123"),
        (["+5215512345678", "+525512345678", "whatsapp:+5215512345678"], "+525512345678"),
        (
            ["Ada@Example.COM", "Ada <ada@example.com>", "mailto:ada@example.com", '"ada"@example.com.'],
            "ada@example.com",
        ),
        (["ada@bücher.example", "ADA@xn--bcher-kva.example"], "ada@xn--bcher-kva.example"),
        (["messenger:100", "Messenger:100"], "messenger:100"),
        (["sip:+14155550123@pbx.example"], "sip:+14155550123@pbx.example"),
        (["", "  ", "\t\n"], ""),
    ],
)
def test_spellings_of_one_person(written: list[str], who: str) -> None:
    assert {person(one) for one in written} == {who}


def test_who_cannot_be_told_to_be_the_same_stays_apart() -> None:
    apart = ["+14155550123", "4155550123", "messenger:4155550123", "ada@example.com", "ada@example.org", "whatsapp:ada"]
    assert len({person(one) for one in apart}) == len(apart)


@given(st.text(max_size=80) | st.from_regex(r"[a-z]{0,8}:?\+?[0-9 ;ext=@.]{0,20}"))
def test_no_text_is_refused_and_a_quick_answer_is_the_same(text: str) -> None:
    who = person(text)
    assert who == who.strip()
    if is_canonical(text):
        assert who == text


@pytest.mark.parametrize(
    "written",
    [
        "+15005550001",
        "whatsapp:+15005550001",
        "RCS:+1 500 555 0001",
        "tel:+15005550001",
        "00 1 500 555 0001",
        "whatsapp:+5215512345678",
        "+525512345678",
        "+5491123456789",
        "+541123456789",
        "whatsapp:+556191234567",
        "+5561991234567",
        "Ann@Example.com",
        '"Ann"@example.com',
        "mailto:ann@example.com",
        "messenger:12345",
        "12345",
    ],
)
def test_every_spelling_that_is_stored_is_found_by_whom_it_is(written: str) -> None:
    whom = person(written)
    found = spellings(whom)
    assert canonical(written) in found
    # And none of them is anybody else's.
    assert {person(one) for one in found} == {whom}


def test_an_extension_is_looked_for_behind_each_spelling() -> None:
    stored = canonical("+15005550001 ext. 12")
    assert stored.partition(";ext=")[0] in spellings(person(stored))
