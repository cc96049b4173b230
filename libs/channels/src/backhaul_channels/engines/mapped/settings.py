"""What a tenant sets of a channel whose webhook is mapped. Whatever cannot work is refused here, by field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from backhaul_channels.engines.mapped.paths import EnvelopeText, ExpressionText, compile_envelope, compile_expression
from backhaul_channels.engines.mapped.reader import Reader, Rules
from backhaul_channels.engines.mapped.times import check_format, reader_of, zone_of
from backhaul_channels.engines.mapped.words import Direction, squeezed
from backhaul_channels.engines.times import MAX_TIME
from backhaul_channels.event import AddressFamily, EventKind
from backhaul_channels.replies.settings import STORED
from backhaul_channels.settings import ConversationSettings
from backhaul_channels.values import MAX_WORD

MAX_WORDS = 256
MAX_VARS = 8
MAX_SELECTIONS = 8
"""Selections in all paths of a mapping together: each may look at every element of a large body, and no other tenant's
callback is read meanwhile."""


def _word(word: str) -> str:
    if not squeezed(word):
        raise ValueError("A word has letters or digits.")
    return word


def _zone(name: str) -> str:
    zone_of(name)
    return name


Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD), AfterValidator(_word)]
"""A provider's word. Case, and what stands between letters and digits, makes no difference."""


class FieldMapping(BaseModel):
    """Where each field of an event stands: a JMESPath. Left out: by its usual names. Empty: nowhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event_id: ExpressionText | None = Field(None, description="The provider's own id of the event, if it has one.")
    message_id: ExpressionText | None = Field(
        None, validate_default=True, description="What names one message to one person."
    )
    status: ExpressionText | None = Field(None, description="The word that says what happened.")
    direction: ExpressionText | None = Field(None, description="The word that says which way the message went.")
    recipient: ExpressionText | None = Field(None, description="The address that the message went to.")
    sender: ExpressionText | None = Field(None, description="The address that it came from.")
    person: ExpressionText | None = Field(
        None, description="The person's address, where it stands in one field whichever way the message went."
    )
    timestamp: ExpressionText | None = Field(None, description="When it happened.")
    text: ExpressionText | None = Field(None, description="What a person wrote.")
    reply_to: ExpressionText | None = Field(None, description="The id of the message that an inbound one answers.")
    error_code: ExpressionText | None = Field(None, description="The provider's code of what went wrong.")
    error_text: ExpressionText | None = Field(None, description="What went wrong, in words.")
    communication: ExpressionText | None = Field(None, description="The sending that the message belongs to.")
    vars: tuple[ExpressionText, ...] | None = Field(
        None,
        max_length=MAX_VARS,
        description="Where the sender's custom parameters stand: objects, or arrays of objects with name and value.",
    )

    @field_validator("message_id")
    @classmethod
    def _something_tells_events_apart(cls, message_id: str | None, info: ValidationInfo) -> str | None:
        if message_id == "" and info.data.get("event_id") == "":
            raise ValueError(
                "Neither message_id nor event_id is read from anywhere, so that no two events could be told apart. "
                "Say where one of them stands, or leave one out to have it found by its usual names."
            )
        return message_id

    @model_validator(mode="after")
    def _costs_little(self) -> Self:
        paths = [text for field in self.model_fields_set if isinstance(text := getattr(self, field), str)]
        selections = sum(compile_expression(text).selections for text in (*paths, *(self.vars or ())) if text)
        if selections > MAX_SELECTIONS:
            raise ValueError(
                f"All paths together select elements of arrays, as headers[?name == 'X-Id'] does, {selections} times; "
                f"{MAX_SELECTIONS} times is the most."
            )
        return self


class MappedSettings(ConversationSettings):
    """Settings of a channel whose webhook is mapped."""

    envelope: EnvelopeText = Field(
        "",
        description="The path to the array of events, where the body is not itself an event or an array of them: "
        "results, or entry[].changes[].value.statuses.",
    )
    mapping: FieldMapping = FieldMapping()
    statuses: Mapping[Word, EventKind] = Field(
        default={}, max_length=MAX_WORDS, description="What the provider's words mean, beside the usual ones."
    )
    directions: Mapping[Word, Direction] = Field(
        default={}, max_length=MAX_WORDS, description="What its words of direction mean, beside the usual ones."
    )
    ignored: tuple[Word, ...] = Field(
        default=(), max_length=MAX_WORDS, description="Statuses that are no event; they are counted."
    )
    invalid_recipient: tuple[Word, ...] = Field(
        default=(),
        max_length=MAX_WORDS,
        description="Statuses and error codes by which the address does not exist, beside the usual ones.",
    )
    status_repeats: bool = Field(
        False, description="A message may have one status several times (opened); the time tells them apart."
    )
    time_format: Annotated[str, Field(max_length=MAX_TIME), AfterValidator(check_format)] = Field(
        "auto", description="auto, iso8601, rfc2822, unix_s, unix_ms, unix_us, or a format such as %d.%m.%Y %H:%M."
    )
    time_zone: Annotated[str, Field(max_length=64), AfterValidator(_zone)] = Field(
        "UTC", description="The zone of times that name none."
    )
    recipient_family: Literal["auto", "phone", "email", "voice"] = Field(
        "auto", description="Which kind of address the recipient's is; auto goes by what it looks like."
    )
    international_numbers: bool = Field(
        False, description="Numbers have their country's code, and no plus before it: it is put there."
    )

    @field_validator("statuses", mode="before")
    @classmethod
    def _kinds_of_a_newer_version(cls, statuses: object, info: ValidationInfo) -> object:
        if info.context is not STORED or not isinstance(statuses, Mapping):
            return statuses
        known = {*EventKind}
        return {word: kind if kind in known else EventKind.UNKNOWN for word, kind in statuses.items()}

    @field_validator("statuses", "directions")
    @classmethod
    def _one_meaning(cls, words: Mapping[str, Any]) -> Mapping[str, Any]:
        meanings: dict[str, Any] = {}
        for word, meaning in words.items():
            if meanings.setdefault(squeezed(word), meaning) is not meaning:
                raise ValueError(f"{word!r} is there twice, in two spellings with two meanings. Keep one.")
        return words

    @field_validator("mapping")
    @classmethod
    def _can_join(cls, mapping: FieldMapping, info: ValidationInfo) -> FieldMapping:
        if mapping.communication and not info.data.get("communication_keys", ("",)):
            raise ValueError(
                "communication joins nothing, since communication_keys is empty: leave one of them as it was."
            )
        return mapping

    @field_validator("status_repeats")
    @classmethod
    def _told_apart(cls, repeats: bool, info: ValidationInfo) -> bool:
        mapping = info.data.get("mapping")
        if repeats and isinstance(mapping, FieldMapping) and mapping.timestamp == "":
            raise ValueError("What repeats is told apart by its time: say in mapping.timestamp where that stands.")
        return repeats

    @model_validator(mode="after")
    def _is_readable(self) -> Self:
        # Made once, and here: whatever cannot work fails when it is set.
        self.reader  # noqa: B018  # cached.
        return self

    @cached_property
    def reader(self) -> Reader:
        """What reads the parts of this channel, prepared."""
        family = AddressFamily.UNKNOWN if self.recipient_family == "auto" else AddressFamily(self.recipient_family)
        mapping = self.mapping
        return Reader(
            Rules(
                envelope=compile_envelope(self.envelope),
                names=self.usual_names(),
                expressions={
                    field: text
                    for field in FieldMapping.model_fields
                    if field != "vars" and (text := getattr(mapping, field)) is not None
                },
                vars=mapping.vars,
                statuses={**self.usual_statuses(), **self.statuses},
                directions=self.directions,
                ignored=self.ignored,
                invalid_recipient=self.invalid_recipient,
                status_repeats=self.status_repeats,
                to_microseconds=reader_of(self.time_format, zone_of(self.time_zone)),
                time_format=self.time_format,
                family=family,
                international_numbers=self.international_numbers,
                own=frozenset(
                    name.casefold()
                    for name in (
                        *(one.name for one in self.parameters),
                        *self.communication_keys,
                        *self.batch_keys,
                        *self.member_keys,
                    )
                ),
                communication_key=self.communication_keys[0] if self.communication_keys else "",
            )
        )

    @classmethod
    def usual_names(cls) -> Mapping[str, str]:
        """Names that a field usually has, squeezed, the likeliest first: each with the field that it is."""
        return {}

    @classmethod
    def usual_statuses(cls) -> Mapping[str, EventKind]:
        """The provider's own words, beside those that all webhooks use."""
        return {}
