"""What is the same for all providers: declared parameters, and the meaning of error codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
from backhaul_channels import (
    Adapter,
    ChannelSettings,
    Context,
    ErrorClass,
    ErrorMeaning,
    EventKind,
    Ignored,
    NormalizedEvent,
    RawCallback,
)
from backhaul_channels.reading import read_part
from pydantic import ValidationError


class OneWord(Adapter[ChannelSettings]):
    """A part is an error code; nothing at all is ignored."""

    provider: ClassVar[str] = "one_word"
    labels: ClassVar[tuple[str, ...]] = ()
    ignores: ClassVar[frozenset[str]] = frozenset({"empty"})

    def split(self, callback: RawCallback, settings: ChannelSettings) -> Sequence[bytes]:  # none needed.
        return [callback.body]

    def explain(self, code: str) -> ErrorMeaning | None:
        return ErrorMeaning("It is full.", ErrorClass.TRANSIENT, "https://one.example/7") if code == "7" else None

    def normalize(self, part: bytes, context: Context[ChannelSettings]) -> NormalizedEvent | Ignored:  # none needed.
        if not part:
            return Ignored("empty")
        return NormalizedEvent(EventKind.FAILED, "key", "failed", error_code=part.decode(), vars=[("Category", "")])


def read(part: bytes, settings: ChannelSettings, *parameters: tuple[str, str]) -> NormalizedEvent:
    event = read_part(OneWord(), part, Context(settings, parameters))
    assert isinstance(event, NormalizedEvent)
    return event


def declared(*parameters: dict[str, object]) -> ChannelSettings:
    return ChannelSettings.model_validate({"parameters": parameters})


def test_a_known_code_gets_its_text_its_class_and_its_address() -> None:
    event = read(b"7", ChannelSettings())
    assert (event.error_text, event.error_class) == ("It is full.", ErrorClass.TRANSIENT)
    assert event.error_url == "https://one.example/7"


def test_an_unknown_code_is_kept_without_a_class() -> None:
    event = read(b"8", ChannelSettings())
    assert (event.error_code, event.error_class, event.error_url) == ("8", ErrorClass.UNKNOWN, "")


def test_a_part_that_is_ignored_stays_so() -> None:
    assert read_part(OneWord(), b"", Context(declared({"name": "id", "required": True}))) == Ignored("empty")


def test_what_lacks_gets_its_default_or_is_flagged() -> None:
    settings = declared({"name": "id", "required": True}, {"name": "category", "default": "none"}, {"name": "other"})
    event = read(b"7", settings)
    assert event.missing_parameters == ["id"]
    assert event.vars == [("Category", ""), ("category", "none")]


def test_parameters_are_found_whatever_their_case_in_the_url_and_beside_the_message() -> None:
    settings = declared({"name": "id", "required": True}, {"name": "category", "default": "none"})
    event = read(b"7", settings, ("ID", "1"), ("CATEGORY", "news"))
    assert (event.missing_parameters, event.vars) == ([], [("Category", "")])


def test_what_is_required_has_no_default() -> None:
    with pytest.raises(ValidationError, match="default"):
        declared({"name": "id", "required": True, "default": "0"})


@pytest.mark.parametrize(
    ("names", "said"), [(("id", "ID"), "declared twice"), (("id", "ChannelLabel"), "names the channel")]
)
def test_a_parameter_is_declared_once_and_is_the_senders_own(names: Sequence[str], said: str) -> None:
    parameters: list[dict[str, object]] = [{"name": name} for name in names]
    with pytest.raises(ValidationError, match=said):
        declared(*parameters)
    assert len(ChannelSettings.of_stored({"parameters": parameters}).parameters) == 2


def test_stored_settings_may_hold_what_only_a_newer_version_knows() -> None:
    stored = {"parameters": [{"name": "id", "color": "red"}], "size": 4}
    assert ChannelSettings.of_stored(stored).parameters[0].name == "id"
    with pytest.raises(ValidationError):
        ChannelSettings.model_validate(stored)
