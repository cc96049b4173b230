"""What names stand for, and which of several counts."""

from __future__ import annotations

import pytest
from backhaul_notifier.catalogue.matching import known_types
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES, Part
from backhaul_notifier.variables import FIELDS, OWN, PREFIXES, Known, Variables, impossible, needed
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

DELIVERED = sample_of(TYPES["message.delivered"])
COMPLETED = sample_of(TYPES["communication.completed"])


def of(said: Event | Notice = DELIVERED, known: Known | None = None) -> Variables:
    return Variables(said, said.type if isinstance(said, Notice) else "message.delivered", known)


def test_backhauls_own_names() -> None:
    variables = of()
    assert [variables.get(name) for name in ("batchId", "communicationId", "id", "memberId")] == [
        "spring-1", "spring-sale", "SM0001", "SM0001",
    ]  # fmt: skip


def test_id_is_the_members_where_the_members_have_one_and_member_id_the_messages() -> None:
    variables = of(known=Known(attributes={"id": "4711"}))
    assert (variables.get("id"), variables.get("memberId")) == ("4711", "SM0001")


def test_an_empty_attribute_is_an_attribute() -> None:
    variables = of(known=Known(attributes={"id": "", "x": ""}, environment={"x": "env"}))
    assert (variables.get("id"), variables.get("x")) == ("", "")


def test_other_names_of_backhauls_are_no_attributes() -> None:
    taken = dict.fromkeys(OWN, "attribute")
    variables = of(known=Known(attributes=taken, environment=dict.fromkeys(OWN, "environment")))
    assert variables.get("batchId") == "spring-1"
    assert variables.get("communicationId") == "spring-sale"
    assert variables.get("memberId") == "SM0001"
    assert variables.get("member.batchId") == "attribute"
    assert variables.get("environment.id") == "environment"


def test_an_attribute_comes_before_a_variable_of_the_environment() -> None:
    known = Known(attributes={"shop": "a"}, environment={"shop": "e", "only": "e", "id": "e"})
    variables = of(known=known)
    assert [variables.get(name) for name in ("shop", "only", "member.shop", "environment.shop", "id")] == [
        "a", "e", "a", "e", "SM0001",
    ]  # fmt: skip
    assert (variables.get("none"), variables.get("member.only"), variables.get("environment.none")) == (
        None,
        None,
        None,
    )


def test_where_there_is_no_message_id_is_whatever_the_environment_calls_so() -> None:
    assert of(Event(), Known(environment={"id": "e"})).get("id") == "e"
    assert of(Event(), Known(environment={"memberId": "e"})).get("memberId") is None


def test_what_is_known_better_counts() -> None:
    known = Known(communication_id="c", batch_id="b", message_id="m")
    variables = of(Event(communication_id="old", message_id="old"), known)
    assert [variables.get(name) for name in ("communicationId", "batchId", "memberId")] == ["c", "b", "m"]


def test_what_an_event_does_not_name_has_no_value() -> None:
    assert [of(Event()).get(name) for name in OWN] == [None] * len(OWN)


def test_of_a_notice() -> None:
    variables = of(COMPLETED)
    assert (variables.get("batchId"), variables.get("communicationId")) == ("spring-1", "spring-sale")
    assert variables.get("memberId") is None
    assert variables.get("event.attributes.completed_by") == "condition"
    assert variables.get("event.reference") == "spring-1"
    assert variables.get("event.vars.x") is None
    assert variables.get("event.kind") is None
    other = Notice(type="audit.digest", about=About(reference="key"))
    assert of(other).get("batchId") is None
    assert of(Notice(type="newer.thing", about=About(reference="key"))).get("batchId") is None


def test_every_field_of_an_event_can_be_read() -> None:
    read = {name: of().get(f"event.{name}") for name in FIELDS}
    assert {name for name, value in read.items() if value is None} == {"event_id", "reference"}
    assert read["kind"] == "delivered"
    assert read["type"] == "message.delivered"
    assert read["occurred_at"] == "2026-11-26T13:33:20.000000Z"
    assert read["recipient_family"] == "phone"
    assert (read["error_code"], read["consent"], read["by_machine"]) == ("", "", "false")
    stop = sample_of(TYPES["consent.opt_out"])
    assert [of(stop).get(f"event.{name}") for name in ("consent", "consent_word", "answered_message_id")] == [
        "opt_out", "STOP", "SM0001",
    ]  # fmt: skip


def test_the_first_of_several_parameters_of_a_name_counts() -> None:
    event = Event(vars=[Attribute(name="a.b", value="1"), Attribute(name="a.b", value="2")])
    assert of(event).get("event.vars.a.b") == "1"
    assert of(event).get("event.attributes.a.b") is None


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_possible_where_something_that_is_told_has_it(name: str) -> None:
    field = FIELDS[name]
    for types, reader in ((["message.*"], field.of_event), (["communication.completed"], field.of_notice)):
        assert bool(impossible(f"event.{name}", known_types(types))) == (reader is None)
    assert not impossible(f"event.{name}", known_types(["*"]))


def test_what_must_be_asked_for() -> None:
    assert needed([]) == frozenset()
    assert needed(["event.kind", "event.vars.x"]) == frozenset()
    assert needed(["batchId"]) == {Part.BATCH}
    assert needed(["memberId"]) == {Part.MESSAGE}
    assert needed(["member.x"]) == {Part.MEMBER}
    assert needed(["environment.x", "communicationId"]) == {Part.COMMUNICATION}
    assert needed(["id"]) == needed(["first_name"]) == {Part.MEMBER, Part.COMMUNICATION}


def test_the_tables_say_something_of_each_name() -> None:
    assert all(own.text for own in OWN.values())
    assert all(PREFIXES.values())
    assert set(OWN) == {"batchId", "communicationId", "id", "memberId"}
