"""How it stands: with a channel, with a tenant, with all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from backhaul_channels import Adapter
from backhaul_common import mongo
from backhaul_common.service import Service

from backhaul_gateway.admission.room import CallbackRoom
from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.broker import Broker
from backhaul_gateway.reads.auditstate import AuditStates
from backhaul_gateway.reads.notifierstate import NotifierStates
from backhaul_gateway.reads.objectstore import BucketCheck
from backhaul_gateway.reads.overview import Overview
from backhaul_gateway.reads.overviews import Overviews
from backhaul_gateway.reads.reconcilerstate import ReconcilerStates
from backhaul_gateway.reads.status import ChannelStatus, ServiceStates
from backhaul_gateway.services import Services
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.spool.overdraft import Overdraft
from backhaul_gateway.spool.spool import Spool


@dataclass(frozen=True, slots=True)
class Standing:
    """What tells it."""

    status: ChannelStatus
    overview: Overview
    overviews: Overviews


def standing_of(
    service: Service,
    settings: GatewaySettings,
    *,
    states: TenantStates,
    room: CallbackRoom,
    broker: Broker,
    to: Services,
    adapters: Mapping[str, Adapter[Any]],
    spool: Spool | None,
    overdraft: Overdraft | None,
) -> Standing:
    said = ServiceStates(
        AuditStates(to.audit, adapters), ReconcilerStates(to.reconciler, adapters), NotifierStates(to.notifier)
    )
    ping, bucket = partial(mongo.ping, service.mongo_client), BucketCheck(settings)
    overview = Overview(
        states,
        room,
        normalizer=to.normalizer,
        suppression=to.suppression,
        services=said,
        spool=spool,
        overdraft=overdraft,
    )
    status = ChannelStatus(
        streams=broker,
        check_store=ping,
        object_storage=bucket,
        states=states,
        services=said,
        spool=spool,
        overdraft=overdraft,
        at_a_glance=overview.whole,
    )
    overviews = Overviews(
        overview,
        lambda: service.tenants.tenants,
        streams=broker,
        callbacks_waiting=broker.callbacks_waiting,
        check_store=ping,
        object_storage=bucket,
    )
    service.stack.push_async_callback(overviews.close)
    return Standing(status, overview, overviews)
