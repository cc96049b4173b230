"""What a subscription hears of: types, wildcards and filters, and how they are written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_notifier.catalogue.matching import Filter, Matcher, Selection, covers, selection_of
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import KINDS, TYPES
from backhaul_proto.event.v1.event_pb2 import Attribute, Event, EventKind
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

DELIVERED = sample_of(TYPES["message.delivered"])
FAILED = sample_of(TYPES["message.failed"])
STOP = sample_of(TYPES["consent.opt_out"])
COMPLETED = sample_of(TYPES["communication.completed"])


def told(said: Event | Notice, *types: str, **filters: Any) -> tuple[str, ...]:
    return Matcher(selection_of(types, **filters)).types(said)


def changed(said: Event | Notice, change: Callable[[Any], object]) -> Any:
    made = type(said)()
    made.CopyFrom(said)  # type: ignore[arg-type]  # it is of its own type
    change(made)
    return made


def event(kind: str, **fields: Any) -> Event:
    return Event(id="1", kind=KINDS.number(kind), **fields)


def refusal(*types: str, **filters: Any) -> dict[str, str]:
    with pytest.raises(BackhaulError) as refused:
        selection_of(types, **filters)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert all(wrong.fix for wrong in refused.value.violations)
    return {wrong.field: wrong.message for wrong in refused.value.violations}


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("*", "message.delivered", True),
        ("message.*", "message.delivered", True),
        ("message.*", "message.a.b", True),
        ("message.*", "messages.delivered", False),
        ("message.*", "message", False),
        ("message.delivered", "message.delivered", True),
        ("message.delivered", "message.delivered_late", False),
        ("a.b.*", "a.b.c", True),
        ("a.b.*", "a.c.b", False),
    ],
)
def test_wildcards(pattern: str, name: str, covered: bool) -> None:
    assert covers(pattern, name) is covered


def test_an_event_is_told_under_its_kind_before_any_view() -> None:
    assert told(DELIVERED, "*") == ("message.delivered", "message.status_changed")
    assert told(FAILED, "message.*") == ("message.failed", "message.status_changed", "message.delivery_problem")
    assert told(STOP, "*") == ("message.inbound", "reply.received", "consent.opt_out")


def test_what_is_named_comes_before_what_a_wildcard_covers() -> None:
    assert told(FAILED, "message.*", "message.delivery_problem")[0] == "message.delivery_problem"
    assert told(DELIVERED, "message.*", "message.delivery_problem")[0] == "message.delivered"
    assert told(FAILED, "message.failed", "message.delivery_problem")[0] == "message.failed"
    assert told(STOP, "*", "consent.opt_out", "reply.received")[0] == "reply.received"


def test_what_is_not_chosen_is_not_told() -> None:
    assert told(DELIVERED, "message.failed", "reply.*") == ()
    assert told(COMPLETED, "message.*") == ()
    assert told(COMPLETED, "communication.*") == ("communication.completed",)
    assert told(DELIVERED, "communication.*") == ()


@pytest.mark.parametrize("kind", KINDS.words)
def test_each_kind_is_told_of(kind: str) -> None:
    assert told(event(kind), f"message.{kind}") == (f"message.{kind}",)
    assert told(event(kind), "*")[0] == f"message.{kind}"


def test_the_changes_of_a_status_are_chosen() -> None:
    chosen = {"kinds": ["Delivered", " undelivered "]}
    heard = [kind for kind in KINDS.words if told(event(kind), "message.status_changed", **chosen)]
    assert heard == ["delivered", "undelivered"]
    everything = [kind for kind in KINDS.words if told(event(kind), "message.status_changed")]
    assert "bounced" in everything
    assert "opened" not in everything


def test_replies_are_told_and_those_to_be_looked_at() -> None:
    assert told(event("inbound"), "reply.*") == ("reply.received",)
    assert told(sample_of(TYPES["reply.flagged"]), "reply.flagged") == ("reply.flagged",)
    assert told(event("inbound"), "reply.flagged") == ()


def test_consent_is_told_of_any_kind_that_says_something_of_it() -> None:
    unsubscribed = changed(STOP, lambda made: setattr(made, "kind", EventKind.EVENT_KIND_UNSUBSCRIBED))
    assert told(unsubscribed, "consent.*") == ("consent.opt_out",)
    assert told(unsubscribed, "consent.opt_in", "consent.help") == ()
    assert told(event("unsubscribed"), "consent.*") == ()
    assert told(sample_of(TYPES["consent.help"]), "consent.*") == ("consent.help",)


def test_a_duplicate_and_a_kind_of_tomorrow_are_passed_over() -> None:
    assert told(changed(DELIVERED, lambda made: setattr(made, "duplicate_of", "other")), "*") == ()
    assert told(changed(DELIVERED, lambda made: setattr(made, "kind", 9999)), "*") == ()
    assert told(Event(), "*") == ()


def test_a_notice_of_tomorrow_is_told_by_a_wildcard() -> None:
    notice = Notice(id="1", type="newer.thing")
    assert told(notice, "*") == ("newer.thing",)
    assert Matcher(Selection(("newer.*",))).types(notice) == ("newer.thing",)
    assert Matcher(Selection(("newer.thing", "message.newer"))).types(DELIVERED) == ()


@pytest.mark.parametrize("name", ["subscription.paused", "subscription.disabled"])
def test_a_subscription_is_not_told_of_itself(name: str) -> None:
    notice = Notice(id="1", type=name, about=About(reference="sub_1"))
    wanted = selection_of(["subscription.*"])
    assert Matcher(wanted, "sub_1").types(notice) == ()
    assert Matcher(wanted, "sub_2").types(notice) == (name,)
    other = Notice(id="1", type="communication.completed", about=About(reference="sub_1"))
    assert Matcher(selection_of(["*"]), "sub_1").types(other) == ("communication.completed",)


def test_filters_by_channel_communication_and_code() -> None:
    assert told(DELIVERED, "*", channels=["Twilio", "sendgrid"])
    assert not told(DELIVERED, "*", channels=["sendgrid"])
    assert told(DELIVERED, "*", communication_ids=["spring-sale"])
    assert not told(DELIVERED, "*", communication_ids=["spring"])
    assert not told(DELIVERED, "*", error_codes=["30008"])
    assert told(FAILED, "*", error_codes=["1", "30008"])
    assert not told(FAILED, "*", error_codes=["30008"], channels=["sendgrid"])


def test_filters_by_parameters_and_attributes_all_of_which_must_be_there() -> None:
    said = event(
        "delivered",
        vars=[Attribute(name="c", value="1"), Attribute(name="c", value="2")],
        attributes=[Attribute(name="direction", value="outbound")],
    )
    assert told(said, "*", attributes=[("c", "2")])
    assert told(said, "*", attributes=[("c", "2"), ("direction", "outbound"), ("c", "1")])
    assert not told(said, "*", attributes=[("c", "2"), ("direction", "inbound")])
    assert not told(said, "*", attributes=[("C", "2")])


def test_filters_of_notices() -> None:
    assert told(COMPLETED, "*", communication_ids=["spring-sale"])
    assert not told(COMPLETED, "*", communication_ids=["x"])
    assert told(COMPLETED, "*", attributes=[("completed_by", "condition")])
    assert not told(COMPLETED, "*", attributes=[("completed_by", "deadline")])
    assert not told(COMPLETED, "*", channels=["twilio"])
    assert not told(COMPLETED, "*", kinds=["delivered"])
    assert not told(COMPLETED, "*", error_codes=["1"])
    assert told(sample_of(TYPES["channel.silent"]), "*", channels=["Twilio"])


def test_a_selection_is_normalised_when_it_is_written() -> None:
    selection = selection_of(
        [" Message.Delivered", "reply.*", "message.delivered", "*"],
        channels=["Outbound Delivery", "outbound-delivery", "A"],
        communication_ids=["b", "a", "b"],
        error_codes=[" 30006 ", "5.1.1"],
        kinds=["DELIVERED", "failed"],
        attributes=[("b", "2"), ("a", "1"), ("b", "2")],
    )
    assert selection == Selection(
        ("*", "message.delivered", "reply.*"),
        Filter(
            channels=("a", "outbound-delivery"),
            communication_ids=("a", "b"),
            error_codes=("30006", "5.1.1"),
            kinds=("delivered", "failed"),
            attributes=(("a", "1"), ("b", "2")),
        ),
    )
    again = selection.filter
    assert (
        selection_of(
            selection.types,
            channels=again.channels,
            communication_ids=again.communication_ids,
            error_codes=again.error_codes,
            kinds=again.kinds,
            attributes=again.attributes,
        )
        == selection
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "spelled as no type is"),
        ("message.", "spelled as no type is"),
        (".delivered", "spelled as no type is"),
        ("message..delivered", "spelled as no type is"),
        ("message.de*", "spelled as no type is"),
        ("*.delivered", "spelled as no type is"),
        ("**", "spelled as no type is"),
        ("message-delivered", "spelled as no type is"),
        ("message delivered", "spelled as no type is"),
        ("méssage.delivered", "spelled as no type is"),
        ("message", "There is no type 'message'"),
        ("message.deliverd", "There is no type 'message.deliverd'"),
        ("messages.*", "There is no type 'messages.*'"),
        ("message.sent.*", "There is no type"),
    ],
)
def test_what_is_no_type_is_refused(name: str, says: str) -> None:
    assert says in refusal("reply.*", name)["definition.types[1]"]


def test_a_type_that_is_misspelt_is_found_again() -> None:
    with pytest.raises(BackhaulError) as refused:
        selection_of(["message.deliverd"])
    assert "message.delivered" in refused.value.fix


def test_there_must_be_types_and_not_too_many() -> None:
    assert "definition.types" in refusal()
    assert "definition.types" in refusal(*["message.*"] * 101)


def test_what_a_filter_cannot_hold_is_named() -> None:
    assert refusal("*", kinds=["failed", "deliverd"]) == {"definition.filter.kinds[1]": "There is no kind 'deliverd'."}
    assert "definition.filter.channels[0]" in refusal("*", channels=[" "])
    assert "definition.filter.communication_ids[0]" in refusal("*", communication_ids=["x" * 2049])
    assert "definition.filter.error_codes" in refusal("*", error_codes=[str(code) for code in range(101)])
    assert "definition.filter.attributes[0]" in refusal("*", attributes=[("", "1")])
    assert "definition.filter.attributes[0]" in refusal("*", attributes=[("a", "x" * 2049)])


def test_a_type_that_is_named_and_could_never_be_told_is_refused() -> None:
    for name, filters in (
        ("communication.completed", {"kinds": ["delivered"]}),
        ("communication.completed", {"error_codes": ["1"]}),
        ("communication.completed", {"channels": ["twilio"]}),
        ("audit.digest", {"communication_ids": ["a"]}),
        ("audit.digest", {"attributes": [("chain", "events"), ("other", "1")]}),
        ("message.delivered", {"kinds": ["failed"]}),
        ("message.delivery_problem", {"kinds": ["delivered"]}),
    ):
        message = "".join(refusal("message.*", name, **filters).values())
        assert f"{name} could never be told" in message
    selection_of(["*"], kinds=["delivered"])
    selection_of(["audit.digest"], attributes=[("chain", "events")])
    selection_of(["channel.silent", "message.delivered"], channels=["twilio"])
