"""gRPC to deliveries and their redelivery, and back; nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.names import channel_key
from backhaul_common.pages import span_of
from backhaul_common.vocabulary import Words
from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.deliveries.reading import REASON, MongoDeliveries, Wanted
from backhaul_notifier.deliveries.redelivering import ABOUT, Chosen, Redelivering, Which
from backhaul_notifier.documents import MAX_RATE_PER_S, webhook_id
from backhaul_notifier.ports import Tenants

MAX_WITH_HISTORY: Final = 50
"""Deliveries of a page that have all their attempts: thirty of each are some megabytes."""

_STATES = Words(pb.DeliveryState.DESCRIPTOR)
_WHICH: Mapping[int, Which] = {
    pb.REDELIVERED_FAILED: "failed",
    pb.REDELIVERED_ALL: "all",
    pb.REDELIVERED_NEVER_ATTEMPTED: "never_attempted",
}


class DeliveryCalls:
    """What ``NotifierService`` says of deliveries. Errors are BackhaulErrors; the server's edge translates."""

    def __init__(
        self, tenants: Tenants, deliveries: MongoDeliveries, redelivering: Redelivering, now_us: Callable[[], int]
    ) -> None:
        self._tenants = tenants
        self._deliveries = deliveries
        self._redelivering = redelivering
        self._now_us = now_us

    async def list(self, request: pb.ListDeliveriesRequest) -> pb.ListDeliveriesResponse:
        """Deliveries, newest first."""
        tenant = await self._tenants.require(request.tenant_id)
        wanted = _wanted(request)
        if request.with_history and request.page_size > MAX_WITH_HISTORY:
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                f"Deliveries with their history are listed by {MAX_WITH_HISTORY} at most.",
                field="page_size",
                fix="Ask for smaller pages, or for the history of one delivery.",
            )
        rows, token = await self._deliveries.page(tenant.registration, wanted, request.page_size, request.page_token)
        endpoints = await self._deliveries.endpoints(rows)
        deliveries = [delivery_message(row, endpoints.get(row["subscription"], {})) for row in rows]
        if request.with_history:
            for message, row in zip(deliveries, rows, strict=True):
                message.history.extend(map(_brief, row.get("tries", ())))
        return pb.ListDeliveriesResponse(deliveries=deliveries, next_page_token=token)

    async def get(self, request: pb.GetDeliveryRequest) -> pb.GetDeliveryResponse:
        """One delivery with its attempts."""
        tenant = await self._tenants.require(request.tenant_id)
        row = await self._deliveries.get(tenant.registration, request.id)
        if row is None:
            raise BackhaulError(
                Code.NOT_FOUND,
                "There is no such delivery.",
                field="id",
                fix="Look for it with the list of deliveries; what is over is kept for a while only.",
            )
        endpoint = (await self._deliveries.endpoints([row])).get(row["subscription"], {})
        return pb.GetDeliveryResponse(
            delivery=delivery_message(row, endpoint), attempts=map(attempt_message, row.get("tries", ()))
        )

    async def redeliver(self, request: pb.RedeliverRequest) -> pb.RedeliverResponse:
        """Have deliveries sent again."""
        tenant = await self._tenants.require(request.tenant_id)
        if request.delivery_id:
            _require_alone(request)
            count = await self._redelivering.one(tenant, request.delivery_id, dry_run=request.dry_run)
        else:
            chosen = _chosen(request, self._now_us())
            count = await self._redelivering.many(tenant, request.subscription_id, chosen, dry_run=request.dry_run)
        return pb.RedeliverResponse(deliveries=count)


def delivery_message(row: Document, endpoint: Document) -> pb.Delivery:
    """The message of a delivery as it is stored, and as far as its ``endpoint`` lets it be sent; that is empty where
    it is gone."""
    tries = row.get("tries", ())
    waits = row["state"] == "waiting"
    stopped = waits and not endpoint.get("active", True)
    next_us = max(row["due_at_us"], endpoint.get("rest_until_us", 0)) if waits and not stopped else 0
    return pb.Delivery(
        id=row["_id"].hex(),
        subscription_id=row["subscription"],
        webhook_id=webhook_id(row.get("call") or row["_id"]),
        type=row["type"],
        event_id=row["event_id"],
        revision=row["revision"],
        channel=row.get("channel", ""),
        message_id=row.get("message_id", ""),
        communication_id=row.get("communication_id", ""),
        state=_STATES.number(row["state"]),
        attempts=row["attempts"],
        created_at_us=row["created_at_us"],
        next_attempt_at_us=next_us,
        when_resumed=stopped,
        ended_at_us=0 if waits else row.get("ended_at_us", 0),
        last_attempt=attempt_message(tries[-1]) if tries else None,
    )


def attempt_message(tried: Document) -> pb.Attempt:
    """The message of one of a delivery's ``tries``."""
    return pb.Attempt(
        number=tried["number"],
        at_us=tried["at_us"],
        duration_us=tried["us"],
        status=tried.get("status", 0),
        error=tried.get("error", ""),
        text=tried.get("text", ""),
        answer=tried.get("answer", "").encode(),
        request=tried.get("request", ""),
        redelivery=tried.get("again", 0),
    )


def _brief(tried: Document) -> pb.Attempt:
    """Without what may be long: the last attempt has it, and the history of one delivery."""
    return attempt_message({**tried, "answer": "", "request": ""})


def _wanted(request: pb.ListDeliveriesRequest) -> Wanted:
    if request.state and request.state not in _STATES.by_number:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"state has no value {request.state}.",
            field="state",
            fix=f"Known are: {', '.join(_STATES.words)}.",
        )
    if request.type:
        _require_type(request.type, "type")
    if request.reason and not REASON.fullmatch(request.reason):
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "That is no reason for which an attempt fails.",
            field="reason",
            fix="Pass a status (503), a class of them (5xx), an error's word (timeout), or how some begin (tls_*).",
        )
    _require_channel(request)
    return Wanted(
        subscription=request.subscription_id,
        state=_STATES.by_number[request.state] if request.state else "",
        type=request.type,
        event_id=request.event_id,
        channel=channel_key(request.channel),
        message_id=request.message_id,
        communication_id=request.communication_id,
        never_attempted=request.never_attempted,
        undelivered=request.undelivered,
        reason=request.reason,
        span=span_of(request.from_us, request.to_us),
    )


def _require_alone(request: pb.RedeliverRequest) -> None:
    others = ("subscription_id", "which", "from_us", "to_us", "types", "rate_per_s", *ABOUT)
    for name in others:
        if getattr(request, name):
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                f"A single delivery is sent again without {name}.",
                field=name,
                fix="Leave it out, or leave delivery_id out.",
            )


def _chosen(request: pb.RedeliverRequest, now_us: int) -> Chosen:
    """What is sent again; what is made from now on is not."""
    if not request.subscription_id:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "It is not said what is to be sent again.",
            field="subscription_id",
            fix="Name a subscription, or a delivery in delivery_id.",
        )
    which = _WHICH.get(request.which)
    if which is None:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "It is not said which deliveries are to be sent again.",
            field="which",
            fix="Choose failed, all, or never_attempted.",
        )
    from_us, to_us = span_of(request.from_us, request.to_us)
    if not from_us:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "It is not said since when.",
            field="from_us",
            fix="Say from when on deliveries are to be sent again.",
        )
    ends_us = min(to_us or now_us, now_us)
    if from_us >= ends_us:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "The span has no time that has passed.",
            field="from_us",
            fix="Begin before the end, and before now.",
        )
    for place, name in enumerate(request.types):
        _require_type(name, f"types[{place}]")
    if not 0 <= request.rate_per_s <= MAX_RATE_PER_S:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The rate is not between 1 and {MAX_RATE_PER_S} a second.",
            field="rate_per_s",
            fix="Choose one that is, or leave it out for the subscription's own.",
        )
    _require_channel(request)
    about = {name: value for name in ABOUT if (value := getattr(request, name))}
    if request.channel:
        about["channel"] = channel_key(request.channel)
    return Chosen(which, from_us, ends_us, tuple(dict.fromkeys(request.types)), request.rate_per_s, about)


def _require_channel(request: pb.ListDeliveriesRequest | pb.RedeliverRequest) -> None:
    if request.message_id and not request.channel:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            "A message's id is one of a channel.",
            field="channel",
            fix="Name the channel of the message.",
        )


def _require_type(name: str, field: str) -> None:
    if name not in TYPES:
        raise BackhaulError(
            Code.INVALID_ARGUMENT,
            f"There is no type {name[:64]!r}.",
            field=field,
            fix="Take one of the catalogue of event types, without a wildcard.",
        )
