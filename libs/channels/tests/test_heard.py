"""What follows from a reply: consent, a flag, or nothing; the same for every adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import pytest
from backhaul_channels import (
    Adapter,
    ChannelSettings,
    Classification,
    Confidence,
    Consent,
    ConsentAction,
    ConsentBy,
    ConsentScope,
    Context,
    ConversationSettings,
    EventKind,
    NormalizedEvent,
    RawCallback,
    Reply,
    Review,
)
from backhaul_channels.reading import read_part

OPT_OUT, OPT_IN = ConsentAction.OPT_OUT, ConsentAction.OPT_IN


class Echo(Adapter[ChannelSettings]):
    """Tells the event that it was made with."""

    provider: ClassVar[str] = "echo"
    labels: ClassVar[tuple[str, ...]] = ()

    def __init__(self, event: NormalizedEvent) -> None:
        self._event = event

    def split(self, callback: RawCallback, settings: ChannelSettings) -> Sequence[bytes]:  # none needed.
        return [callback.body]

    def normalize(self, part: bytes, context: Context[ChannelSettings]) -> NormalizedEvent:  # none needed.
        return self._event


def heard(text: str, replies: dict[str, Any] | None = None, **event: Any) -> NormalizedEvent:
    told = msgspec.structs.replace(
        NormalizedEvent(EventKind.INBOUND, "key", "received", text=text, recipient="+15005550010"), **event
    )
    before = msgspec.json.encode(told)
    settings = ConversationSettings.model_validate({"replies": replies or {}})
    found = read_part(Echo(told), b"", Context(settings))
    assert isinstance(found, NormalizedEvent)
    assert msgspec.json.encode(told) == before
    return found


def follows(event: NormalizedEvent) -> tuple[Consent | None, Review]:
    return event.consent, event.review


def by_keyword(action: ConsentAction, word: str, *, only_if_opted_out: bool = False) -> Consent:
    return Consent(ConsentBy.KEYWORD, action, word, only_if_opted_out=only_if_opted_out)


def test_an_exact_keyword_is_consent() -> None:
    assert follows(heard("Stop!")) == (by_keyword(OPT_OUT, "STOP"), Review.NONE)
    assert follows(heard("start")) == (by_keyword(OPT_IN, "START"), Review.NONE)
    assert follows(heard("info")) == (by_keyword(ConsentAction.HELP, "INFO"), Review.NONE)


@pytest.mark.parametrize(
    ("text", "languages"), [("Yes", []), ("oui", ["fr"]), ("si", ["es"]), ("SÌ", ["it"]), ("ja", ["de"])]
)
def test_what_answers_many_questions_opts_in_only_who_is_opted_out(text: str, languages: list[str]) -> None:
    consent = heard(text, {"languages": languages}).consent
    assert consent is not None
    assert (consent.action, consent.only_if_opted_out) == (OPT_IN, True)


@pytest.mark.parametrize(
    ("likely_stop", "expected"),
    [
        ("flag", (None, Review.FLAGGED)),
        ("apply", (by_keyword(OPT_OUT, "STOP"), Review.NONE)),
        ("ignore", (None, Review.NONE)),
    ],
)
@pytest.mark.parametrize("text", ["please stop", "stpo", "don't stop"])
def test_what_is_likely_an_opt_out_does_what_the_channel_says(text: str, likely_stop: str, expected: object) -> None:
    event = heard(text, {"likely_stop": likely_stop})
    assert follows(event) == expected
    assert event.classification == Classification(Confidence.LIKELY, OPT_OUT, "STOP")


@pytest.mark.parametrize("likely_stop", ["flag", "apply", "ignore"])
@pytest.mark.parametrize("text", ["yes please", "start again", "unstop me", "help me", "more info", "START?"])
def test_nothing_follows_from_a_likely_start_or_help(text: str, likely_stop: str) -> None:
    assert follows(heard(text, {"likely_stop": likely_stop})) == (None, Review.NONE)


@pytest.mark.parametrize("text", ["thank you", "bus stop at 5?", "weekend", "👍"])
def test_of_all_else_it_is_known_that_it_was_read(text: str) -> None:
    event = heard(text)
    assert follows(event) == (None, Review.NONE)
    assert event.classification == Classification()


def test_the_providers_word_stands_as_it_was_told() -> None:
    told = Consent(ConsentBy.PROVIDER, OPT_IN, "JOIN", ConsentScope.MESSAGING_SERVICE, "MG1")
    event = heard("stop", consent=told)
    assert follows(event) == (told, Review.NONE)
    assert event.classification == Classification(Confidence.PROVIDER, OPT_IN, "STOP")
    event = heard("please stop", consent=told)
    assert follows(event) == (told, Review.NONE)
    # A press of the messenger's own button has no text.
    event = heard("", consent=msgspec.structs.replace(told, action=OPT_OUT))
    assert event.classification == Classification(Confidence.PROVIDER, OPT_OUT)


def test_an_opt_out_covers_what_the_provider_says_and_a_flagged_reply_keeps_it() -> None:
    scope = Classification(scope_kind=ConsentScope.MESSAGING_SERVICE, scope="MG1")
    event = heard("stop", classification=scope)
    assert event.consent == Consent(ConsentBy.KEYWORD, OPT_OUT, "STOP", ConsentScope.MESSAGING_SERVICE, "MG1")
    event = heard("please stop", classification=scope)
    assert event.classification == Classification(
        Confidence.LIKELY, OPT_OUT, "STOP", scope_kind=ConsentScope.MESSAGING_SERVICE, scope="MG1"
    )
    assert heard("hello", classification=scope).classification == Classification()
    assert heard("", classification=scope).classification is None


def test_a_button_says_what_the_person_read_on_it() -> None:
    assert heard("", reply=Reply(option="Stop")).consent == by_keyword(OPT_OUT, "STOP")
    assert heard("", reply=Reply(option="Stop please")).review is Review.FLAGGED
    assert heard("Thanks", reply=Reply(option="Thanks", payload="STOP")).consent is None
    # What the sender attached speaks where the person saw nothing that we know.
    assert heard("", reply=Reply(payload="STOP")).consent == by_keyword(OPT_OUT, "STOP")
    assert heard("", reply=Reply(message_id="m-1")).classification is None


def test_a_template_counts_what_the_sender_attached_to_a_button() -> None:
    replies = {"capture_survey_responses": True, "templates": [{"name": "Size", "keywords": ["size-s", "small"]}]}
    event = heard("Klein", replies, reply=Reply(option="Klein", payload="size-s"))
    assert event.classification == Classification(templates=("Size",))
    assert heard("small", replies).classification == Classification(templates=("Size",))
    assert heard("S please", replies).classification == Classification(survey_response=True)


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind is not EventKind.INBOUND])
def test_only_what_a_person_wrote_is_a_reply(kind: EventKind) -> None:
    event = heard("stop", kind=kind)
    assert (event.consent, event.classification, event.review) == (None, None, Review.NONE)


def test_a_channel_without_settings_for_replies_overlooks_no_opt_out() -> None:
    event = read_part(
        Echo(NormalizedEvent(EventKind.INBOUND, "key", "received", text="stop")), b"", Context(ChannelSettings())
    )
    assert isinstance(event, NormalizedEvent)
    assert event.consent == by_keyword(OPT_OUT, "STOP")
