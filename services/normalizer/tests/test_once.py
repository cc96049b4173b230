"""What happens to a message once counts once, by whichever key and name, and in whatever order, it is told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from backhaul_channels import EventKind
from backhaul_common.names import EVENTS_COLLECTION, MESSAGES_COLLECTION
from backhaul_normalizer.model import Fact
from backhaul_proto.callback.v1.callback_pb2 import SOURCE_BACKFILL, VERIFICATION_OBSERVED_INVALID
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_testing import make
from books import Books
from normalizer_rig import Rig
from tellings import told

JOINING = told(key="p", kind=EventKind.QUEUED, name="M1", aliases=["A1"], at=1, seq=1)
BY_CALLBACK = told(key="callback", kind=EventKind.BOUNCED, name="A1", at=5, error_code="511", seq=2)
BY_API = told(key="api", kind=EventKind.BOUNCED, name="M1", at=4, error_text="no such user", seq=3)


def committed(facts: Sequence[Fact], *, together: bool) -> Books:
    books = Books()
    for batch in [facts] if together else [[fact] for fact in facts]:
        books.commit(batch)
    return books


def test_two_keys_of_one_name_are_one_event() -> None:
    again = told(key="another", kind=EventKind.BOUNCED, name="M1", seq=4)
    for order in permutations((BY_API, again)):
        for together in (True, False):
            books = committed(order, together=together)
            (row,) = books.event_rows.values()
            assert "duplicate_of" not in row
            (message,) = books.message_rows.values()
            assert message["kinds"] == {"bounced": 1}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", list(permutations((JOINING, BY_CALLBACK, BY_API))))
def test_two_names_of_one_message_count_as_one(order: Sequence[Fact], together: bool) -> None:
    books = committed(order, together=together)
    (message,) = books.message_rows.values()
    assert (message["kinds"], message["duplicates"]) == ({"queued": 1, "bounced": 1}, {"bounced": 1})
    # The duplicate completes the message.
    assert (message["error_code"], message["error_text"]) == ("511", "")
    assert books.event_rows[BY_CALLBACK.id]["duplicate_of"] == BY_API.id
    books.check_published()
    assert books.state() == committed((JOINING, BY_CALLBACK, BY_API), together=True).state()


def test_a_duplicate_counts_again_when_its_name_turns_out_to_lead_elsewhere() -> None:
    books = Books()
    second = told(key="q", kind=EventKind.QUEUED, name="M2", aliases=["A1"], at=1, seq=1)
    books.commit([second, BY_CALLBACK, told(key="api2", kind=EventKind.BOUNCED, name="M2", seq=4)])
    assert books.event_rows[BY_CALLBACK.id]["duplicate_of"]
    # M1 is the less of the two, and has the name.
    books.commit([JOINING])
    assert "duplicate_of" not in books.event_rows[BY_CALLBACK.id]
    assert sorted(row["kinds"]["bounced"] for row in books.message_rows.values()) == [1, 1]
    books.check_published()


def test_what_nobody_verified_makes_no_duplicate_of_what_somebody_did() -> None:
    forged = told(key="x", kind=EventKind.BOUNCED, name="M1", verification=VERIFICATION_OBSERVED_INVALID, seq=9)
    for order in permutations((JOINING, BY_CALLBACK, forged)):
        books = committed(order, together=False)
        assert "duplicate_of" not in books.event_rows[BY_CALLBACK.id]
        assert books.event_rows[forged.id]["duplicate_of"] == BY_CALLBACK.id


def test_events_of_no_message_and_kinds_that_repeat_are_told_apart_by_their_keys() -> None:
    books = Books()
    books.commit(
        [
            told(key="1", kind=EventKind.BOUNCED, name=""),
            told(key="2", kind=EventKind.BOUNCED, name=""),
            told(key="3", kind=EventKind.OPENED, name="M1"),
            told(key="4", kind=EventKind.OPENED, name="M1"),
        ]
    )
    assert len(books.event_rows) == 4
    (message,) = books.message_rows.values()
    assert message["kinds"] == {"opened": 2}


def test_what_was_marked_and_not_published_is_published_when_its_cause_comes_again() -> None:
    books = Books()
    books.commit([JOINING, BY_CALLBACK])
    # Whoever stored the better one died before it could publish.
    books.commit([BY_API], published=False)
    books.commit([BY_API])
    books.check_published()


MAIL: dict[str, Any] = {"email": "a@example.com", "timestamp": 1_700_000_000}
NAMED = {"sg_message_id": "m1.filter.0", "smtp-id": "<m1@host>"}
TOLD = [
    {**MAIL, **NAMED, "event": "processed", "sg_event_id": "e1"},
    {**MAIL, **NAMED, "event": "delivered", "sg_event_id": "e2"},
    {**MAIL, "smtp-id": "<m1@host>", "event": "bounce", "sg_event_id": "e3", "status": "5.1.1"},
]
BACKFILLED = [{**MAIL, "sg_message_id": "m1.filter.0", "event": word} for word in ("processed", "delivered", "bounce")]


@pytest.mark.parametrize("first", ["callbacks", "backfill"])
async def test_a_mail_that_its_api_tells_once_more_counts_once(rig: Rig, first: str) -> None:
    acme = make.tenant("acme")
    await rig.register(acme)
    callbacks = [make.callback(acme, make.sendgrid(*TOLD), channel="sendgrid")]
    backfill = [
        make.callback(acme, make.sendgrid(one), channel="sendgrid", source=SOURCE_BACKFILL) for one in BACKFILLED
    ]
    for one in [*callbacks, *backfill] if first == "callbacks" else [*backfill, *callbacks]:
        await rig.publish(acme, one)
        await rig.drained()
    (message,) = await rig.rows(MESSAGES_COLLECTION)
    assert message["kinds"] == {"queued": 1, "delivered": 1, "bounced": 1}
    assert (message["state"], message["error_code"]) == ("bounced", "5.1.1")
    # The bounce by the SMTP id is another event, and a duplicate of it that no list shows.
    rows = await rig.rows(EVENTS_COLLECTION)
    assert len(rows) == 4
    answer = await rig.stub.GetMessage(
        pb.GetMessageRequest(tenant_id="acme", channel="sendgrid", message_id="m1.filter.0")
    )
    assert answer.message.event_count == 3
    assert [event.provider_status for event in answer.timeline] == ["processed", "delivered", "bounce"]
    listed = await rig.stub.ListEvents(pb.ListEventsRequest(tenant_id="acme"))
    assert len(listed.events) == 3
    newest = {event.id: event for event in await rig.published()}
    assert newest.keys() == {row["_id"] for row in rows}
    assert [event.duplicate_of for event in newest.values() if event.duplicate_of] == [
        row["duplicate_of"] for row in rows if "duplicate_of" in row
    ]
