"""Which address a text is: of a question, which is refused where it may be read in two ways, and of an event, which
never is."""

from __future__ import annotations

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import SuppressionSettings
from backhaul_suppression.addresses import address_of, sender_of, spellings, told_address
from backhaul_suppression.model import Address, Family
from hypothesis import example, given
from hypothesis import strategies as st

ACME = "acme.1"
APART, PHONE = SuppressionSettings(), SuppressionSettings(whatsapp="phone")


@pytest.mark.parametrize(
    ("text", "family", "expected"),
    [
        ("+14155550123", None, (Family.PHONE, "+14155550123")),
        ("+14155550123", Family.PHONE, (Family.PHONE, "+14155550123")),
        ("+14155550123", Family.VOICE, (Family.VOICE, "+14155550123")),
        (" +1 (415) 555-0123 ", None, (Family.PHONE, "+14155550123")),
        ("004915112345678", None, (Family.PHONE, "+4915112345678")),
        ("+49 (0)151 12345678", None, (Family.PHONE, "+4915112345678")),
        ("\u202a+14155550123\u202c", None, (Family.PHONE, "+14155550123")),
        ("+1-415-555-0123 ext. 7", Family.VOICE, (Family.VOICE, "+14155550123;ext=7")),
        # One number, however it is reached.
        ("rcs:+14155550123", None, (Family.PHONE, "+14155550123")),
        ("RCS:+1 415 555 0123", None, (Family.PHONE, "+14155550123")),
        ("tel:+1-415-555-0123", Family.VOICE, (Family.VOICE, "+14155550123")),
        ("sms:+14155550123", None, (Family.PHONE, "+14155550123")),
        # A message goes to the number, whatever the extension.
        ("+1 415 555 0123 x7", None, (Family.PHONE, "+14155550123")),
        ("tel:+14155550123;ext=7", None, (Family.PHONE, "+14155550123")),
        ("whatsapp:+14155550123;ext=7", None, (Family.PHONE, "whatsapp:+14155550123")),
        # Mobile numbers that are written in two ways.
        ("+5215512345678", None, (Family.PHONE, "+525512345678")),
        ("whatsapp:+521 55 1234 5678", None, (Family.PHONE, "whatsapp:+525512345678")),
        ("+5215512345678", Family.VOICE, (Family.VOICE, "+525512345678")),
        ("+525512345678", None, (Family.PHONE, "+525512345678")),
        ("+5491123456789", None, (Family.PHONE, "+541123456789")),
        ("+54 11 15 2345 6789", None, (Family.PHONE, "+541123456789")),
        ("whatsapp:+553187654321", None, (Family.PHONE, "whatsapp:+5531987654321")),
        ("+5531987654321", None, (Family.PHONE, "+5531987654321")),
        ("+553132654321", None, (Family.PHONE, "+553132654321")),
        # An address of its own.
        ("whatsapp:+14155550123", None, (Family.PHONE, "whatsapp:+14155550123")),
        ("WhatsApp:+1 415 555 0123", Family.PHONE, (Family.PHONE, "whatsapp:+14155550123")),
        ("whatsapp:+14155550123", Family.VOICE, (Family.VOICE, "whatsapp:+14155550123")),
        # What only the channel can read.
        ("whatsapp:US.13491208655302741918", None, (Family.PHONE, "whatsapp:US.13491208655302741918")),
        ("messenger:1234567890", None, (Family.PHONE, "messenger:1234567890")),
        ("sip:alice@example.com", None, (Family.PHONE, "sip:alice@example.com")),
        ("John.Doe@Example.COM", None, (Family.EMAIL, "john.doe@example.com")),
        ("John <john@example.com>", None, (Family.EMAIL, "john@example.com")),
        ("mailto:John@example.com", None, (Family.EMAIL, "john@example.com")),
        ("mailto:John@example.com", Family.EMAIL, (Family.EMAIL, "john@example.com")),
        ("jörg@bücher.example", None, (Family.EMAIL, "jörg@xn--bcher-kva.example")),
        ("a@[192.0.2.1]", None, (Family.EMAIL, "a@[192.0.2.1]")),
        ('"john.doe"@example.com', None, (Family.EMAIL, "john.doe@example.com")),
        ('"a b"@example.com', Family.EMAIL, (Family.EMAIL, '"a b"@example.com')),
    ],
)
def test_a_question_names_one_address(text: str, family: Family | None, expected: tuple[Family, str]) -> None:
    assert address_of(ACME, text, family) == Address(ACME, *expected)
    assert told_address(ACME, text, family) == Address(ACME, *expected)


@pytest.mark.parametrize(
    ("text", "family", "says"),
    [
        ("", None, "missing"),
        ("   ", None, "missing"),
        ("0151 12345678", None, "international form"),
        ("4155550123", None, "international form"),
        ("14155550123", None, "international form"),
        ("12345", None, "international form"),
        ("ACME", None, "international form"),
        ("whatsapp:015112345678", None, "international form"),
        ("rcs:14155550123", None, "international form"),
        ("tel:0151-12345678", Family.VOICE, "international form"),
        ("client:bob", Family.VOICE, "international form"),
        ("+1415", None, "of no country, or too short"),
        ("+999123456789", None, "of no country"),
        ("+1415555012345678901", None, "too long"),
        ("+14155550123,+14155550124", None, "of no country"),
        ("whatsapp:+1415", None, "too short"),
        ("+14155550123;ext=", None, "of no country"),
        ("whatsapp:+14155550123x", None, "of no country"),
        ("whatsapp:+1 415 555 0123 home", None, "of no country"),
        ("rcs:+14155550123 (Anna)", None, "of no country"),
        ("whatsapp:tel:+14155550123", None, "behind the channel"),
        ("sms:whatsapp:+14155550123", None, "behind the channel"),
        ("whatsapp://send?phone=14155550123", None, "behind the channel"),
        ("email:john@example.com", None, "behind the channel"),
        ("Dr:John <john@example.com>", None, "behind the channel"),
        ("mailto:john@example.com", Family.PHONE, "behind the channel"),
        ("mailto:john%40example.com", None, "behind the channel"),
        ("mailto:john%2Bnews@example.com", None, "part of a URI"),
        ('"jo\\hn"@example.com', None, "no e-mail address"),
        ("\uff4aohn@example.com", None, "look like others"),
        ("john@example.com", Family.PHONE, "none of this family"),
        ("john@example.com", Family.VOICE, "none of this family"),
        ("+14155550123", Family.EMAIL, "no e-mail address"),
        ("@example.com", None, "no e-mail address"),
        ("john@", None, "no domain"),
        ("john@example", None, "no domain"),
        ("john@example..com", None, "no domain"),
        ("john@exa mple.com", None, "no domain"),
        ("a@b.com,c@d.com", None, "no e-mail address"),
        ("a@b@example.com", None, "no e-mail address"),
        (f"{'a' * 65}@example.com", None, "longer than RFC 5321"),
        (f"a@{'b.' * 126}com", None, "longer than RFC 5321"),
        ("a" * 513, None, "longer than 512"),
        ("+14155550123\x00", None, "nobody sees"),
        ("jo\u200bhn@example.com", None, "nobody sees"),
        ("whatsapp:US.1\u202e2", None, "nobody sees"),
        ("john@ex\ud800.com", None, "nobody sees"),
    ],
)
def test_a_question_that_names_none_is_refused(text: str, family: Family | None, says: str) -> None:
    with pytest.raises(BackhaulError) as caught:
        address_of(ACME, text, family)
    error = caught.value
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "address")
    assert says in error.message
    assert error.fix


@pytest.mark.parametrize("text", ["0151 99887766", "+99988776655", "john.smith@localhost", "whatsapp:0151 99887766"])
def test_an_error_does_not_repeat_a_persons_address(text: str) -> None:
    with pytest.raises(BackhaulError) as caught:
        address_of(ACME, text)
    assert not any(part in str(caught.value) for part in (text, "99887766", "99988776655", "smith"))


@pytest.mark.parametrize(
    ("text", "family", "kept"),
    [
        ("0151 12345678", Family.PHONE, "0151 12345678"),
        ("12345", Family.PHONE, "12345"),
        ("no address", Family.EMAIL, "no address"),
        ("rcs:agent", Family.PHONE, "rcs:agent"),
        ("+999123456789", Family.PHONE, "+999123456789"),
    ],
)
def test_what_an_event_tells_is_kept_as_it_is(text: str, family: Family, kept: str) -> None:
    assert told_address(ACME, text, family) == Address(ACME, family, kept)


_PIECES = st.lists(
    st.sampled_from(
        ["+", "1", "415", "5550123", "@", "example.com", ":", "whatsapp", "rcs", "tel", " ", "<", ">", "\x00"]
    )
    | st.characters(),
    max_size=12,
).map("".join)


@given(_PIECES | st.text(max_size=600), st.sampled_from([None, *Family]))
@example("rcs:rcs:+14155550123", None)
@example("tel:tel:+14155550123", Family.PHONE)
@example("mailto:mailto:a@b.example", None)
@example("+0", None)
@example("whatsapp:+5531987654321;ext=1", Family.VOICE)
@example('"+14155550123"@example.com', None)
def test_any_text_is_an_address_or_an_error_and_both_sides_agree(text: str, family: Family | None) -> None:
    told = told_address(ACME, text, family)
    if (wrong := _wrong_with(text, family)) is not None:
        assert (wrong.code, wrong.field) == (Code.INVALID_ARGUMENT, "address")
        return
    asked = address_of(ACME, text, family)
    assert asked == told
    # Whoever asks about what was answered asks about the same.
    assert address_of(ACME, asked.text, asked.family) == asked


def _wrong_with(text: str, family: Family | None) -> BackhaulError | None:
    try:
        address_of(ACME, text, family)
    except BackhaulError as error:
        return error
    return None


def test_whatsapp_is_apart_unless_the_tenant_takes_it_for_the_number() -> None:
    number, whatsapp = (Address(ACME, Family.PHONE, text) for text in ("+14155550123", "whatsapp:+14155550123"))
    assert spellings(number, APART) == (number,)
    assert spellings(whatsapp, APART) == (whatsapp,)
    assert spellings(number, PHONE) == (number, whatsapp)
    assert spellings(whatsapp, PHONE) == (whatsapp, number)
    for other in (
        Address(ACME, Family.VOICE, "+14155550123"),
        Address(ACME, Family.EMAIL, "a@example.com"),
        Address(ACME, Family.PHONE, "whatsapp:US.1349"),
        Address(ACME, Family.PHONE, "messenger:1"),
        Address(ACME, Family.PHONE, "0151 1234"),
    ):
        assert spellings(other, PHONE) == (other,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+1 415 555 0100", "+14155550100"),
        ("rcs:+14155550100", "+14155550100"),
        ("rcs:My_Agent", "rcs:My_Agent"),
        ("whatsapp:+14155550100", "whatsapp:+14155550100"),
        ("12345", "12345"),
        ("ACME", "ACME"),
        ("News@Example.com", "news@example.com"),
        ("whatsapp:+5215512345678", "whatsapp:+525512345678"),
        ("", ""),
        (" ", ""),
    ],
)
def test_a_sender_has_one_spelling(text: str, expected: str) -> None:
    assert sender_of(text) == expected
    assert sender_of(expected) == expected
