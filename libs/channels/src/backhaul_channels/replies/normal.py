"""One form of each text, by which a reply and a keyword are compared. Pure, and linear in the text."""

from __future__ import annotations

import re
import unicodedata

# What nobody sees: formatting and control characters are known by their category; these have others. Variation
# selectors, the joiner of graphemes, and letters that are blank.
_BLANK_LETTERS = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
_INVISIBLE = re.compile(
    rf"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    rf"\ufff9-\ufffb\U000e0000-\U000e007f{_BLANK_LETTERS}]"
)

# Emoji that NFKC would turn into letters, so that it comes after they are gone; and those made of a digit.
_LETTER_EMOJI = (
    "\u2122\u2139\u24c2\u3297\u3299\U0001f201\U0001f202\U0001f21a\U0001f22f\U0001f232-\U0001f23a\U0001f250\U0001f251"
)
_EMOJI_AT_ENDS = re.compile(rf"^[\s{_LETTER_EMOJI}]+|[\s{_LETTER_EMOJI}]+$")
_KEYCAP = re.compile(r"[0-9#*]\u20e3")

_DASHES = re.compile(r"[\u2010-\u2015\u2043\u2212\ufe58\ufe63\uff0d]")
_ASCII_NO_WORD = "".join(chr(code) for code in range(128) if not chr(code).isalnum())


def normal_form(text: str) -> str:
    """``text`` without what surrounds its words (white space, invisible characters, emoji, quotes, punctuation), with
    one blank between them, letters that Unicode calls compatible being alike, whatever their case.

    Accents count: a keyword that people also write without says so in its own forms.
    """
    if text.isascii():
        # Most replies. Control characters are invisible here too, and those that are blanks stay.
        if not text.isprintable():
            text = _INVISIBLE.sub("", text)
        return " ".join(text.strip(_ASCII_NO_WORD).lower().split())
    text = _KEYCAP.sub(" ", _INVISIBLE.sub("", text))
    text = _EMOJI_AT_ENDS.sub("", text)
    text = unicodedata.normalize("NFKC", text)
    # Case folding may take letters apart, and NFKC may have made invisible characters of blank letters.
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).casefold())
    return " ".join(_bare(_DASHES.sub("-", text)).split())


def without_accents(text: str) -> str:
    """``text``, a normal form, without its accents."""
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(char for char in apart if unicodedata.category(char) != "Mn"))


def _bare(text: str) -> str:
    """Without what is no letter, mark or number at either end."""
    start, end = 0, len(text)
    while start < end and unicodedata.category(text[start])[0] not in "LN":
        start += 1
    while end > start and unicodedata.category(text[end - 1])[0] not in "LNM":
        end -= 1
    return text[start:end]
