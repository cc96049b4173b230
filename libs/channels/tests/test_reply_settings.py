"""What a tenant may set of how replies are understood, and what is refused, with a reason."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from backhaul_channels import ChannelSettings, ConversationSettings, LikelyStop, ReplySettings
from backhaul_channels.replies.keywords import ANSWERS, KEYWORDS, LANGUAGES, REQUIRED
from backhaul_channels.replies.settings import MAX_KEYWORD, MAX_TEMPLATES, MAX_WORDS, key_of
from pydantic import ValidationError


def replies(**settings: Any) -> ReplySettings:
    return ConversationSettings.model_validate({"replies": settings}).replies


def template(name: str, *keywords: str) -> dict[str, Any]:
    return {"name": name, "keywords": keywords}


def test_a_channel_that_sets_nothing_flags_what_is_likely_and_captures_nothing() -> None:
    settings = ConversationSettings().replies
    assert (settings.likely_stop, settings.capture_survey_responses) == (LikelyStop.FLAG, False)
    assert (settings.templates, settings.languages, settings.window_days) == ((), (), 7)


def test_a_channel_without_conversations_has_no_such_settings() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        ChannelSettings.model_validate({"replies": {}})


def test_settings_are_comparable_and_go_through_json() -> None:
    settings = ConversationSettings.model_validate(
        {"replies": {"capture_survey_responses": True, "templates": [template("Size", "Small", "ÉTÉ")]}}
    )
    assert ConversationSettings.model_validate_json(settings.model_dump_json()) == settings
    assert hash(settings) != hash(ConversationSettings())


def test_templates_need_capturing() -> None:
    with pytest.raises(ValidationError, match="capture_survey_responses"):
        replies(templates=[template("Size", "small")])
    assert replies(capture_survey_responses=True, templates=[template("Size", "small")]).templates[0].name == "Size"


@pytest.mark.parametrize("name", ["", " Size", "Size ", "Größe", "a" * 65, "a\nb", "$where", "a.b", "\u200b"])
def test_names_of_templates_are_visible_plain_characters(name: str) -> None:
    with pytest.raises(ValidationError):
        replies(capture_survey_responses=True, templates=[template(name, "small")])


def test_names_of_templates_differ_by_more_than_their_case() -> None:
    with pytest.raises(ValidationError, match="same name"):
        replies(capture_survey_responses=True, templates=[template("Size", "small"), template("size", "large")])


def test_a_template_may_have_a_word_that_opts_out_or_in() -> None:
    settings = replies(capture_survey_responses=True, templates=[template("Poll", "stop", "start", "blue")])
    assert settings.templates[0].keywords == ("stop", "start", "blue")


@pytest.mark.parametrize("word", ["", "!!!", "👍", "\u200b", "a" * (MAX_KEYWORD + 1)])
@pytest.mark.parametrize("where", ["added", "removed", "templates"])
def test_a_word_can_be_compared_with_a_reply(where: str, word: str) -> None:
    given: dict[str, Any] = {"added": {"stop": [word]}, "removed": [word], "templates": [template("Poll", word)]}
    with pytest.raises(ValidationError):
        replies(capture_survey_responses=True, **{where: given[where]})


def test_words_and_templates_are_bounded() -> None:
    words = [f"word {number}" for number in range(MAX_WORDS + 1)]
    templates = [template(f"Poll {number}", "a") for number in range(MAX_TEMPLATES + 1)]
    assert len(replies(added={"stop": words[1:]}).added.stop) == MAX_WORDS
    for settings in (
        {"added": {"stop": words}},
        {"added": {"start": words}},
        {"added": {"help": words}},
        {"capture_survey_responses": True, "templates": [template("Poll", *words)]},
        {"capture_survey_responses": True, "templates": [template("Poll")]},
        {"capture_survey_responses": True, "templates": templates},
        {"window_days": 0},
        {"window_days": 91},
    ):
        with pytest.raises(ValidationError):
            replies(**settings)


@pytest.mark.parametrize(
    ("word", "law"),
    [
        *((word, "47 CFR 64.1200") for word in ("stop", "quit", "end", "revoke", "opt out", "cancel", "unsubscribe")),
        *((word, "Canada") for word in ("STOP", "ARRET", "HELP", "AIDE", "INFO", "Arrêt", "ARRE\u0302T")),
        *((word, "47 CFR 64.1200") for word in ("Opt-Out", "OPTOUT", " stop! ", "\u201cend\u201d")),
    ],
)
def test_what_a_law_requires_stays_and_the_law_is_named(word: str, law: str) -> None:
    with pytest.raises(ValidationError, match=law):
        replies(removed=[word])


@pytest.mark.parametrize("word", ["TD", "remove", "unsub", "STOPALL", "yes", "start", "unstop", "BAJA"])
def test_all_other_words_may_go(word: str) -> None:
    assert replies(removed=[word]).removed == (word,)


def test_a_word_has_one_meaning() -> None:
    with pytest.raises(ValidationError, match="STOP cannot be added to start"):
        replies(added={"start": ["stop"]})
    with pytest.raises(ValidationError, match="MORE! cannot be added to help"):
        replies(added={"start": ["more"], "help": ["More!"]})
    with pytest.raises(ValidationError, match="BAJA cannot be added to start"):
        replies(languages=["es"], added={"start": ["baja"]})
    assert replies(added={"start": ["baja"]}).added.start == ("baja",)
    # Where a word has gone, it may come back as another.
    assert replies(removed=["YES"], added={"help": ["yes"]}).added.help == ("yes",)
    # What is there already does no harm.
    assert replies(added={"stop": ["stop"]}).added.stop == ("stop",)


def test_languages_are_those_that_there_are_keywords_for() -> None:
    assert replies(languages=["es", "pt", "es"]).languages == ("es", "pt")
    with pytest.raises(ValidationError, match="'tlh'"):
        replies(languages=["tlh"])


def test_what_a_newer_version_stored_does_not_take_the_channels_other_settings_away() -> None:
    stored = {
        "communication_keys": ["batch"],
        "replies": {
            "languages": ["es", "tlh"],
            "removed": ["STOP", "TD"],
            "added": {"start": ["cancel"], "pause": ["wait"]},
            "likely_stop": "apply",
            "tone": "calm",
        },
    }
    settings = ConversationSettings.of_stored(stored)
    assert settings.communication_keys == ("batch",)
    assert (settings.replies.languages, settings.replies.removed) == (("es",), ("TD",))
    assert settings.replies.likely_stop is LikelyStop.APPLY


def test_in_all_languages_together_a_word_has_one_meaning() -> None:
    everywhere = ReplySettings(languages=tuple(LANGUAGES))
    assert everywhere.languages == tuple(LANGUAGES)
    meanings = [
        {(key_of(word), action) for action, words in keywords.items() for word in words}
        for keywords in (KEYWORDS, *(language.keywords for language in LANGUAGES.values()))
    ]
    pairs = set(chain.from_iterable(meanings))
    assert len({word for word, _ in pairs}) == len(pairs)


def test_the_tables_speak_of_the_same_words() -> None:
    of_languages = {name: set(chain(*one.keywords.values())) for name, one in LANGUAGES.items()}
    for name, language in LANGUAGES.items():
        assert language.verified <= of_languages[name], name
    every = set(chain(*KEYWORDS.values()))
    assert set(REQUIRED) <= every
    assert every.union(*of_languages.values()) >= ANSWERS
    assert all(len(word) <= MAX_KEYWORD for word in every.union(*of_languages.values()))
