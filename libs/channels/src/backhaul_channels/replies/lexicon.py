"""A channel's keywords, prepared so that a reply is looked up instead of compared with each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from backhaul_channels.event import ConsentAction
from backhaul_channels.replies.keywords import ANSWERS, KEYWORDS, LANGUAGES, MISSPELLINGS, REQUIRED
from backhaul_channels.replies.normal import normal_form, without_accents, words_of
from backhaul_channels.replies.settings import ReplySettings, key_of

MIN_EDITED = 7
"""Letters of a keyword from which on one letter more, less, another, or two exchanged still mean it."""

MAX_LEXICONS = 1024

# The first that a text has is what it means: who wants to stop and asks for help wants to stop.
ORDER: Final = (ConsentAction.OPT_OUT, ConsentAction.OPT_IN, ConsentAction.HELP)

_REPEATED = re.compile(r"(\w)\1{2,}")
_REQUIRED: Final = frozenset(map(key_of, REQUIRED))
_ANSWERS: Final = frozenset(map(key_of, ANSWERS))


class Meaning(NamedTuple):
    """A keyword, in capitals, and its class."""

    action: ConsentAction
    word: str


class Lexicon:
    """What words mean on a channel. Keys are normal forms."""

    __slots__ = ("_edited", "_likely", "_longest", "exact", "templates")

    def __init__(self, settings: ReplySettings) -> None:
        self.exact: dict[str, Meaning] = {}
        self.templates: dict[str, tuple[str, ...]] = _templates(settings)
        self._likely: dict[tuple[str, ...], Meaning] = {}
        self._edited: dict[int, list[tuple[str, Meaning]]] = {}
        removed = {key_of(word) for word in settings.removed} - _REQUIRED
        for action, word in _keywords(settings):
            if key_of(word) not in removed:
                self._add(Meaning(action, normal_form(word).upper()))
        for word, misspellings in MISSPELLINGS.items():
            meaning = self.exact.get(normal_form(word))
            if meaning is not None:
                for form in _forms(misspellings):
                    self._likely.setdefault(tuple(words_of(form)), meaning)
        self._longest = max(map(len, self._likely), default=0)

    def likely(self, words: Sequence[str]) -> Meaning | None:
        """The keyword among ``words``, as it is or misspelt, that counts before the others."""
        found = list(self._among(words))
        if len(words) > 2 and all(len(word) == 1 for word in words):
            # S T O P
            found.extend(self._among(["".join(words)]))
        return min(found, key=lambda meaning: ORDER.index(meaning.action), default=None)

    def _add(self, meaning: Meaning) -> None:
        for form in _forms([meaning.word]):
            words = words_of(form)
            if len(words) > 1:
                self.exact.setdefault("-".join(words), meaning)
            known = self.exact.setdefault(form, meaning)
            if not any(char.isalpha() for char in form):
                # A number means a keyword where nothing else is said.
                continue
            self._likely.setdefault(tuple(words), known)
            if sum(char.isalpha() for char in form) >= MIN_EDITED and len(words) == 1:
                self._edited.setdefault(len(form), []).append((form, known))

    def _among(self, words: Sequence[str]) -> Iterator[Meaning]:
        at = 0
        while at < len(words):
            # The longest first, and none of its words counts again: UN STOP is no STOP.
            for length in range(min(self._longest, len(words) - at), 0, -1):
                meaning = self._likely.get(tuple(words[at : at + length]))
                if meaning is not None:
                    break
            else:
                length, meaning = 1, self._misspelt(words[at])
            if meaning is not None:
                yield meaning
            at += length

    def _misspelt(self, word: str) -> Meaning | None:
        once = _REPEATED.sub(r"\1", word)
        if once != word and (once,) in self._likely:
            return self._likely[(once,)]
        for length in range(len(word) - 1, len(word) + 2):
            for keyword, meaning in self._edited.get(length, ()):
                if one_edit(word, keyword):
                    return meaning
        return None


@lru_cache(maxsize=MAX_LEXICONS)
def lexicon_of(settings: ReplySettings) -> Lexicon:
    """The words of a channel with ``settings``."""
    return Lexicon(settings)


def is_answer(word: str) -> bool:
    """Whether ``word`` answers many questions, so that it opts in only who is opted out."""
    return key_of(word) in _ANSWERS


def one_edit(one: str, other: str) -> bool:
    """Whether ``one`` becomes ``other`` by a letter more, less or another, or by two neighbours that are exchanged."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    start, shorter = 0, min(len(one), len(other))
    while start < shorter and one[start] == other[start]:
        start += 1
    left, right = one[start:], other[start:]
    if len(left) == len(right):
        return left[1:] == right[1:] or (left[:2] == right[1::-1] and left[2:] == right[2:])
    return left[1:] == right if len(left) > len(right) else left == right[1:]


def _keywords(settings: ReplySettings) -> Iterator[tuple[ConsentAction, str]]:
    """All words that the channel has, the one that counts first: a class before another, and what every channel has
    before what it adds."""
    added: Mapping[ConsentAction, tuple[str, ...]] = dict(settings.added.classes())
    for action in ORDER:
        for word in KEYWORDS[action]:
            yield action, word
    for action in ORDER:
        for language in settings.languages:
            for word in LANGUAGES[language].keywords[action]:
                yield action, word
        for word in added[action]:
            yield action, word


def _forms(words: Sequence[str]) -> Iterator[str]:
    """Each of ``words`` as it is written, and as it is written without accents."""
    for word in words:
        form = normal_form(word)
        yield form
        if (plain := without_accents(form)) != form:
            yield plain


def _templates(settings: ReplySettings) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for template in settings.templates:
        for form in _forms(template.keywords):
            found.setdefault(form, set()).add(template.name)
    return {form: tuple(sorted(names)) for form, names in found.items()}
