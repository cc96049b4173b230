"""The parts of the demo that need no process: its checks, its data, its signatures, its figures."""

from __future__ import annotations

import base64
import copy
import json
from collections import Counter
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from backhaul_local.demo import telling_lines, verdict
from backhaul_local.demo_api import Answer
from backhaul_local.demo_burst import BurstResult, percentile, shuffled
from backhaul_local.demo_checks import Check, check_delivered, check_loaded, check_refused
from backhaul_local.demo_story import Attempt, Delivered, Loaded, Refused
from backhaul_local.demo_tables import Screen
from backhaul_local.demo_traffic import Post, Traffic, TwilioAccount, load_traffic
from rich.console import Console


@pytest.fixture
def traffic() -> Traffic:
    return load_traffic()


def event(kind: str, word: str) -> dict[str, Any]:
    consent = {"action": "opt_out", "word": "STOP"} if kind == "inbound" else None
    return {"kind": kind, "provider_status": word, "consent": consent, "verification": "verified"}


@pytest.fixture
def delivered(traffic: Traffic) -> Delivered:
    """What a gateway that is right shows."""
    messages = [
        Answer(
            status=200,
            body={
                "state": due.state,
                "fulfilment_state": due.fulfilment_state,
                "error_code": due.error_code,
                "error_text": due.error_text,
                "communication_id": traffic.communication_id,
                "timeline": [event(kind, word) for kind, word in due.timeline],
                "vars": [
                    {"name": "communicationId", "value": "spring-sale"},
                    {"name": "offerId", "value": "SMS-20"},
                ],
            },
        )
        for due in traffic.messages
    ]
    return Delivered(
        answers=[Answer(status=200, body={})] * 12,
        messages=list(zip(traffic.messages, messages, strict=True)),
        communication=Answer(status=200, body=copy.deepcopy(dict(traffic.communication))),
        events=[step for answer in messages for step in answer.body["timeline"]],
        dead_letters=[{"state": "open", "reason": "This is a webhook of Twilio's conversations"}],
    )


@pytest.fixture
def refused(delivered: Delivered) -> Refused:
    answer = Answer(status=403, body={"code": "forbidden"})
    return Refused(
        attempts=[Attempt(what="a forgery", status=403, code="forbidden", answer=answer)],
        counted={"Acme Twilio": 3, "Acme SendGrid": 1, "Globex Twilio": 1},
        tenant_ids=["acme", "globex"],
        globex_messages=0,
        communication=delivered.communication,
    )


@pytest.fixture
def loaded() -> Loaded:
    counted = {
        "messages": 600,
        "fulfilment": {"Delivered": 600},
        "events": {"queued": 600, "sent": 600, "delivered": 600},
    }
    return Loaded(
        result=BurstResult(seconds=1.0, statuses=[200] * 2000, latencies_s=[0.01] * 2000),
        counted_s=0.1,
        readable_s=[0.01] * 20,
        probes_delivered=20,
        communication=Answer(status=200, body=counted),
    )


def wrong(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.holds]


def test_right_figures_pass(traffic: Traffic, delivered: Delivered, refused: Refused, loaded: Loaded) -> None:
    assert wrong(check_delivered(traffic, delivered)) == []
    assert wrong(check_refused(delivered, refused)) == []
    assert wrong(check_loaded(loaded)) == []


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("state", "sent", "Twilio …8abca9 ends"),
        ("fulfilment_state", "Sent", "Twilio …8abca9 ends"),
        ("error_code", "1", "Twilio …8abca9 ends"),
        ("timeline", [], "Twilio …8abca9 timeline"),
        ("communication_id", "", "messages joined to spring-sale"),
        ("vars", [], "custom parameters kept"),
    ],
)
def test_a_wrong_message_is_named(traffic: Traffic, delivered: Delivered, field: str, value: Any, named: str) -> None:
    due, answer = delivered.messages[0]
    spoiled = (due, replace(answer, body={**answer.body, field: value}))
    assert wrong(check_delivered(traffic, replace(delivered, messages=[spoiled, *delivered.messages[1:]]))) == [named]


def test_wrong_counts_are_named(traffic: Traffic, delivered: Delivered, refused: Refused, loaded: Loaded) -> None:
    body = copy.deepcopy(dict(delivered.communication.body))
    body["fulfilment"]["Delivered"] += 1
    body["events"]["sent"] -= 1
    spoiled = replace(delivered, communication=Answer(status=200, body=body))
    assert wrong(check_delivered(traffic, spoiled)) == ["spring-sale: fulfilment states", "spring-sale: events"]
    assert wrong(check_refused(spoiled, refused)) == ["spring-sale afterwards"]
    twice = {**loaded.communication.body, "events": {"queued": 601, "sent": 600, "delivered": 600}}
    assert wrong(check_loaded(replace(loaded, communication=Answer(status=200, body=twice)))) == [
        "burst: events, duplicates counted once"
    ]
    lost = replace(loaded.result, statuses=[200] * 1999 + [503])
    assert wrong(check_loaded(replace(loaded, result=lost))) == ["burst: answers"]


def test_what_was_let_in_is_named(delivered: Delivered, refused: Refused) -> None:
    let_in = replace(refused.attempts[0], answer=Answer(status=200, body={"id": "x"}))
    spoiled = replace(refused, attempts=[let_in], tenant_ids=["acme", "globex", "initech"], globex_messages=1)
    assert wrong(check_refused(delivered, spoiled)) == [
        "a forgery",
        "tenants afterwards",
        "Globex's messages afterwards",
    ]


def test_missing_answers_are_wrong_and_no_crash(traffic: Traffic, delivered: Delivered, loaded: Loaded) -> None:
    away = Answer(status=503, body={"detail": "A service is away."})
    gone = replace(
        delivered, messages=[(due, away) for due in traffic.messages], communication=away, events=[], dead_letters=[]
    )
    checks = {check.name: check for check in check_delivered(traffic, gone)}
    assert checks["Twilio …8abca9 ends"].got == "503 A service is away."
    assert not checks["dead letters"].holds
    assert not any(check.holds for check in check_loaded(replace(loaded, communication=away))[1:4])
    console = Console(file=StringIO(), width=120)
    Screen(console).messages(gone, "Twilio")
    Screen(console).communication(away)
    Screen(console).checks(list(checks.values()))


def test_a_wrong_figure_is_shown_and_makes_the_exit_code_1() -> None:
    out = StringIO()
    screen = Screen(Console(file=out, width=120))
    right, wrong_one = Check("events", "20", "20"), Check("messages", "8", "7")
    assert verdict([right], screen, 1.0) == 0
    assert "All 1 checks hold" in out.getvalue()
    assert verdict([wrong_one, right], screen, 1.0) == 1
    shown = [line.split() for line in out.getvalue().splitlines() if line]
    assert shown[-3:-1] == [["✗", "messages", "8", "7"], ["✓", "events", "20", "20"]]
    assert "1 of 2 checks are wrong" in out.getvalue()


def test_the_data_agrees_with_itself(traffic: Traffic) -> None:
    kinds = Counter(kind for message in traffic.messages for kind, _ in message.timeline)
    states = Counter(message.fulfilment_state for message in traffic.messages if message.fulfilment_state)
    assert kinds == Counter(traffic.communication["events"])
    assert states == Counter({name: n for name, n in traffic.communication["fulfilment"].items() if n})
    assert traffic.communication["messages"] == len(traffic.messages)
    batch = json.loads(traffic.sendgrid_batch)
    assert len({entry["event"] for entry in batch}) == len(batch) == 11
    assert {entry["communicationId"] for entry in batch} == {traffic.communication_id}
    posted = [body for body in traffic.twilio_bodies for due in traffic.messages if due.message_id in body]
    assert len(posted) == len(traffic.twilio_bodies) == 10


def test_twilio_signs_as_documented() -> None:
    # The example of https://www.twilio.com/docs/usage/webhooks/webhooks-security
    body = "CallSid=CA1234567890ABCDE&Caller=%2B14158675310&Digits=1234&From=%2B14158675310&To=%2B18005551212"
    post = TwilioAccount("12345").post("https://example.com", "/myapp.php?foo=1&bar=2", body)
    assert post.headers["X-Twilio-Signature"] == "L/OH5YylLD5NRKLltdqwSvS0BnU="
    assert len(base64.b64decode(post.headers["X-Twilio-Signature"])) == 20


def test_percentiles_and_the_order_of_the_burst() -> None:
    assert [percentile([3.0, 1.0, 2.0, 4.0], p) for p in (1, 50, 99, 100)] == [1.0, 2.0, 4.0, 4.0]
    posts = [Post(path=str(number), headers={}, body=b"") for number in range(2000)]
    mixed = shuffled(posts)
    assert mixed != posts
    assert sorted(mixed, key=lambda post: int(post.path)) == posts


def test_log_lines_that_tell() -> None:
    routine = json.dumps({"level": "info", "event": "request"})
    error = json.dumps({"level": "error", "event": "x" * 1000})
    assert telling_lines(f"{routine}\n{error}\nTraceback\n") == [error[:400] + " …", "Traceback"]
    assert telling_lines(f"{routine}\n") == [routine]
