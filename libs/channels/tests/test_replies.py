"""What replies mean: the exact ones, the likely ones, and all others."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from backhaul_channels import Classification, Confidence, ConsentAction, ReplySettings
from backhaul_channels.replies.classify import MAX_LIKELY_WORDS, MAX_TEXT, classify
from backhaul_channels.replies.keywords import KEYWORDS, LANGUAGES, MISSPELLINGS, REQUIRED
from backhaul_channels.replies.lexicon import MIN_EDITED, one_edit
from backhaul_channels.replies.normal import normal_form
from backhaul_channels.replies.settings import STORED, key_of
from hypothesis import assume, given
from hypothesis import strategies as st

DEFAULT = ReplySettings()
REPLIES: dict[str, list[str]] = json.loads((Path(__file__).parent / "real_replies.json").read_text("utf-8"))

KEYWORD_PAIRS = [(action, word) for action, words in KEYWORDS.items() for word in words]
SHORT = sorted({word.lower() for _, word in KEYWORD_PAIRS if word.isalpha() and len(word) < MIN_EDITED})
LONG = sorted({word.lower() for _, word in KEYWORD_PAIRS if word.isalpha() and len(word) >= MIN_EDITED})
MISSPELT = {form(word) for words in MISSPELLINGS.values() for word in words for form in (normal_form, key_of)}

any_text = st.text(st.characters(exclude_categories=[]), max_size=60)
no_keyword = st.sampled_from(["zq", "Anna", "5", "ok", "non-stop", "weekend", "été", "don't", "停止"])
around = st.lists(
    st.sampled_from(
        [
            *("", *" \t\n\u00a0\u3000\u200b\u2060\ufeff\u00ad", *".,!;:…\"'“”„«»()*_~-¡", "\u2039", "\u203a"),
            *("🛑", "👍", "✋", "☹", "❤", "\u2139", "™", "❤\ufe0f", "👨\u200d👩\u200d👧", "🇨🇦", "👍🏽"),
            *("1\ufe0f\u20e3", "🏴\U000e0067\U000e0062\U000e007f"),
        ]
    ),
    max_size=5,
).map("".join)
question_marks = ["?", "\uff1f", "\u061f", "¿", "\u037e", "\u055e", "\u2049", "❓"]


def said(text: str, settings: ReplySettings = DEFAULT, choices: tuple[str, ...] = ()) -> Classification:
    return classify(text, None, settings, choices) or Classification()


def meaning(found: Classification) -> str:
    return f"{found.confidence} {found.action} {found.word}" if found.action else ""


def settings_of(**settings: Any) -> ReplySettings:
    return ReplySettings.model_validate(settings)


@pytest.mark.parametrize(("expected", "text"), [(expected, text) for expected in REPLIES for text in REPLIES[expected]])
def test_what_people_reply(expected: str, text: str) -> None:
    assert meaning(said(text)) == expected


@given(any_text, st.one_of(st.none(), st.sampled_from(ConsentAction)), st.lists(any_text, max_size=3))
def test_no_text_raises_and_what_comes_out_fits_together(
    text: str, told: ConsentAction | None, choices: list[str]
) -> None:
    found = classify(text, told, DEFAULT, choices)
    assert (found is None) == (told is None and not text and not choices)
    if found is None:
        return
    assert (found.confidence is Confidence.UNKNOWN) == (found.action is None)
    assert (found.templates, found.survey_response) == ((), False)
    if told is not None:
        assert (found.confidence, found.action) == (Confidence.PROVIDER, told)


@given(
    st.sampled_from(KEYWORD_PAIRS), around, around, st.sampled_from([" ", "  ", "\n", "\u00a0", "\u2003"]), st.data()
)
def test_what_stands_around_a_keyword_and_how_it_is_written_changes_nothing(
    pair: tuple[ConsentAction, str], before: str, after: str, blank: str, data: st.DataObject
) -> None:
    action, word = pair
    text = "".join(data.draw(st.sampled_from([char.lower(), char.upper()])) for char in word.replace(" ", blank))
    form = data.draw(st.sampled_from(["", "NFC", "NFD", "NFKC", "NFKD"]))
    if form:
        text = unicodedata.normalize(form, text)  # type: ignore[arg-type]  # the four forms
    if data.draw(st.booleans()):
        text = "".join(chr(ord(char) + 0xFEE0) if char.isascii() and char.isalpha() else char for char in text)
    assert meaning(said(f"{before}{text}{after}")) == f"exact {action} {word}"


@given(
    st.sampled_from(SHORT + LONG),
    st.text("abcdeéñßжت一0123456789", max_size=3),
    st.text("abcdeéñß", max_size=3),
    no_keyword,
)
def test_no_keyword_is_found_inside_of_a_longer_word(keyword: str, before: str, after: str, other: str) -> None:
    word = f"{before}{keyword}{after}"
    form = normal_form(word)
    known = {normal_form(one) for _, one in KEYWORD_PAIRS} | MISSPELT
    assume(form not in known)
    assume(not any(one_edit(form, one) for one in LONG))
    assume(not any(char * 3 in form for char in form))
    assert said(word).action is None
    assert said(f"{other} {word}").action is None
    assert said(f"{keyword}-{other} {before}x-{keyword}").action is None


@given(st.lists(no_keyword, max_size=12), st.sampled_from(KEYWORD_PAIRS), st.integers(0, 12))
def test_a_keyword_among_a_few_words_is_likely_and_among_more_it_is_nothing(
    words: list[str], pair: tuple[ConsentAction, str], at: int
) -> None:
    action, keyword = pair
    assume(words)
    words.insert(min(at, len(words)), keyword)
    found = said(" ".join(words))
    if len(" ".join(words).split()) > MAX_LIKELY_WORDS:
        assert found.action is None
    else:
        assert (found.confidence, found.action) == (Confidence.LIKELY, action)


@given(any_text, any_text, st.sampled_from(question_marks), st.sampled_from(SHORT))
def test_nothing_that_asks_is_likely(before: str, after: str, mark: str, keyword: str) -> None:
    assert said(f"{before}{mark} {keyword} {after}").confidence is not Confidence.LIKELY


@pytest.mark.parametrize("mark", question_marks)
@pytest.mark.parametrize("word", ["START", "YES", "UNSTOP"])
def test_nobody_opts_in_by_asking(word: str, mark: str) -> None:
    assert said(f"{word}{mark}").action is None


def edits(word: str) -> set[str]:
    """All that one letter more, less or another, or two exchanged neighbours make of ``word``."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    cuts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    made = {left + letter + right for left, right in cuts for letter in letters}
    made |= {left + letter + right[1:] for left, right in cuts if right for letter in letters}
    made |= {left + right[1:] for left, right in cuts if right}
    made |= {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
    return made - {word}


@given(st.sampled_from([*LONG, "abcabca", "aaaaaaa"]), st.data())
def test_one_edit_is_one_letter_or_two_neighbours(word: str, data: st.DataObject) -> None:
    near = edits(word)
    other = data.draw(st.one_of(st.sampled_from(sorted(near)), st.text("abcsun", min_size=5, max_size=8)))
    again = data.draw(st.sampled_from(sorted(edits(other)))) if other else word
    for one in (other, again, word):
        assert one_edit(one, word) == one_edit(word, one) == (one in near)


@given(st.sampled_from(LONG), st.data())
def test_a_long_keyword_may_be_misspelt_once(keyword: str, data: st.DataObject) -> None:
    once = data.draw(st.sampled_from(sorted(edits(keyword))))
    assert meaning(said(once)) == f"likely opt_out {keyword.upper()}" or said(once).confidence is Confidence.EXACT
    assert said(f"please {once}").confidence is Confidence.LIKELY
    twice = data.draw(st.sampled_from(sorted(edits(once))))
    assume(not any(one_edit(twice, one) or twice == one for one in LONG))
    assume(twice not in MISSPELT and not any(letter * 3 in twice for letter in twice))
    assert said(twice).action is None


@given(st.sampled_from(SHORT), st.data())
def test_a_short_keyword_may_only_be_misspelt_as_is_known(keyword: str, data: st.DataObject) -> None:
    once = data.draw(st.sampled_from(sorted(edits(keyword))))
    assume(once not in SHORT and once not in LONG)
    assume(not any(one_edit(once, one) for one in LONG))
    assume(not any(letter * 3 in once for letter in once))
    assert (said(once).confidence is Confidence.LIKELY) == (once in MISSPELT)


@pytest.mark.parametrize(("keyword", "word"), [(one, word) for one in MISSPELLINGS for word in MISSPELLINGS[one]])
def test_a_known_misspelling_is_likely(keyword: str, word: str) -> None:
    assert said(word).confidence is Confidence.LIKELY
    assert said(word).action is said(keyword).action
    assert said(f"{word}!").confidence is Confidence.LIKELY


@given(st.sampled_from([word for word in SHORT if len(word) > 2]), st.integers(2, 9))
def test_a_letter_typed_again_and_again_is_that_letter(keyword: str, more: int) -> None:
    assert said(keyword + keyword[-1] * more).confidence is Confidence.LIKELY


@pytest.mark.parametrize(("name", "action", "word"), [
    (name, action, word)
    for name, language in LANGUAGES.items()
    for action, words in language.keywords.items()
    for word in words
])  # fmt: skip
def test_a_language_adds_its_keywords_with_their_accents_and_without(
    name: str, action: ConsentAction, word: str
) -> None:
    settings = settings_of(languages=[name])
    for text in (word, word.lower(), unicodedata.normalize("NFD", word), key_of(word)):
        found = said(text, settings)
        assert (found.confidence, found.action) == (Confidence.EXACT, action)
    everywhere = {key_of(one) for _, one in KEYWORD_PAIRS}
    assert (said(word).confidence is Confidence.EXACT) == (key_of(word) in everywhere)


def test_added_words_are_keywords_like_all_others() -> None:
    settings = settings_of(
        added={"stop": ["Basta!", "Kein Interesse", "detenganse"], "start": ["weiter"], "help": ["¿Qué?"]}
    )
    assert meaning(said("basta", settings)) == "exact opt_out BASTA"
    assert meaning(said("Kein  interesse.", settings)) == "exact opt_out KEIN INTERESSE"
    assert meaning(said("wirklich kein interesse", settings)) == "likely opt_out KEIN INTERESSE"
    assert meaning(said("detenganze", settings)) == "likely opt_out DETENGANSE"
    assert meaning(said("WEITER", settings)) == "exact opt_in WEITER"
    assert meaning(said("que", settings)) == "exact help QUÉ"
    assert said("interesse", settings).action is None
    assert said("basto", settings).action is None


def test_a_number_is_a_keyword_by_itself_only() -> None:
    settings = settings_of(added={"stop": ["9"]})
    assert meaning(said("9.", settings)) == "exact opt_out 9"
    assert meaning(said("9\ufe0f\u20e3 👍", settings)) == "exact opt_out 9"
    assert said("see you at 9", settings).action is None


def test_what_is_removed_means_nothing_nor_does_its_misspelling() -> None:
    settings = settings_of(removed=["unsub", "yes"])
    assert [said(text, settings).action for text in ("UNSUB", "unsubs", "yes", "yesss", "YES please")] == [None] * 5
    assert meaning(said("stop", settings)) == "exact opt_out STOP"


words = st.lists(st.one_of(st.sampled_from([*REQUIRED, "zq", "YES"]), st.text(min_size=1, max_size=8)), max_size=4)


@given(words, words, words, words, words, st.booleans())
def test_no_settings_take_away_what_a_law_requires(
    removed: list[str], stop: list[str], start: list[str], helping: list[str], template: list[str], capture: bool
) -> None:
    """Not even such as only a newer version would have taken."""
    comparable = [
        [one for one in given_words if normal_form(one)] for given_words in (removed, stop, start, helping, template)
    ]
    removed, stop, start, helping, template = comparable
    settings = ReplySettings.model_validate(
        {
            "removed": removed,
            "added": {"stop": stop, "start": start, "help": helping},
            "templates": [{"name": "Poll", "keywords": template}] if template else [],
            "capture_survey_responses": capture,
        },
        context=STORED,
    )
    for word in REQUIRED:
        assert (said(word, settings).confidence, said(word, settings).action) == (Confidence.EXACT, said(word).action)


def poll(*words: str, **settings: Any) -> ReplySettings:
    return settings_of(capture_survey_responses=True, templates=[{"name": "Poll", "keywords": words}], **settings)


def test_a_template_counts_what_is_one_of_its_words_as_a_whole() -> None:
    settings = poll("Blue", "dark red", "Größe M")
    for text in ("blue", " BLUE! 👍", "Dark  red", "größe m"):
        assert said(text, settings) == Classification(templates=("Poll",))
    for text in ("blues", "blue please", "red", "bleu"):
        assert said(text, settings) == Classification(survey_response=True)


def test_stop_wins_over_a_template_and_a_template_over_start_and_each_counts() -> None:
    settings = poll("stop", "start", "yes", "help", "no")
    assert said("Stop", settings) == Classification(Confidence.EXACT, ConsentAction.OPT_OUT, "STOP", ("Poll",))
    assert said("START", settings) == said("Yes!", settings) == said("no", settings)
    assert said("START", settings) == Classification(templates=("Poll",))
    # Who asks for help is told something, which is no matter of consent.
    assert said("help", settings) == Classification(Confidence.EXACT, ConsentAction.HELP, "HELP", ("Poll",))


def test_what_a_template_names_as_a_whole_is_nothing_that_has_to_be_guessed() -> None:
    assert said("Cancel appointment", poll("cancel appointment")) == Classification(templates=("Poll",))
    assert said("Cancel appointments", poll("cancel appointment")).confidence is Confidence.LIKELY


def test_a_reply_may_be_of_several_templates() -> None:
    templates = [{"name": name, "keywords": ["blue"]} for name in ("b", "a", "c")]
    settings = settings_of(capture_survey_responses=True, templates=templates)
    assert said("blue", settings).templates == ("a", "b", "c")
    assert said("Sure", settings, ("blue",)).templates == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "captured"),
    [
        *(("It was great, thank you", True), ("👍", True), ("10", True), ("x" * (MAX_TEXT + 1), True)),
        # Nothing follows from these but that they are answers.
        *(("yes please", True), ("I need help", True), ("START?", True)),
        *(("stop", False), ("START", False), ("help", False), ("please stop", False), ("", False), (" \n", False)),
    ],
)
def test_free_text_is_a_survey_response_where_it_is_captured(text: str, captured: bool) -> None:
    assert said(text, settings_of(capture_survey_responses=True)).survey_response is captured
    assert said(text).survey_response is False


@pytest.mark.parametrize(("likely_stop", "captured"), [("flag", False), ("apply", False), ("ignore", True)])
def test_what_is_likely_an_opt_out_is_an_answer_only_where_that_is_ignored(likely_stop: str, captured: bool) -> None:
    found = said("please stop", settings_of(capture_survey_responses=True, likely_stop=likely_stop))
    assert (meaning(found), found.survey_response) == ("likely opt_out STOP", captured)


def test_the_providers_word_wins_over_text_and_templates() -> None:
    settings = poll("join", "stop")
    found = classify("join", ConsentAction.OPT_OUT, settings)
    assert found == Classification(Confidence.PROVIDER, ConsentAction.OPT_OUT, "JOIN", ("Poll",))
    found = classify("stop", ConsentAction.OPT_IN, settings)
    assert found == Classification(Confidence.PROVIDER, ConsentAction.OPT_IN, "STOP", ("Poll",))
    assert classify("", ConsentAction.OPT_OUT, DEFAULT) == Classification(Confidence.PROVIDER, ConsentAction.OPT_OUT)


def test_a_long_text_is_no_keyword_however_it_begins() -> None:
    assert said("STOP" + "!" * (MAX_TEXT - 4)).confidence is Confidence.EXACT
    assert said("STOP" + " " * 100_000).confidence is Confidence.EXACT
    assert said("STOP" + "!" * (MAX_TEXT - 3)) == Classification()
