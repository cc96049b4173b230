"""A tiny real program in the place of a service that speaks gRPC: health, SERVING a moment after it listens."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

if __name__ == "__main__":
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    files = [os.environ.get(f"BACKHAUL_GRPC_TLS_{name}_FILE", "") for name in ("KEY", "CERT", "CA")]
    if all(files):
        # As the service whose place it takes: with the stack's certificates, and only to who has one.
        key, certificate, authority = (Path(file).read_bytes() for file in files)
        credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
        server.add_secure_port(os.environ["STAND_IN_LISTEN"], credentials)
    else:
        server.add_insecure_port(os.environ["STAND_IN_LISTEN"])
    server.start()
    threading.Timer(0.3, servicer.set, ("", health_pb2.HealthCheckResponse.SERVING)).start()
    server.wait_for_termination()
