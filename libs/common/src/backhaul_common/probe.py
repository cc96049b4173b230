"""``python -m backhaul_common.probe <target>…``: exits with 0 when the service there is ready, with 1 otherwise.

For health checks of containers, which have neither curl nor a gRPC client that could present a certificate.
A ``target`` is ``http://host:port/path``, ``https://…``, or host:port of a gRPC server, which is called with the
certificates of the settings. Of several, ports of one process of which not each has to be open, one is enough.
"""

from __future__ import annotations

import http.client
import ssl
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
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        # The certificate is for the name by which others call. This is the same machine, and nothing is told it.
        context = ssl._create_unverified_context()  # noqa: S323  # as above
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
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
    if len(sys.argv) < 2:
        sys.stderr.write("Usage: python -m backhaul_common.probe <host:port of gRPC, or http://host:port/path>…\n")
        return 2
    missing = []
    for target in sys.argv[1:]:
        if not (words := not_ready(target)):
            return 0
        missing.append(words)
    sys.stderr.write("\n".join([*missing, ""]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
