"""``/admin/v1/export`` and ``/admin/v1/apply``: configuration as data."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError

from backhaul_gateway.admin.configmodels import (
    MAX_TENANTS,
    AppliedOut,
    ApplyIn,
    ExportOut,
    Json,
    of_channel,
    of_subscription,
    of_tenant,
    with_references,
)
from backhaul_gateway.admin.configuration import Configuration
from backhaul_gateway.admin.tenants import TenantRegistry
from backhaul_gateway.admission.unfit import violations
from backhaul_gateway.twins.subscriptioncalls import SubscriptionIn
from backhaul_gateway.twins.subscriptions import SUBSCRIPTION
from backhaul_gateway.twins.writing import Writer
from backhaul_gateway.web.edge import MAX_BODY
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.parts import PartsOf
from backhaul_gateway.web.problems import NotInstalledError

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.notifier.v1.notifier_pb2_grpc import NotifierServiceAsyncStub

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Only an operator sends one."""

_PAGE = 100


class _Large(APIRoute):
    """A route whose body may be larger than most: FastAPI reads it before it calls anything of ours but this."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own, with another bound."""
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            request.scope[MAX_BODY] = MAX_DOCUMENT_BYTES
            return await handler(request)

        return bounded


class NotifierSubscriptions:
    """``Subscriptions`` over the notifier. An installation without one has none."""

    def __init__(self, notifier: NotifierServiceAsyncStub, writer: Writer) -> None:
        self._notifier = notifier
        self._run = writer.run

    async def all(self, tenant_id: str) -> Mapping[str, Json]:
        """See ``Subscriptions``."""
        return {id_: definition for id_, (definition, _) in (await self.with_state(tenant_id)).items()}

    async def with_state(self, tenant_id: str) -> Mapping[str, tuple[Json, bool]]:
        """Their definitions by id, and whether nothing is sent; oldest first."""
        found: dict[str, tuple[Json, bool]] = {}
        token = ""
        while True:
            asked = pb.ListSubscriptionsRequest(tenant_id=tenant_id, page_size=_PAGE, page_token=token)
            try:
                answer = await self._notifier.ListSubscriptions(asked)
            except NotInstalledError:
                return {}
            for one in answer.subscriptions:
                found[one.id] = await self._shown(one), one.state != pb.SUBSCRIPTION_STATE_ACTIVE
            if not (token := answer.next_page_token):
                return found

    async def validated(self, tenant_id: str, id_: str, given: Json) -> Json:
        """See ``Subscriptions``."""
        definition = _asked(given).definition()
        made = pb.CreateSubscriptionRequest(tenant_id=tenant_id, definition=definition, validate_only=True)
        put = pb.UpdateSubscriptionRequest(tenant_id=tenant_id, id=id_, definition=definition, validate_only=True)
        answer = await self._of(
            self._notifier.UpdateSubscription(put) if id_ else self._notifier.CreateSubscription(made)
        )
        return await self._shown(answer.subscription)

    async def put(self, tenant_id: str, id_: str, given: Json, *, paused: bool) -> tuple[str, str]:
        """See ``Subscriptions``."""
        asked = _asked(given)
        if id_:
            request = pb.UpdateSubscriptionRequest(tenant_id=tenant_id, id=id_, definition=asked.definition())
            return (await self._of(self._notifier.UpdateSubscription(request))).subscription.id, ""
        made = (await self._of(self._notifier.CreateSubscription(asked.request(tenant_id, "")))).subscription
        if paused:
            await self._of(
                self._notifier.PauseSubscription(pb.PauseSubscriptionRequest(tenant_id=tenant_id, id=made.id))
            )
        return made.id, made.secrets[0].secret

    async def _of(self, call: Any) -> Any:
        try:
            return await call
        except NotInstalledError:
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                "The notifier is not installed, so there are no subscriptions.",
                fix="Leave them out, or install the notifier.",
            ) from None
        except BackhaulError as exc:
            wrong = [Violation(one.field.removeprefix("definition."), one.message, one.fix) for one in exc.violations]
            raise BackhaulError(exc.code, exc.message, violations=wrong, retry_after_s=exc.retry_after_s) from exc

    async def _shown(self, subscription: pb.Subscription) -> Json:
        return of_subscription(orjson.loads(await self._run(SUBSCRIPTION.json(subscription))))


def _asked(given: Json) -> SubscriptionIn:
    try:
        return SubscriptionIn.model_validate(given)
    except ValidationError as exc:
        wrong = violations(exc.errors(), SubscriptionIn, given)
        raise BackhaulError(Code.INVALID_ARGUMENT, "The subscription is not valid.", violations=wrong) from None


class ConfigRoutes:
    """The platform team's side of configuration as data."""

    def __init__(
        self, configuration: Configuration, tenants: TenantRegistry, subscriptions: NotifierSubscriptions
    ) -> None:
        self._configuration = configuration
        self._tenants = tenants
        self._subscriptions = subscriptions

    def add_to(self, router: APIRouter) -> None:
        """Add each method below under its path."""
        router.add_api_route("/export", self.export, methods=["GET"], responses=problems(404, 504))
        refusals = problems(400, 404, 409, 413, 504)
        router.add_api_route("/apply", self.apply, methods=["POST"], responses=refusals, route_class_override=_Large)

    async def export(
        self,
        tenant: Annotated[str, Query(max_length=64, description="This one alone; left out, all.")] = "",
        cursor: Annotated[str, Query(max_length=64, description="next_cursor of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_TENANTS)] = MAX_TENANTS,
    ) -> ExportOut:
        """Tenants with their channels and subscriptions, as apply takes them. In the place of each secret stands a
        reference. Keys are not part of it, of which only hashes are stored, nor is what is being deleted."""
        found = [await self._tenants.get(tenant)] if tenant else await self._tenants.page(cursor, limit + 1)
        page = found[:limit]
        shown = []
        for one in page:
            if one.status == "deleting":
                continue
            subscriptions = await self._subscriptions.with_state(one.id)
            shown.append(
                of_tenant(one)
                | {
                    "channels": [of_channel(one.id, one.channels[key]) for key in sorted(one.channels)],
                    "subscriptions": [
                        {"id": id_, "paused": paused, **with_references(one.id, id_, definition)}
                        for id_, (definition, paused) in subscriptions.items()
                    ],
                }
            )
        return ExportOut(tenants=shown, next_cursor=page[-1].id if len(found) > limit else None)

    async def apply(
        self,
        body: ApplyIn,
        parts: PartsOf,
        dry_run: Annotated[bool, Query(description="Only say what would become of it.")] = False,
    ) -> AppliedOut:
        """Make tenants, channels and subscriptions what the document says, and tell what changed. Nothing is ever
        deleted. All of it is looked at first: what is refused then has changed nothing. May be repeated."""
        done = await self._configuration.apply(body, parts, dry_run=dry_run)
        return AppliedOut(dry_run=dry_run, tenants=done)
