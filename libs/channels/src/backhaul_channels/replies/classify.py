"""What a reply means. Pure, total, and linear in its text."""

from __future__ import annotations

from collections.abc import Sequence

from backhaul_channels.event import Classification, Confidence, ConsentAction
from backhaul_channels.replies.lexicon import Lexicon, Meaning, lexicon_of
from backhaul_channels.replies.normal import asks, normal_form, words_of
from backhaul_channels.replies.settings import MAX_KEYWORD, LikelyStop, ReplySettings

MAX_TEXT = 1600
"""Characters, without blanks at its ends, up to which a text may be a keyword. Whatever is longer is free text."""

MAX_LIKELY_WORDS = 5
MAX_LIKELY = 200
"""Characters of five words, with some room for what people put between them."""


def classify(
    text: str, provider_action: ConsentAction | None, settings: ReplySettings, choices: Sequence[str] = ()
) -> Classification | None:
    """What ``text`` means on a channel with ``settings``; None where there is neither text nor anything else.

    ``provider_action`` is what the provider says that it means, which counts before all else. ``choices`` are what a
    button or an option stands for beside its text: templates may count them, and nothing else follows. Never raises.
    """
    if provider_action is None and not text and not choices:
        return None
    lexicon = lexicon_of(settings)
    form = _form(text)
    templates = _templates(lexicon, [form, *map(_form, choices)] if choices else [form])
    exact = lexicon.exact.get(form)
    if provider_action is not None:
        word = form.upper() if len(form) <= MAX_KEYWORD else ""
        return Classification(Confidence.PROVIDER, provider_action, word, templates)
    if exact is not None and _stands(exact, text, templates):
        return Classification(Confidence.EXACT, exact.action, exact.word, templates)
    # What a template says is what the tenant expected to be replied, so that nobody has to guess.
    likely = _likely(lexicon, text, form) if not templates else None
    free = settings.capture_survey_responses and not templates and not text.isspace() and text != ""
    if likely is None:
        return Classification(templates=templates, survey_response=free)
    # Nothing follows from what is likely, but from an opt-out; so it is an answer as well.
    undecided = likely.action is ConsentAction.OPT_OUT and settings.likely_stop is not LikelyStop.IGNORE
    return Classification(
        Confidence.LIKELY, likely.action, likely.word, templates, survey_response=free and not undecided
    )


def _form(text: str) -> str:
    text = text.strip()
    return normal_form(text) if len(text) <= MAX_TEXT else ""


def _templates(lexicon: Lexicon, forms: Sequence[str]) -> tuple[str, ...]:
    if not lexicon.templates:
        return ()
    return tuple(sorted({name for form in forms for name in lexicon.templates.get(form, ())}))


def _stands(exact: Meaning, text: str, templates: tuple[str, ...]) -> bool:
    """Whether ``exact`` is what is meant. Nobody opts in by asking, nor by what a template counts."""
    return exact.action is not ConsentAction.OPT_IN or not (templates or asks(text))


def _likely(lexicon: Lexicon, text: str, form: str) -> Meaning | None:
    if not form or len(form) > MAX_LIKELY or form.count(" ") >= 2 * MAX_LIKELY_WORDS or asks(text):
        return None
    words = words_of(form)
    return lexicon.likely(words) if len(words) <= MAX_LIKELY_WORDS else None
