"""Canonical addresses: every spelling of one is one, nothing else is changed, and the short way is libphonenumber's."""

from __future__ import annotations

import time
from collections.abc import Callable

import phonenumbers
import pytest
from backhaul_channels.addresses import canonical, email, phone
from hypothesis import example, given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from phonenumbers.phonenumberutil import COUNTRY_CODE_TO_REGION_CODE

COUNTRY_CODES = sorted(COUNTRY_CODE_TO_REGION_CODE)
TYPES = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE, PhoneNumberType.TOLL_FREE, PhoneNumberType.VOIP)


def examples() -> list[phonenumbers.PhoneNumber]:
    """The library's own valid numbers: of every region and of the codes that belong to none."""
    found = [
        phonenumbers.example_number_for_type(region, kind)
        for region in sorted(phonenumbers.SUPPORTED_REGIONS)
        for kind in TYPES
    ]
    found += [phonenumbers.example_number_for_non_geo_entity(code) for code in COUNTRY_CODES]
    return [number for number in found if number is not None]


EXAMPLES = examples()


def by_the_library(strict: str) -> str:
    """libphonenumber's form of a number that it holds valid, and any other as it is."""
    try:
        number = phonenumbers.parse(strict)
    except phonenumbers.NumberParseException:
        return strict
    if not phonenumbers.is_valid_number(number):
        return strict
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


digits = st.text("0123456789", min_size=3, max_size=14)
# What countries take off a number, put in front of a valid one: the texts that the short way must leave to the library.
prefixes = st.sampled_from(["", "0", "00", "1", "8", "80", "06", "0180020", "015", "19", "90", "15", "003768", "0549"])
strict_numbers = st.one_of(
    st.builds(lambda code, rest: f"+{code}{rest}", st.sampled_from(COUNTRY_CODES), digits),
    st.builds(
        lambda number, prefix, cut: (
            f"+{number.country_code}{prefix}{phonenumbers.national_significant_number(number)[: 15 - cut]}"
        ),
        st.sampled_from(EXAMPLES),
        prefixes,
        st.integers(0, 12),
    ),
    st.builds(lambda rest: f"+{rest}", digits),
).filter(lambda text: 8 <= len(text) <= 16 and text[1] != "0")


@pytest.mark.slow
@settings(max_examples=3_000, deadline=None)
@given(strict_numbers)
@example("+4402079460958")
@example("+390669883512")
@example("+114155552671")
@example("+78005553535")
@example("+88005553535")
@example("+378886377")
@example("+541115123456")
@example("+5401115123456")
@example("+9991234567")
def test_a_strict_number_becomes_what_the_library_makes_of_it(text: str) -> None:
    expected = by_the_library(text)
    if by_the_library(expected) != expected:
        expected = text
    assert phone(text) == canonical(text) == expected


@pytest.mark.parametrize("code", COUNTRY_CODES)
def test_no_country_differs_from_the_library(code: int) -> None:
    """Every country code, with beginnings and lengths of every kind."""
    for beginning in range(1000):
        for length in (7, 8, 9, 10, 11):
            text = f"+{code}{beginning:03}{'2345678901234'[: length - 3]}"
            if len(text) > 16 or (beginning + length) % 20:
                continue
            expected = by_the_library(text)
            assert phone(text) == (expected if by_the_library(expected) == expected else text)


@pytest.mark.parametrize("number", EXAMPLES, ids=str)
def test_every_spelling_of_a_valid_number_is_one(number: phonenumbers.PhoneNumber) -> None:
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    if not 8 <= len(e164) <= 16:
        pytest.skip("shorter than any text that is taken for a number")
    spaced = phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
    uri = phonenumbers.format_number(number, PhoneNumberFormat.RFC3966)
    for spelling in (e164, spaced, uri, f" {spaced}\n", spaced.replace(" ", "\u00a0"), spaced.replace(" ", "-")):
        assert canonical(spelling) == e164, spelling
    assert canonical(f"whatsapp:{spaced}") == f"whatsapp:{e164}"
    assert canonical("00" + spaced[1:]) == e164


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A zero that the country does not want after its code.
        ("+44 020 7946 0958", "+442079460958"),
        ("+44 20 7946 0958", "+442079460958"),
        ("+44 (0)20 7946 0958", "+442079460958"),
        ("(+44) 20-7946.0958", "+442079460958"),
        ("+4402079460958", "+442079460958"),
        ("+7 8 926 123 45 67", "+79261234567"),
        ("+54 11 15 2345 6789", "+5491123456789"),
        # Zeros that belong to the number.
        ("+39 06 698 83512", "+390669883512"),
        ("+390669883512", "+390669883512"),
        ("+378 886377", "+3780549886377"),
        # Invalid numbers of a known country lose what stands between the digits, and nothing else.
        ("+1 555 010 9999", "+15550109999"),
        ("+1 500-555-0010", "+15005550010"),
        ("+44 0 123 456", "+440123456"),
        # The other way to dial a country, believed where the number is valid.
        ("0044 20 7946 0958", "+442079460958"),
        ("00442079460958", "+442079460958"),
        ("0012345", "0012345"),
        ("00 1 555 010 9999", "00 1 555 010 9999"),
        # Extensions are other people.
        ("+1 (415) 555-2671 ext. 5", "+14155552671;ext=5"),
        ("+1 415 555 2671x5", "+14155552671;ext=5"),
        ("tel:+1-415-555-2671;ext=5", "+14155552671;ext=5"),
        # Channels.
        ("whatsapp:+14155552671", "whatsapp:+14155552671"),
        ("WhatsApp:+44 020 7946 0958", "whatsapp:+442079460958"),
        ("rcs:+14155552671", "rcs:+14155552671"),
        ("RCS:Brand_Agent", "rcs:Brand_Agent"),
        ("messenger:1234567890123", "messenger:1234567890123"),
        ("tel:5551234", "tel:5551234"),
        # Digits of other scripts, and marks that nobody sees.
        ("+١٤١٥٥٥٥٢٦٧١", "+14155552671"),
        ("\uff0b\uff11\uff14155552671", "+14155552671"),
        ("\u202a+1 415 555 2671\u202c", "+14155552671"),
        ("\ufeff+14155552671\u200b", "+14155552671"),
        # What is no international number.
        ("ACME", "ACME"),
        ("Acme 24", "Acme 24"),
        ("12345", "12345"),
        ("+12345", "+12345"),
        ("415 555 2671", "415 555 2671"),
        ("14155552671", "14155552671"),
        ("+1 415 555 2671 / 2672", "+1 415 555 2671 / 2672"),
        ("+1 800 FLOWERS", "+1 800 FLOWERS"),
        ("+999 123 4567", "+999 123 4567"),
        ("+0044 20 7946 0958", "+0044 20 7946 0958"),
        ("call +14155552671", "call +14155552671"),
        ("+14155552671\x00", "+14155552671\x00"),
        (" \t", ""),
    ],
)
def test_phones(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("User@Example.COM", "user@example.com"),
        (" user@example.com\n", "user@example.com"),
        ("user@example.com.", "user@example.com"),
        ("Bob Smith <Bob@Example.com>", "bob@example.com"),
        ("<bob@example.com>", "bob@example.com"),
        ('"A@B"@Example.com', '"a@b"@example.com'),
        ("user+Tag@example.com", "user+tag@example.com"),
        ("first.last@gmail.com", "first.last@gmail.com"),
        ("user@bücher.example", "user@xn--bcher-kva.example"),
        ("user@BÜCHER.Example.", "user@xn--bcher-kva.example"),
        ("user@bu\u0308cher.example", "user@xn--bcher-kva.example"),
        ("user@XN--BCHER-KVA.example", "user@xn--bcher-kva.example"),
        ("user@example\u3002com", "user@example.com"),
        ("user@straße.example", "user@xn--strae-oqa.example"),
        ("JOSÉ@example.com", "josé@example.com"),
        ("jose\u0301@example.com", "josé@example.com"),
        # Domains that nobody can register are still compared without case.
        ("user@-Ü-.example", "user@-ü-.example"),
        ("user@[192.0.2.1]", "user@[192.0.2.1]"),
        # No addresses: only trimmed.
        (" @Acme ", "@Acme"),
        ("Acme@", "Acme@"),
        ("Acme@.", "Acme@."),
        ("Acme @ Berlin", "Acme @ Berlin"),
        ("A@\ud800", "A@\ud800"),
        ("A@b\x00", "A@b\x00"),
        ("A" * 600 + "@B.c", "A" * 600 + "@B.c"),
    ],
)
def test_emails(text: str, expected: str) -> None:
    assert canonical(text) == email(text) == expected


anything = st.text(st.characters(exclude_categories=[]), max_size=80)
near_addresses = st.one_of(
    anything,
    st.text("+0123456789 ()-.x#;ext=/\u200b\u0661:wp", max_size=40),
    st.builds("{}@{}".format, anything, anything),
    st.builds("{}@{}.{}".format, st.text(max_size=8), st.text(max_size=8), st.sampled_from(["com", "DE", "ß", "。"])),
    st.builds(lambda scheme, number: scheme + number, st.sampled_from(["WhatsApp:", "tel:", "00", ""]), strict_numbers),
    st.builds(lambda code, rest: f"+{code} {rest}", st.sampled_from(COUNTRY_CODES), digits),
)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(near_addresses)
@example("İ@İ.com")
@example("ΑΣ@ΑΣ.gr")
@example("<<a@b>>")
@example("a:b:+1 415 555 2671")
@example("tel:tel:+14155552671")
@example("x\ud800@\udfff\x00")
def test_the_canonical_form_of_a_canonical_form_is_itself(text: str) -> None:
    for form in (canonical, phone, email):
        once = form(text)
        assert form(once) == once
    assert canonical(f"  {text}\n") == canonical(text)


def _microseconds(form: Callable[[str], str], text: str) -> float:
    form(text)
    times = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(200):
            form(text)
        times.append((time.process_time() - started) / 200 * 1e6)
    return min(times)


@pytest.mark.timed
@pytest.mark.parametrize(
    "text",
    [
        "+" * 10_000,
        "+" + "1 " * 5_000,
        "+" + "-" * 62,
        "00" + "(" * 62,
        "+1415555267" + " " * 53,
        "a:" * 5_000,
        "@" * 10_000,
        "x@" + "ü" * 500,
        "x@" + "ü." * 200,
        "<" * 500 + "@>",
        " " * 10_000,
    ],
)
def test_no_text_costs_much(text: str) -> None:
    """Of 10 kB or of the worst kind: below a millisecond, where a usual address takes one microsecond."""
    assert _microseconds(canonical, text) < 1_000
