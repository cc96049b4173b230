"""What a tenant sets of how a channel's replies are understood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from backhaul_channels.event import ConsentAction
from backhaul_channels.replies.keywords import KEYWORDS, LANGUAGES, REQUIRED
from backhaul_channels.replies.normal import normal_form, without_accents

STORED: Final[Mapping[str, bool]] = {"stored": True}
"""The context of settings that are read from the store: a newer version may have written them, so that what this one
does not know is left out."""

MAX_KEYWORD = 34
MAX_WORDS = 20
MAX_TEMPLATES = 20


def _comparable(word: str) -> str:
    if not normal_form(word):
        raise ValueError(f"{word!r} has no letter and no digit, so that no reply could be compared with it.")
    return word


Keyword = Annotated[str, Field(min_length=1, max_length=MAX_KEYWORD), AfterValidator(_comparable)]
Keywords = Annotated[tuple[Keyword, ...], Field(max_length=MAX_WORDS)]


class LikelyStop(StrEnum):
    """What follows from a reply that is likely an opt-out. ``FLAG``: a person looks at it, and decides. ``APPLY``: it
    is one. ``IGNORE``: nothing."""

    FLAG = "flag"
    APPLY = "apply"
    IGNORE = "ignore"


class KeywordTemplate(BaseModel):
    """A name under which replies are counted that are one of its keywords, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-](?:[A-Za-z0-9 _-]*[A-Za-z0-9_-])?$")
    keywords: Keywords = Field(min_length=1)


class AddedKeywords(BaseModel):
    """A channel's own words, beside those that every channel has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stop: Keywords = Field(default=(), description="Words that opt out.")
    start: Keywords = Field(default=(), description="Words that opt in.")
    help: Keywords = Field(default=(), description="Words that ask for help.")

    def classes(self) -> Iterator[tuple[ConsentAction, tuple[str, ...]]]:
        """Each class with its words, the one that wins first."""
        yield ConsentAction.OPT_OUT, self.stop
        yield ConsentAction.OPT_IN, self.start
        yield ConsentAction.HELP, self.help


class ReplySettings(BaseModel):
    """How what people reply is understood. Words are compared as people write them: whatever their case, and whatever
    emoji, quotes and punctuation stand around them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    likely_stop: LikelyStop = Field(
        default=LikelyStop.FLAG,
        description="What follows from a reply that is likely an opt-out: flag (a person decides), apply or ignore.",
    )
    capture_survey_responses: bool = Field(
        default=False, description="Whether free text, and keyword templates, are counted as answers."
    )
    templates: tuple[KeywordTemplate, ...] = Field(
        default=(), max_length=MAX_TEMPLATES, description="Names, and the keywords that are counted under them."
    )
    languages: tuple[str, ...] = Field(
        default=(), max_length=len(LANGUAGES), description=f"Further sets of keywords: {', '.join(sorted(LANGUAGES))}."
    )
    added: AddedKeywords = Field(default=AddedKeywords(), description="Words of this channel's own, by class.")
    removed: tuple[Keyword, ...] = Field(
        default=(), max_length=3 * MAX_WORDS, description="Words that mean nothing here; none that a law requires."
    )
    window_days: int = Field(
        default=7, ge=1, le=90, description="How long after a message a reply without any reference may answer it."
    )

    @field_validator("languages")
    @classmethod
    def _known(cls, languages: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = tuple(dict.fromkeys(one for one in languages if one in LANGUAGES))
        if not is_stored(info) and set(known) != set(languages):
            unknown = ", ".join(repr(one) for one in languages if one not in LANGUAGES)
            raise ValueError(f"There are no keywords for {unknown}; there are for {', '.join(sorted(LANGUAGES))}.")
        return known

    @field_validator("removed")
    @classmethod
    def _not_required(cls, removed: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        required = {key_of(word): rule for word, rule in REQUIRED.items()}
        if not is_stored(info):
            for word in removed:
                rule = required.get(key_of(word))
                if rule is not None:
                    raise ValueError(f"{word.upper()} must stay: it is required by {rule}.")
        return tuple(word for word in removed if key_of(word) not in required)

    @model_validator(mode="after")
    def _fit(self, info: ValidationInfo) -> Self:
        if is_stored(info):
            return self
        if self.templates and not self.capture_survey_responses:
            raise ValueError(
                "Keyword templates count answers, so they need capture_survey_responses: set it to true, or leave the "
                "templates out."
            )
        names = [template.name.lower() for template in self.templates]
        if len(set(names)) < len(names):
            raise ValueError("Two keyword templates have the same name.")
        self._check_added()
        return self

    def _check_added(self) -> None:
        """A word means one thing."""
        meanings: dict[str, ConsentAction] = {}
        gone = {key_of(word) for word in self.removed}
        for keywords in (KEYWORDS, *(LANGUAGES[language].keywords for language in self.languages)):
            for action, words in keywords.items():
                meanings.update((key_of(word), action) for word in words if key_of(word) not in gone)
        for action, words in self.added.classes():
            for word in words:
                other = meanings.setdefault(key_of(word), action)
                if other is not action:
                    raise ValueError(
                        f"{word.upper()} cannot be added to {_CLASSES[action]}: it is a word of {_CLASSES[other]} here."
                    )


_CLASSES: Final[Mapping[ConsentAction, str]] = {
    ConsentAction.OPT_OUT: "stop",
    ConsentAction.OPT_IN: "start",
    ConsentAction.HELP: "help",
}


def key_of(word: str) -> str:
    """By which a keyword is added, removed and required: its normal form without accents."""
    return without_accents(normal_form(word))


def is_stored(info: ValidationInfo) -> bool:
    """Whether what is validated comes from the store, and not from somebody who can be told what is wrong."""
    return bool(info.context and info.context.get("stored"))
