"""gRPC as every service speaks it: health, reflection, deadlines, TLS, traces and one typed error."""

from backhaul_common.rpc.client import connect
from backhaul_common.rpc.server import Server, serve

__all__ = ["Server", "connect", "serve"]
