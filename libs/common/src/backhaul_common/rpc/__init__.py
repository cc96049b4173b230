"""gRPC as every service speaks it: health, reflection, deadlines, TLS, traces, callers, tenants and one typed error."""

from backhaul_common.rpc.access import Access
from backhaul_common.rpc.callers import Caller, caller
from backhaul_common.rpc.changes import CallLog
from backhaul_common.rpc.client import Channel, Channels, connect
from backhaul_common.rpc.server import Server, serve

__all__ = ["Access", "CallLog", "Caller", "Channel", "Channels", "Server", "caller", "connect", "serve"]
