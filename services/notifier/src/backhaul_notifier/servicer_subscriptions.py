"""gRPC to subscriptions, and back; nothing is decided here but which sample a test call sends."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from secrets import token_bytes
from typing import Final

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.limits import TokenBucket
from backhaul_common.places import Places
from backhaul_common.vocabulary import Values, Words
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.catalogue.matching import covers
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES, EventType
from backhaul_notifier.documents import MAX_SUBSCRIPTIONS, webhook_id
from backhaul_notifier.model import Attempted, Delivery, StoredSecret, Subscription
from backhaul_notifier.ports import Caller, Tenants
from backhaul_notifier.signing import SecretKind, SigningKey
from backhaul_notifier.subscriptions.secrets_of import blank
from backhaul_notifier.subscriptions.standings import Standings
from backhaul_notifier.subscriptions.store import DEFAULT_GRACE_S, MongoSubscriptions

TESTS_PER_S: Final = 0.5
TESTS_AT_ONCE: Final = 10
"""Test calls of one tenant on this copy: in the long run, and in a row."""

MAX_TESTS_OF_TENANT, MAX_TESTS = 4, 50
"""Under way: each may take as long as its policy lets an attempt take."""

_MAX_BUCKETS = 10_000

_STATES = Words(pb.SubscriptionState.DESCRIPTOR)
_KINDS = Values(pb.SecretKind.DESCRIPTOR, SecretKind)


class SubscriptionCalls:
    """What ``NotifierService`` says of subscriptions. Errors are BackhaulErrors; the server's edge translates."""

    def __init__(
        self,
        tenants: Tenants,
        subscriptions: MongoSubscriptions,
        standings: Standings,
        caller: Caller,
        now_us: Callable[[], int],
    ) -> None:
        self._tenants = tenants
        self._subscriptions = subscriptions
        self._standings = standings
        self._caller = caller
        self._now_us = now_us
        self._places = Places("test calls", of_tenant=MAX_TESTS_OF_TENANT, of_all=MAX_TESTS)
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    async def create(self, request: pb.CreateSubscriptionRequest) -> pb.CreateSubscriptionResponse:
        """A new subscription, with its secret."""
        tenant = await self._tenants.require(request.tenant_id)
        if request.validate_only:
            definition = blank(self._subscriptions.validated(request.definition))
            return pb.CreateSubscriptionResponse(subscription=pb.Subscription(definition=definition))
        subscription, key = await self._subscriptions.create(
            tenant, request.definition, key=request.idempotency_key, secret=request.secret
        )
        return pb.CreateSubscriptionResponse(subscription=await self._told(subscription, key))

    async def get(self, request: pb.GetSubscriptionRequest) -> pb.GetSubscriptionResponse:
        """One subscription."""
        tenant = await self._tenants.require(request.tenant_id)
        subscription = await self._subscriptions.require(tenant.registration, request.id)
        return pb.GetSubscriptionResponse(subscription=await self._told(subscription))

    async def list(self, request: pb.ListSubscriptionsRequest) -> pb.ListSubscriptionsResponse:
        """Subscriptions, oldest first."""
        tenant = await self._tenants.require(request.tenant_id)
        found, token = await self._subscriptions.page(tenant.registration, request.page_size, request.page_token)
        standings = await self._standings.of(tenant.registration, [each.id for each in found])
        return pb.ListSubscriptionsResponse(
            subscriptions=[subscription_message(each, standings[each.id]) for each in found], next_page_token=token
        )

    async def update(self, request: pb.UpdateSubscriptionRequest) -> pb.UpdateSubscriptionResponse:
        """Another definition."""
        tenant = await self._tenants.require(request.tenant_id)
        if request.validate_only:
            before = await self._subscriptions.require(tenant.registration, request.id)
            definition = blank(self._subscriptions.validated(request.definition, before))
            return pb.UpdateSubscriptionResponse(subscription=pb.Subscription(id=before.id, definition=definition))
        subscription = await self._subscriptions.update(tenant, request.id, request.definition, request.revision)
        return pb.UpdateSubscriptionResponse(subscription=await self._told(subscription))

    async def delete(self, request: pb.DeleteSubscriptionRequest) -> pb.DeleteSubscriptionResponse:
        """Its end."""
        await self._subscriptions.delete(await self._tenants.require(request.tenant_id), request.id)
        return pb.DeleteSubscriptionResponse()

    async def pause(self, request: pb.PauseSubscriptionRequest) -> pb.PauseSubscriptionResponse:
        """Nothing more is sent."""
        tenant = await self._tenants.require(request.tenant_id)
        subscription = await self._subscriptions.pause_by_call(tenant, request.id)
        return pb.PauseSubscriptionResponse(subscription=await self._told(subscription))

    async def resume(self, request: pb.ResumeSubscriptionRequest) -> pb.ResumeSubscriptionResponse:
        """What waits is sent."""
        tenant = await self._tenants.require(request.tenant_id)
        subscription = await self._subscriptions.resume(tenant, request.id, request.rate_per_s)
        return pb.ResumeSubscriptionResponse(subscription=await self._told(subscription))

    async def rotate(self, request: pb.RotateSecretRequest) -> pb.RotateSecretResponse:
        """Another secret, which is told here alone."""
        tenant = await self._tenants.require(request.tenant_id)
        kind = _KINDS.value(request.kind, "kind")
        if kind is None:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "It is not said how the new secret signs.",
                field="kind",
                fix="Choose hmac, or ed25519.",
            )
        grace_s = request.grace_s if request.HasField("grace_s") else DEFAULT_GRACE_S
        subscription, key = await self._subscriptions.rotate(
            tenant, request.id, kind, grace_s=grace_s, secret=request.secret
        )
        return pb.RotateSecretResponse(subscription=await self._told(subscription, key))

    async def test(self, request: pb.TestSubscriptionRequest) -> pb.TestSubscriptionResponse:
        """Sends a sample, once."""
        tenant = await self._tenants.require(request.tenant_id)
        subscription = await self._subscriptions.require(tenant.registration, request.id)
        delivery = _sample(subscription, _type_of(subscription, request.type), self._now_us())
        with self._places.taken(tenant.registration):
            self._take(tenant.registration)
            attempted = await self._caller.call(subscription, [delivery], webhook_id(delivery.id))
        return pb.TestSubscriptionResponse(attempt=_attempt_message(attempted))

    async def state(self, request: pb.GetStateRequest) -> pb.GetStateResponse:
        """How it goes with all of them."""
        tenant = await self._tenants.require(request.tenant_id)
        found, _ = await self._subscriptions.page(tenant.registration, MAX_SUBSCRIPTIONS, "")
        return await self._standings.of_all(tenant.registration, found)

    async def _told(self, subscription: Subscription, key: SigningKey | None = None) -> pb.Subscription:
        standings = await self._standings.of(subscription.registration, [subscription.id])
        return subscription_message(subscription, standings[subscription.id], key)

    def _take(self, registration: str) -> None:
        clock = asyncio.get_running_loop().time
        bucket = self._buckets.setdefault(registration, TokenBucket(TESTS_PER_S, TESTS_AT_ONCE, clock))
        self._buckets.move_to_end(registration)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        wait_s = bucket.take()
        if wait_s:
            raise BackhaulError(
                Code.RATE_LIMITED, "There were too many test calls.", fix="Wait a little.", retry_after_s=wait_s
            )


def subscription_message(
    subscription: Subscription, standing: pb.Standing, key: SigningKey | None = None
) -> pb.Subscription:
    """The message of a subscription, without secrets but the one of ``key``, which was made for whoever is told."""
    return pb.Subscription(
        id=subscription.id,
        revision=subscription.revision,
        definition=blank(subscription.definition),
        state=_STATES.number(subscription.state),
        state_text=subscription.state_text,
        state_since_us=subscription.state_since_us,
        created_at_us=subscription.created_at_us,
        updated_at_us=subscription.updated_at_us,
        secrets=[_secret_message(each, key) for each in subscription.secrets],
        standing=standing,
    )


def _secret_message(stored: StoredSecret, key: SigningKey | None) -> pb.Secret:
    kind = SecretKind(stored.kind)
    shown = (
        key is not None and kind is SecretKind.HMAC and (key.kind, key.created_at_us) == (kind, stored.created_at_us)
    )
    return pb.Secret(
        kind=_KINDS.number(kind),
        secret=key.text if key is not None and shown else "",
        public_key=stored.public_key,
        created_at_us=stored.created_at_us,
        expires_at_us=stored.expires_at_us,
    )


_LIKELY = {"message.delivered": 0, "message.unknown": 2}
"""Of what a pattern covers, a test call sends what people expect: hardly any application handles what has no word."""


def _type_of(subscription: Subscription, name: str) -> EventType:
    """The type whose sample is sent: ``name``, or what the subscription is likely told of most."""
    told = [each for each in TYPES.values() if any(covers(one, each.name) for one in subscription.definition.types)]
    for each in sorted(told, key=lambda each: _LIKELY.get(each.name, 1)):
        if not name or each.name == name:
            return each
    raise BackhaulError(
        Code.INVALID_ARGUMENT,
        f"The subscription is not told of {name[:64]!r}." if name else "The subscription is told of nothing.",
        field="type",
        fix=f"It is told of {', '.join(each.name for each in told[:10]) or 'types that this version does not know'}.",
    )


def _sample(subscription: Subscription, of: EventType, now_us: int) -> Delivery:
    sample = sample_of(of, subscription.tenant)
    return Delivery(
        id=token_bytes(16),
        subscription=subscription.id,
        type=of.name,
        payload=sample.SerializeToString(),
        notice=isinstance(sample, Notice),
        order=0,
        key=b"",
        due_at_us=now_us,
        created_at_us=now_us,
        attempts=0,
        counted=0,
        ours=0,
        call=b"",
    )


def _attempt_message(attempted: Attempted) -> pb.Attempt:
    return pb.Attempt(
        number=1,
        at_us=attempted.at_us,
        duration_us=attempted.us,
        status=attempted.outcome.status,
        error=attempted.outcome.error,
        text=attempted.text,
        answer=attempted.answer.encode(),
        request=attempted.request,
    )
