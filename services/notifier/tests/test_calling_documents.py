"""What Dispatch's and the RCS API's documents say of callbacks, case by case, to real endpoints."""

from __future__ import annotations

import asyncio
import json

import pytest
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.model import Attempted, Subscription
from backhaul_notifier.schedules import DISPATCH, RCS, Decision, Disables, Outcome, Policy, Verdict, decide
from backhaul_notifier.variables import Known
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from calling_rig import HMAC, NOW_US, PUBLIC_URL, WEBHOOK_ID, Knows, Rig, calling, delivery, http, subscription
from door_rig import Call, Endpoint, endpoint
from standardwebhooks.webhooks import Webhook

MIN, HOUR, DAY = 60, 3600, 86_400

DISPATCH_SAYS = (120, [5 * MIN, 5 * MIN])
RCS_SAYS = (
    10,
    [10, 30, 2 * MIN, 10 * MIN, 30 * MIN, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY],
)
"""For how long an attempt waits, and the seconds until each further one."""

DISPATCH_TELLS = {
    "Message Sent": "member.processed",
    "Message Delivery Problem": "message.delivery_problem",
    "Message Delivery Status Change": "message.status_changed",
    "Communication Complete": "communication.completed",
}


def spec(url: str, method: str = "POST", policy: Policy = DISPATCH) -> Subscription:
    definition = http(url, method)
    definition.payload.form = pb.PAYLOAD_FORM_SPEC
    return subscription(definition, policy=policy)


async def answered(call: Call) -> None:
    await call.answer()


async def told(rig: Rig, to: Subscription, type_: str = "message.status_changed") -> Attempted:
    return await rig.caller.call(to, [delivery(type_)], WEBHOOK_ID)


class TestWhatDispatchPasses:
    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("event", sorted(DISPATCH_TELLS))
    async def test_nothing_but_the_address_unless_a_communication_is_complete(self, event: str, method: str) -> None:
        type_ = DISPATCH_TELLS[event]
        async with endpoint(answered) as there, calling() as rig:
            attempted = await told(rig, spec(there.url("/told?sale=7"), method), type_)
        assert attempted.outcome == Outcome(200)
        (call,) = there.calls
        assert call.head.startswith(f"{method} /told?sale=7 HTTP/1.1")
        if event == "Communication Complete" and method == "POST":
            assert json.loads(call.body) == {"batch": f"{PUBLIC_URL}/v1/batches/spring-1"}
            assert call.headers["content-type"] == "application/json"
            Webhook(HMAC.text).verify(call.body, call.headers)
        else:
            assert call.body == b""
            assert "content-type" not in call.headers
            assert call.headers["webhook-signature"].startswith("v1,")

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("first_name", "Anna%20Maria"),
            ("shop", "live-shop"),
            ("batchId", "b1"),
            ("communicationId", "sale"),
            ("memberId", "SM1"),
        ],
    )
    @pytest.mark.parametrize("place", ["/told/{}/x", "/told?v={}", "/told?{}=v"])
    async def test_its_variables_anywhere_in_the_address(self, variable: str, value: str, place: str) -> None:
        known = Known(
            attributes={"first_name": "Anna Maria"},
            environment={"shop": "live-shop"},
            communication_id="sale",
            batch_id="b1",
            message_id="SM1",
        )
        async with endpoint(answered) as there, calling(knows=Knows(known)) as rig:
            assert (await told(rig, spec(there.url(place.format(f"${{{variable}}}"))))).outcome == Outcome(200)
        assert there.calls[0].head.split(" ")[1] == place.format(value)

    @pytest.mark.parametrize(("attributes", "id_"), [({}, "SM1"), ({"id": "7"}, "7")])
    async def test_id_is_the_messages_unless_members_have_one_and_member_id_always_is(
        self, attributes: dict[str, str], id_: str
    ) -> None:
        knows = Knows(Known(attributes=attributes, message_id="SM1"))
        async with endpoint(answered) as there, calling(knows=knows) as rig:
            await told(rig, spec(there.url("/${id}/${memberId}")))
        assert there.calls[0].head.split(" ")[1] == f"/{id_}/SM1"

    async def test_credentials_are_optional(self) -> None:
        async with endpoint(answered) as there, calling() as rig:
            await told(rig, spec(there.url(), "GET"))
        assert "authorization" not in there.calls[0].headers

    def test_a_bounce_is_no_delivery_problem(self) -> None:
        bounced = sample_of(TYPES["message.bounced"])
        assert isinstance(bounced, Event)
        assert bounced.kind not in TYPES["message.delivery_problem"].kinds


class Schedule:
    """Attempts of one delivery, each when the one before it says, by a clock that is given."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now_us = NOW_US
        self.pauses: list[float] = []
        self.last: Decision | None = None

    async def run(self, rig: Rig, there: Endpoint) -> Decision:
        for attempt in range(1, 100):
            made = await told(rig, spec(there.url(), policy=self.policy))
            decision = decide(self.policy, attempt, made.outcome, self.now_us, 0.99)
            if decision.verdict is not Verdict.RETRY:
                return decision
            self.pauses.append((decision.retry_at_us - self.now_us) / 1e6)
            self.now_us = decision.retry_at_us
        raise AssertionError("it is tried for ever")


@pytest.mark.parametrize("status", [201, 202, 204, 301, 307, 400, 404, 410, 429, 500, 503])
@pytest.mark.parametrize(
    ("policy", "says", "disables"),
    [(DISPATCH, DISPATCH_SAYS, Disables.COMMUNICATION), (RCS, RCS_SAYS, None)],
    ids=["dispatch", "rcs"],
)
async def test_whatever_is_not_200_is_tried_again_as_the_document_says_and_then_has_failed(
    policy: Policy, says: tuple[int, list[int]], disables: Disables | None, status: int
) -> None:
    async def refusing(call: Call) -> None:
        # Neither document knows of what an endpoint says of itself.
        await call.answer(b"", status, "Retry-After: 7777\r\nLocation: http://127.0.0.1:1/\r\n")

    schedule = Schedule(policy)
    async with endpoint(refusing) as there, calling() as rig:
        decision = await schedule.run(rig, there)
    assert policy.timeout_s == says[0]
    assert schedule.pauses == says[1]
    assert len(there.calls) == len(says[1]) + 1
    assert {call.headers["webhook-id"] for call in there.calls} == {WEBHOOK_ID}
    assert (decision.verdict, decision.disables, decision.throttle_s) == (Verdict.FAILED, disables, 0)


@pytest.mark.parametrize("policy", [DISPATCH, RCS], ids=["dispatch", "rcs"])
async def test_a_200_after_failures_ends_it(policy: Policy) -> None:
    statuses = [500, 204, 200]

    async def at_last(call: Call) -> None:
        await call.answer(b"", statuses.pop(0))

    async with endpoint(at_last) as there, calling() as rig:
        decision = await Schedule(policy).run(rig, there)
    assert decision.verdict is Verdict.SUCCEEDED
    assert len(there.calls) == 3


async def test_an_endpoint_that_takes_longer_is_tried_again() -> None:
    """The time that a policy allows, cut down to one that a test can wait for."""
    short = Policy(RCS.kind, 1, RCS.steps_s, only_200=True)

    async def hanging(call: Call) -> None:
        await there.ended.wait()

    async with endpoint(hanging) as there, calling() as rig:
        made = await told(rig, spec(there.url(), policy=short))
    assert made.outcome == Outcome(error="timeout")
    decision = decide(RCS, 1, made.outcome, NOW_US, 0.5)
    assert decision.retry_at_us == NOW_US + 10_000_000


async def test_a_message_that_comes_twice_is_known_by_its_id_and_its_body() -> None:
    """What an endpoint needs to handle duplicates: the same id and the same words, whatever happened to the answer."""
    lost = asyncio.Event()

    async def losing(call: Call) -> None:
        if not lost.is_set():
            lost.set()
            call.reset()
            return
        await call.answer()

    async with endpoint(losing) as there, calling() as rig:
        to = subscription(http(there.url()), policy=RCS)
        first = await told(rig, to)
        second = await told(rig, to)
    assert (first.outcome, second.outcome) == (Outcome(error="reset"), Outcome(200))
    one, two = there.calls
    assert one.body == two.body
    assert one.headers["webhook-id"] == two.headers["webhook-id"]
