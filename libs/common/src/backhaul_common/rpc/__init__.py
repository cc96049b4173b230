"""gRPC as every service speaks it: health, reflection, deadlines, TLS, traces, tenants and one typed error."""

from backhaul_common.rpc.client import Channel, Channels, connect
from backhaul_common.rpc.server import Server, serve

__all__ = ["Channel", "Channels", "Server", "connect", "serve"]
