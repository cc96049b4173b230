"""One form of each text, by which a reply and a keyword are compared, and its words. Pure, and linear in the text."""

from __future__ import annotations

import re
import unicodedata

# What nobody sees: formatting and control characters, variation selectors, the joiner of graphemes, blank letters.
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e007f"
    r"\U000e0100-\U000e01ef]"
)
_CAP = "\u20e3"
_KEYCAP = re.compile(rf"[0-9#*]{_CAP}")
# Emoji that NFKC turns into letters.
_LETTER_EMOJI = frozenset(
    "\u2122\u2139\u24c2\u3297\u3299\U0001f201\U0001f202\U0001f21a\U0001f22f\U0001f250\U0001f251"
) | {chr(code) for code in range(0x1F232, 0x1F23B)}
_HYPHENS = re.compile(r"[\u2010\u2011\u2043\u2212]")
_ASCII_NO_WORD = "".join(chr(code) for code in range(128) if not chr(code).isalnum())

# In every script that has one of its own, and as an emoji.
_QUESTION_MARKS = re.compile("[?\u00bf\u037e\u055e\u061f\u1367\u2047-\u2049\u2753\u2754\u2e2e\ufe16\ufe56\uff1f]")

# What joins words into one. All else that is no letter, mark or number is between them.
_JOINERS = frozenset("'\u2019-_")


def normal_form(text: str) -> str:
    """``text`` without what surrounds its words (white space, invisible characters, emoji, quotes, punctuation), with
    one blank between them, letters that Unicode calls compatible being alike, whatever their case.

    Accents count: a keyword that people also write without has both forms.
    """
    if text.isascii():
        # Most replies. Control characters that are no blanks are invisible here too.
        if not text.isprintable():
            text = _INVISIBLE.sub("", text)
        return " ".join(text.strip(_ASCII_NO_WORD).lower().split())
    # Emoji before NFKC, which makes letters of some. A keycap that is all there is means its digit.
    text = _INVISIBLE.sub("", text)
    text = _bare(_KEYCAP.sub(" ", text)) or _bare(text.replace(_CAP, ""))
    # Case folding, unlike capitals, makes no ASCII letter of the dotless i.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_bare(_HYPHENS.sub("-", text)).split())


def without_accents(text: str) -> str:
    """``text``, a normal form, without its accents."""
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(char for char in apart if unicodedata.category(char) != "Mn"))


def words_of(text: str) -> list[str]:
    """The words of ``text``, a normal form. What is joined by a hyphen or an apostrophe is one word ("non-stop"), and
    so is an address."""
    words: list[str] = []
    for piece in text.split():
        if piece.isalnum() or _is_address(piece):
            words.append(piece)
        else:
            parts = "".join(char if _is_of_word(char) or char in _JOINERS else " " for char in piece).split()
            words.extend(word for word in map(_bare, parts) if word)
    return words


def asks(text: str) -> bool:
    """Whether there is a question mark in ``text``, of whichever script."""
    return _QUESTION_MARKS.search(text) is not None


def _is_address(piece: str) -> bool:
    return "@" in piece or "://" in piece or piece.startswith("www.") or ("/" in piece and "." in piece)


def _is_of_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN"


def _bare(text: str) -> str:
    """Without what is of no word at either end."""
    start, end = 0, len(text)
    while start < end and _surrounds(text[start]):
        start += 1
    while end > start and _surrounds(text[end - 1]):
        end -= 1
    return text[start:end]


def _surrounds(char: str) -> bool:
    if char in _LETTER_EMOJI:
        return True
    # Letters in circles are symbols by themselves.
    return not _is_of_word(char) and not any(map(_is_of_word, unicodedata.normalize("NFKC", char)))
