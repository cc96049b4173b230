"""Windows of SendGrid's Email Activity: they find every mail, whatever lies in a second. And names of single mails."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_channels.adapter import Context, RawCallback, Source
from backhaul_channels.event import NormalizedEvent
from backhaul_channels.providers.sendgrid import ADAPTER, activity
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from backhaul_channels.providers.sendgrid.tests.telling_sendgrid import PULLER, Api, Row, ask, told
from backhaul_channels.pull import NeverError, Response, Span, UnreadableAnswerError
from hypothesis import example, given
from hypothesis import strategies as st

BEGIN = 1_000_000_000
FEW = 10
"""In place of a thousand, so that windows are narrowed by examples of a sensible size."""

Order = Callable[[list[Row]], list[Row]]
ORDERS: Mapping[str, Order] = {
    "newest first": lambda rows: sorted(rows, key=lambda row: str(row["last_event_time"]), reverse=True),
    "oldest first": lambda rows: sorted(rows, key=lambda row: str(row["last_event_time"])),
    "in no order": lambda rows: random.Random(7).sample(rows, len(rows)),  # noqa: S311  # a reproducible mix, no secret.
}
_BETWEEN = re.compile(
    r'last_event_time BETWEEN TIMESTAMP "(?P<begin>[^"]+)" AND TIMESTAMP "(?P<end>[^"]+)"(?P<more>.*)'
)
_DROPPED = ' AND status="not_delivered" AND (Contains(events,"dropped"))'


def iso(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def mail(second: int, number: int = 0, status: str = "delivered", **fields: Any) -> Row:
    name = f"m{second}x{number}.filter.0"
    row = {"msg_id": name, "to_email": "p@example.com", "status": status, "last_event_time": iso(second)}
    return {**row, **fields}


def serving(rows: list[Row], order: Order = ORDERS["newest first"]) -> Api:
    """Answers queries as SendGrid does: so many at most, and no word of whether there are more."""

    def answer(_url: str, params: Mapping[str, str]) -> Response:
        query = _BETWEEN.fullmatch(params["query"])
        assert query, params["query"]
        assert query["more"] in ("", _DROPPED)
        found = [row for row in rows if query["begin"] <= row["last_event_time"] <= query["end"]]
        if query["more"]:
            found = [row for row in found if row["status"] == "not_delivered" and "dropped" in row["msg_id"]]
        return told({"messages": order(found)[: activity.ROWS]})

    return Api(answer)


async def walked(api: Api, span: Span) -> list[Row]:
    found: list[Row] = []
    cursor = ""
    for _ in range(2_000):
        page = await PULLER.window(api, ask(), "messages", span, cursor)
        found += [json.loads(record) for record in page.records]
        cursor = page.cursor
        if not cursor:
            return found
    raise AssertionError("the windows have no end")


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "ROWS", FEW)
    monkeypatch.setattr(activity, "_WANTED_ROWS", FEW * 8 // 10)


SECONDS = st.dictionaries(st.integers(0, 86_399), st.integers(1, 3 * FEW), max_size=20)


@pytest.mark.parametrize("order", ORDERS)
@given(SECONDS)
@example({})
@example({0: FEW, 86_399: FEW})
@example({5: FEW - 1, 6: FEW - 1, 7: 1})
async def test_every_mail_is_found_once_unless_one_second_has_more_than_an_answer(
    order: str, seconds: dict[int, int]
) -> None:
    rows = [mail(BEGIN + second, number) for second, count in seconds.items() for number in range(count)]
    api = serving(rows, ORDERS[order])
    found = await walked(api, Span(BEGIN * 1_000_000, (BEGIN + 86_400) * 1_000_000))
    by_second = Counter(record["mail"]["last_event_time"] for record in found)
    assert by_second == {iso(BEGIN + second): min(count, FEW) for second, count in seconds.items()}
    assert len({record["mail"]["msg_id"] for record in found}) == len(found)
    # Seventeen halves of a day are a second; as many windows more are empty, or wider than the one before.
    assert len(api.asked) <= 45 * (len(seconds) + 1)


async def test_windows_come_to_be_as_wide_as_an_answer_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten mails a second, evenly: forty answers could hold them all."""
    monkeypatch.setattr(activity, "ROWS", 1_000)
    monkeypatch.setattr(activity, "_WANTED_ROWS", 800)
    rows = [mail(BEGIN + second, number) for second in range(4_000) for number in range(10)]
    api = serving(rows)
    assert len(await walked(api, Span(BEGIN * 1_000_000, (BEGIN + 4_000) * 1_000_000))) == len(rows)
    assert len(api.asked) <= 60


async def test_a_span_within_seconds_tells_of_its_own_mails_alone() -> None:
    rows = [mail(BEGIN + n, last_event_time=f"{iso(BEGIN + n)[:-1]}.{n}Z") for n in range(5)]
    api = Api(lambda _url, _params: told({"messages": rows}))
    found = await walked(api, Span((BEGIN + 1) * 1_000_000 + 200_000, (BEGIN + 3) * 1_000_000 + 300_000))
    assert [record["mail"]["msg_id"] for record in found] == [row["msg_id"] for row in rows[2:3]]
    query = f'last_event_time BETWEEN TIMESTAMP "{iso(BEGIN + 1)}" AND TIMESTAMP "{iso(BEGIN + 3)}"'
    assert api.asked[0][1] == {"query": query, "limit": str(FEW)}
    assert await walked(serving(rows), Span(BEGIN * 1_000_000, BEGIN * 1_000_000)) == []


async def test_a_cursor_that_is_none_begins_anew_and_one_beyond_the_span_ends_it() -> None:
    rows = [mail(BEGIN)]
    span = Span(BEGIN * 1_000_000, (BEGIN + 9) * 1_000_000)
    assert len((await PULLER.window(serving(rows), ask(), "messages", span, "x")).records) == 1
    beyond = serving(rows)
    assert not (await PULLER.window(beyond, ask(), "messages", span, f"{BEGIN + 9}:5")).records
    assert not beyond.asked


async def test_a_mail_whose_last_event_has_no_time_is_told_so_that_somebody_hears_of_it() -> None:
    api = Api(lambda _url, _params: told({"messages": [mail(BEGIN, last_event_time="yesterday")]}))
    assert len(await walked(api, Span(BEGIN * 1_000_000, (BEGIN + 9) * 1_000_000))) == 1


@pytest.mark.parametrize("lost", [0, 1, FEW - 2])
async def test_dropped_mails_are_told_from_bounced_ones_by_one_request_more(lost: int) -> None:
    rows = [mail(BEGIN, n, "not_delivered", msg_id=f"{('dropped', 'bounced')[n % 2]}{n}") for n in range(lost)]
    api = serving([*rows, mail(BEGIN, 99)])
    found = await walked(api, Span(BEGIN * 1_000_000, (BEGIN + 9) * 1_000_000))
    events = {record["mail"]["msg_id"]: record.get("event", {}).get("event_name") for record in found}
    assert events == {
        "m1000000000x99.filter.0": None,
        **{row["msg_id"]: "dropped" if "dropped" in row["msg_id"] else None for row in rows},
    }
    assert len(api.asked) == (2 if lost else 1)


def facts(records: Any, **settings: Any) -> list[NormalizedEvent]:
    context = Context(SendGridSettings(**settings), source=Source.BACKFILL)
    parts = [part for record in records for part in ADAPTER.split(RawCallback("GET", "", [], record), context.settings)]
    return [ADAPTER.normalize(part, context) for part in parts]


def knowing(**details: Any) -> Api:
    """Knows two mails of one sending, to two people, and tells ``details`` of either."""
    rows = [mail(BEGIN, msg_id=f"order_77_of_spring.filter1-{n}.0", to_email=f"P{n}@Example.com") for n in range(2)]

    def answer(url: str, params: Mapping[str, str]) -> Response:
        if "query" in params:
            return told({"messages": rows})
        found = [row for row in rows if url.endswith(f"/{row['msg_id']}")]
        return told({**found[0], **details}) if found else told({"errors": [{"message": "not found"}]}, 404)

    return Api(answer)


async def test_a_mail_that_its_sender_told_of_is_found_by_the_name_that_it_has_here() -> None:
    api = knowing(events=[{"event_name": "delivered", "processed": iso(BEGIN)}])
    name, provisional = ADAPTER.sent_name("order_77_of_spring", "p1@example.com", SendGridSettings())
    assert provisional
    (fact,) = facts((await PULLER.message(api, ask(), name)).records)
    assert fact.message_id == "order_77_of_spring.filter1-1.0"
    assert fact.aliases == [name]
    assert [params.get("query") for _, params, _ in api.asked] == ["msg_id LIKE 'order_77_of_spring%'", None]
    # And by its first name at once; both are the same fact.
    assert facts((await PULLER.message(api, ask(), fact.message_id)).records) == [fact]
    assert len(api.asked) == 3


@pytest.mark.parametrize("name", ["order-77:p1@example.com", "<m1@x>:p1@example.com", "it's:p1@example.com"])
async def test_where_no_name_is_known_that_the_api_knows_it_is_said_in_words(name: str) -> None:
    api = knowing()
    with pytest.raises(NeverError, match="cannot be asked for a mail by my_order"):
        await PULLER.message(api, ask(message_id_from=["my_order"]), name)
    if name != "order-77:p1@example.com":
        with pytest.raises(NeverError, match="an smtp-id that SendGrid has not made"):
            await PULLER.message(api, ask(), name)
    assert not api.asked


async def test_a_mail_named_by_its_sender_is_asked_for_by_sendgrids_name_where_that_is_known() -> None:
    api = knowing(unique_args='{"my_order": "order-77"}', events=[{"event_name": "delivered", "processed": iso(BEGIN)}])
    settings: dict[str, Any] = {"message_id_from": ["my_order"]}
    page = await PULLER.message(api, ask(**settings), "order_77_of_spring.filter1-1.0")
    (fact,) = facts(page.records, **settings)
    assert fact.message_id == "order-77:p1@example.com"


async def test_of_a_mail_to_very_many_not_all_are_told() -> None:
    api = Api(lambda _url, _params: told({"messages": [mail(BEGIN, n) for n in range(FEW)]}))
    with pytest.raises(NeverError, match="more than"):
        await PULLER.message(api, ask(), "order_77_of_spring:p1@example.com")


@pytest.mark.parametrize("events", [None, [], [{"event_name": "deferred"}, {"event_name": "opened"}, 7]])
async def test_a_mail_that_is_known_has_a_record_whatever_happened_to_it(events: object) -> None:
    page = await PULLER.message(knowing(events=events, status="processed"), ask(), "order_77_of_spring.filter1-1.0")
    assert [fact.kind for fact in facts(page.records)] == ["queued"]


@pytest.mark.parametrize("answer", [{}, {"msg_id": "", "events": []}, {"msg_id": "m1", "events": {}}, []])
async def test_an_answer_that_is_no_mail_is_not_one_that_is_unknown(answer: object) -> None:
    with pytest.raises(UnreadableAnswerError):
        await PULLER.message(Api(lambda _url, _params: told(answer)), ask(), "m1")


BOUNCE = {"event": "bounce", "email": "p@example.com", "timestamp": BEGIN, "sg_message_id": "m1", "sg_event_id": "e1"}


@pytest.mark.parametrize(
    ("posted", "bounce_type"),
    [
        ({"reason": "550 Message rejected as spam", "status": "5.0.0", "bounce_classification": "Content"}, "hard"),
        ({"reason": "550 5.1.1 No such user", "status": "5.1.1", "bounce_classification": "Invalid Address"}, "hard"),
        ({"reason": "552 5.2.2 Mailbox full", "status": "5.2.2", "bounce_classification": "Reputation"}, "soft"),
        ({"reason": "500 unknown recipient", "status": "5.0.0"}, "hard"),
        ({"reason": "550 5.7.1 Refused"}, "hard"),
    ],
)
def test_what_the_api_tells_of_a_bounce_takes_no_place_of_what_a_callback_tells(
    posted: Mapping[str, str], bounce_type: str
) -> None:
    """Of two errors of one event the greatest stands: invalid recipient, code, text and class, in this order."""
    kind = "bounce" if bounce_type == "hard" else "blocked"
    part = json.dumps({**BOUNCE, **posted, "type": kind}).encode()
    by_callback = ADAPTER.normalize(part, Context(SendGridSettings()))
    event = {"event_name": "bounced", "processed": iso(BEGIN), "reason": posted["reason"], "bounce_type": bounce_type}
    record = json.dumps({"mail": mail(BEGIN, msg_id="m1"), "event": event}).encode()
    (by_api,) = facts([record])
    errors = [(one.invalid_recipient, one.error_code, one.error_text) for one in (by_callback, by_api)]
    assert errors[0] > errors[1]
    assert by_api.error_code
    assert set(by_api.attributes) <= set(by_callback.attributes)
    assert (by_api.kind, by_api.provider_status, by_api.message_id, by_api.recipient, by_api.sender) == (
        by_callback.kind,
        by_callback.provider_status,
        by_callback.message_id,
        by_callback.recipient,
        by_callback.sender,
    )
