"""``python -m backhaul_common.probe <target>``: exits with 0 when the service at ``target`` is ready, with 1 otherwise.

For health checks of containers, which have neither curl nor a gRPC client that could present a certificate.
``target`` is ``http://host:port/path``, or host:port of a gRPC server, which is called with the certificates of the
settings.
"""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backhaul_common.settings import GrpcSettings, load

_TIMEOUT_S = 4.0
_SHOWN_BYTES = 500


def not_ready(target: str) -> str:
    """What is missing, in one line; empty when it is ready."""
    return _over_http(target) if "://" in target else _over_grpc(target, load(GrpcSettings))


def _over_http(url: str) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        body = answer.read(_SHOWN_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error!r}"
    finally:
        connection.close()
    return "" if answer.status == http.HTTPStatus.OK else f"{url}: {answer.status} {body.decode('utf-8', 'replace')}"


def _over_grpc(target: str, settings: GrpcSettings) -> str:
    files = (settings.grpc_tls_ca_file, settings.grpc_tls_key_file, settings.grpc_tls_cert_file)
    options = [("grpc.enable_http_proxy", 0)]  # Whatever web proxy the environment names, this is next door.
    present = [file.read_bytes() for file in files if file is not None]
    channel = (
        grpc.secure_channel(target, grpc.ssl_channel_credentials(*present), options)
        if present
        else grpc.insecure_channel(target, options)
    )
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=""), timeout=_TIMEOUT_S
            )
        except grpc.RpcError as error:
            return f"{target}: {error.code().name}: {error.details()}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return f"{target}: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("Usage: python -m backhaul_common.probe <host:port of gRPC, or http://host:port/path>\n")
        return 2
    missing = not_ready(sys.argv[1])
    sys.stderr.write(f"{missing}\n" if missing else "")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
