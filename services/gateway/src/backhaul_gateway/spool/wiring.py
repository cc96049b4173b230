"""What the settings make of the spool and the overdraft."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from backhaul_common.directory import TenantDirectory
from backhaul_common.errors import unavailable
from backhaul_common.metrics import HELD_DRAINED, SPOOL_DRAINED
from backhaul_common.service import Service
from backhaul_proto.callback.v1.callback_pb2 import Callback

from backhaul_gateway.admission.room import CallbackRoom
from backhaul_gateway.admission.state import TenantStates
from backhaul_gateway.ports import CallbackLog
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.spool.file import TROUBLE, SpoolTakenError
from backhaul_gateway.spool.log import DirectLog, SpooledLog
from backhaul_gateway.spool.onward import Onward
from backhaul_gateway.spool.overdraft import Bounds, Overdraft
from backhaul_gateway.spool.spool import Spool, overdrawn


def spooled(
    publisher: DirectLog,
    service: Service,
    settings: GatewaySettings,
    states: TenantStates,
    room: CallbackRoom,
) -> tuple[CallbackLog, Spool | None, Overdraft | None]:
    """The callback log, and behind it the spool, which keeps the gateway ready as well, and the overdraft, if they are
    to be.

    Raises SystemExit, naming the setting, where the spool's directory cannot be had.
    """
    directory, most, metrics = settings.gateway_spool_dir, settings.gateway_spool_max_bytes, service.metrics
    if directory is None:
        return publisher, None, None
    spool = _opened(Spool(directory, most, metrics), directory, service)
    lives = partial(_lives, service.tenants, states)
    spooled = SpooledLog(publisher, spool, Onward(publisher, lives, metrics.counter(SPOOL_DRAINED)))
    service.run("spool", spooled.run)
    service.readiness.instead_of(("jetstream", "streams"), spool.check)

    within = directory / "held"
    held = _opened(Spool(within, most // 2, metrics, overdrawn, by_subject=True), within, service)
    bounds = Bounds(
        settings.gateway_overdraft_callbacks,
        settings.gateway_overdraft_max_bytes,
        settings.gateway_overdraft_max_age_s,
    )
    may_go = partial(_may_go, service.tenants, states)
    overdraft = Overdraft(held, bounds, Onward(publisher, may_go, metrics.counter(HELD_DRAINED)), states, room)
    service.run("overdraft", overdraft.run)
    return spooled, spool, overdraft


def _opened(spool: Spool, directory: Path, service: Service) -> Spool:
    """``spool``, with its directory, which it gives back in the end. Raises SystemExit where it cannot have it."""
    try:
        spool.open()
    except (SpoolTakenError, *TROUBLE) as exc:
        raise SystemExit(f"BACKHAUL_GATEWAY_SPOOL_DIR: {directory} cannot be used: {exc}") from exc
    service.stack.push_async_callback(spool.close)
    return spool


def _lives(tenants: TenantDirectory, states: TenantStates, callback: Callback) -> bool:
    """Whether the callback's tenant is there, and is not being deleted. UNAVAILABLE while nobody knows."""
    if not tenants.synced:
        raise unavailable("The tenants")
    state = states.get(callback.tenant_id)
    if state is None or state.tenant.registration != callback.registration:
        return False
    return state.tenant.status != "deleting"


def _may_go(tenants: TenantDirectory, states: TenantStates, callback: Callback) -> bool:
    """The same; UNAVAILABLE, too, while the tenant is suspended."""
    lives = _lives(tenants, states, callback)
    if lives and (state := states.get(callback.tenant_id)) is not None and state.tenant.status != "active":
        raise unavailable("The tenant")
    return lives
