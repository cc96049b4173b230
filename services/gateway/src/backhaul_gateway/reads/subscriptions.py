"""``/v1/subscriptions`` over the notifier: what a tenant wants to be told, and where; and ``/v1/event-types``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from fastapi import APIRouter, Path, Request, Response

from backhaul_gateway.reads.callers import By, Callers
from backhaul_gateway.reads.streaming import unless_gone
from backhaul_gateway.twins.subscriptioncalls import (
    RedeliverIn,
    ResumeIn,
    RotateSecretIn,
    SubscriptionIn,
    SubscriptionUpdateIn,
    TestIn,
    in_words_of_http,
)
from backhaul_gateway.twins.subscriptions import (
    ATTEMPT,
    REDELIVERED,
    SUBSCRIPTION,
    SUBSCRIPTIONS,
    AttemptOut,
    EventTypesOut,
    RedeliveredOut,
    SubscriptionOut,
    SubscriptionPage,
    event_types_json,
)
from backhaul_gateway.web.filters import Cursor, Limit
from backhaul_gateway.web.idempotency import IdempotencyKey
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parameters import paged

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.notifier.v1.notifier_pb2_grpc import NotifierServiceAsyncStub

MAX_TEST_S = 130.0
"""How long the answer of a test call is waited for: an endpoint may take 120 seconds."""

SAY_AGAIN = "It may have been done, or not: look at it before you send this again."
"""What it means that a change got no answer."""

_SAY_AGAIN_BY_KEY = "It may have been made, or not. Send it again later, under the same Idempotency-Key if it had one."
_ROOT = "/v1/subscriptions"

SubscriptionId = Annotated[
    str, Path(pattern="^sub_[0-9a-f]{24}$", description="The subscription's id.", examples=["sub_" + "5f" * 12])
]


def redelivered(many: str) -> dict[int | str, dict[str, Any]]:
    """The answers of a route by which deliveries are sent again."""
    return {
        202: {"model": RedeliveredOut, "description": many},
        **problems(400, 404, 409),
    }


class SubscriptionRoutes:
    """What a tenant wants to be told."""

    def __init__(self, callers: Callers, notifier: NotifierServiceAsyncStub) -> None:
        self._written = callers.written
        self._written_by = callers.written_by
        self._notifier = notifier

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        one, shown, changes = "/subscriptions/{subscription_id}", SubscriptionOut, problems(400, 404, 409)
        get = partial(router.add_api_route, methods=["GET"])
        get("/event-types", self.list_types, response_model=EventTypesOut)
        get("/subscriptions", self.list_subscriptions, response_model=SubscriptionPage)
        get(one, self.get_subscription, response_model=shown, responses=problems(404))
        put = partial(router.add_api_route, methods=["PUT"])
        put(one, self.update, response_model=shown, responses=changes)
        delete = partial(router.add_api_route, methods=["DELETE"])
        delete(one, self.delete, status_code=204, response_class=Response, responses=problems(404))
        post = partial(router.add_api_route, methods=["POST"])
        post("/subscriptions", self.create, status_code=201, response_model=shown, responses=_created())
        post(f"{one}/pause", self.pause, response_model=shown, responses=problems(404))
        post(f"{one}/resume", self.resume, response_model=shown, responses=changes)
        post(f"{one}/rotate-secret", self.rotate_secret, response_model=shown, responses=changes)
        post(f"{one}/test", self.test, response_model=AttemptOut, responses=changes)
        again = redelivered("So many are sent again, in the background; with ``dry_run`` they would be.")
        post(f"{one}/redeliver", self.redeliver, status_code=202, response_model=RedeliveredOut, responses=again)

    async def list_types(self, by: By) -> Response:
        """All that can be told: each type with the JSON Schema of what is sent of it, and a sample."""
        answer = await self._notifier.ListEventTypes(pb.ListEventTypesRequest(tenant_id=by.tenant.id))
        return await self._written_by(event_types_json(answer))

    async def list_subscriptions(self, by: By, limit: Limit = 50, cursor: Cursor = "") -> Response:
        """Subscriptions, oldest first."""
        request = pb.ListSubscriptionsRequest(tenant_id=by.tenant.id, page_size=limit, page_token=cursor)
        return await self._written(SUBSCRIPTIONS, await paged(self._notifier.ListSubscriptions(request)))

    async def create(self, by: By, body: SubscriptionIn, idempotency_key: IdempotencyKey = "") -> Response:
        """Make a subscription, which tells what happens from now on. The answer alone has the secret that its calls are
        signed with: keep it."""
        with in_words_of_http(unanswered=_SAY_AGAIN_BY_KEY):
            answer = await self._notifier.CreateSubscription(body.request(by.tenant.id, idempotency_key))
        response = await self._written(SUBSCRIPTION, answer.subscription, 201)
        response.headers["location"] = f"{_ROOT}/{answer.subscription.id}"
        return response

    async def get_subscription(self, by: By, subscription_id: SubscriptionId) -> Response:
        """One subscription, and how it goes."""
        request = pb.GetSubscriptionRequest(tenant_id=by.tenant.id, id=subscription_id)
        with _of_one():
            answer = await self._notifier.GetSubscription(request)
        return await self._written(SUBSCRIPTION, answer.subscription)

    async def update(self, by: By, subscription_id: SubscriptionId, body: SubscriptionUpdateIn) -> Response:
        """Put a definition in place of the one that there is. What waits is told by the new one. Secrets of credentials
        that are empty stay as they are, unless they would be shown to another host. 409 where it is not of the
        ``revision`` any more."""
        with _of_one(SAY_AGAIN):
            answer = await self._notifier.UpdateSubscription(body.request(by.tenant.id, subscription_id))
        return await self._written(SUBSCRIPTION, answer.subscription)

    async def delete(self, by: By, subscription_id: SubscriptionId) -> Response:
        """Delete a subscription, with what waits for it and its history."""
        with _of_one(SAY_AGAIN):
            await self._notifier.DeleteSubscription(
                pb.DeleteSubscriptionRequest(tenant_id=by.tenant.id, id=subscription_id)
            )
        return Response(status_code=204)

    async def pause(self, by: By, subscription_id: SubscriptionId) -> Response:
        """Send nothing more. What happens meanwhile waits."""
        request = pb.PauseSubscriptionRequest(tenant_id=by.tenant.id, id=subscription_id)
        with _of_one(SAY_AGAIN):
            answer = await self._notifier.PauseSubscription(request)
        return await self._written(SUBSCRIPTION, answer.subscription)

    async def resume(self, by: By, subscription_id: SubscriptionId, body: ResumeIn | None = None) -> Response:
        """Send what waits, in its order, and go on; also where Backhaul paused or disabled it."""
        rate = body.rate_per_s if body is not None else 0
        request = pb.ResumeSubscriptionRequest(tenant_id=by.tenant.id, id=subscription_id, rate_per_s=rate)
        with _of_one(SAY_AGAIN):
            answer = await self._notifier.ResumeSubscription(request)
        return await self._written(SUBSCRIPTION, answer.subscription)

    async def rotate_secret(
        self, by: By, subscription_id: SubscriptionId, body: RotateSecretIn | None = None
    ) -> Response:
        """Make a new secret, which only this answer has. Calls are signed with the one before as well until its grace
        is over."""
        request = (body or RotateSecretIn()).request(by.tenant.id, subscription_id)
        with _of_one(SAY_AGAIN):
            answer = await self._notifier.RotateSecret(request)
        return await self._written(SUBSCRIPTION, answer.subscription)

    async def test(
        self, request: Request, by: By, subscription_id: SubscriptionId, body: TestIn | None = None
    ) -> Response:
        """Send a sample of a type now, once, whatever the state. The answer is what became of it, which may take as
        long as the policy lets an attempt take."""
        asked = pb.TestSubscriptionRequest(
            tenant_id=by.tenant.id, id=subscription_id, type=body.type if body is not None else ""
        )

        async def tested() -> Response:
            with _of_one():
                answer = await self._notifier.TestSubscription(asked, timeout=MAX_TEST_S)
            return await self._written(ATTEMPT, answer.attempt)

        # Nobody reads the answer to a question that was given up.
        return await unless_gone(request, tested()) or Response(status_code=204)

    async def redeliver(self, by: By, subscription_id: SubscriptionId, body: RedeliverIn) -> Response:
        """Have deliveries sent again that failed (``failed``), all of them (``all``), or for the first time those that
        nobody has tried to send (``never_attempted``). They are counted now, and sent in the background."""
        with _of_one(SAY_AGAIN):
            answer = await self._notifier.Redeliver(body.request(by.tenant.id, subscription_id))
        return await self._written(REDELIVERED, answer, 202)


def _of_one(unanswered: str = "") -> Any:
    """Around a call about one subscription."""
    return in_words_of_http(of="subscription_id", unanswered=unanswered)


def _created() -> dict[int | str, dict[str, Any]]:
    return {
        201: {
            "model": SubscriptionOut,
            "description": "It tells from now on.",
            "headers": {"Location": {"description": "The subscription's path.", "schema": {"type": "string"}}},
        },
        **problems(400, 409),
    }
