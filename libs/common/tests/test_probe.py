"""The health check of containers, against servers."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from backhaul_common.probe import not_ready
from backhaul_local.certificates import authority_path, certificate_path, ensure_certificates, key_path
from backhaul_testing.authority import Authority
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class _Readyz(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b'{"failing":{"mongodb":"no answer"}}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Readyz) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def https(tmp_path: Path) -> Iterator[str]:
    files = Authority(tmp_path).issue("elsewhere", "192.0.2.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Readyz) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    ensure_certificates(tmp_path, ["audit"])
    return {
        "CA": authority_path(tmp_path),
        "KEY": key_path(tmp_path, "audit"),
        "CERT": certificate_path(tmp_path, "audit"),
    }


def _serve(servicer: health.HealthServicer, credentials: grpc.ServerCredentials | None) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    return server, port


def test_an_answer_over_http(web: str) -> None:
    assert not_ready(f"{web}/readyz") == ""
    assert not_ready(f"{web}/other").endswith('503 {"failing":{"mongodb":"no answer"}}')


def test_an_answer_over_https(web: str, https: str) -> None:
    """Whatever name the certificate is for: the probe asks its own machine, and tells it nothing."""
    assert not_ready(f"{https}/readyz") == ""
    assert "503" in not_ready(f"{https}/other")
    assert "SSL" in not_ready(f"{web.replace('http:', 'https:')}/readyz")


def test_the_health_service_over_grpc() -> None:
    servicer = health.HealthServicer()
    server, port = _serve(servicer, None)
    try:
        assert not_ready(f"127.0.0.1:{port}") == ""
        servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert not_ready(f"127.0.0.1:{port}") == f"127.0.0.1:{port}: NOT_SERVING"
    finally:
        server.stop(None).wait()
    assert "UNAVAILABLE" in not_ready(f"127.0.0.1:{port}")


def test_a_certificate_is_presented(certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pair = (certificates["KEY"].read_bytes(), certificates["CERT"].read_bytes())
    credentials = grpc.ssl_server_credentials([pair], certificates["CA"].read_bytes(), require_client_auth=True)
    server, port = _serve(health.HealthServicer(), credentials)
    try:
        assert not_ready(f"localhost:{port}") != ""
        for name, path in certificates.items():
            monkeypatch.setenv(f"BACKHAUL_GRPC_TLS_{name}_FILE", str(path))
        assert not_ready(f"localhost:{port}") == ""
    finally:
        server.stop(None).wait()


@pytest.mark.slow
def test_as_a_command(web: str) -> None:
    def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "backhaul_common.probe", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))  # noqa: S603  # our own module

    assert probe(f"{web}/readyz").returncode == 0
    # Of several one is enough: not every port has to be open.
    assert probe("http://127.0.0.1:9/readyz", f"{web}/readyz").returncode == 0
    both = probe("http://127.0.0.1:9/readyz", f"{web}/other")
    assert both.returncode == 1
    assert len(both.stderr.splitlines()) == 2
    refused = probe(f"{web}/other")
    assert refused.returncode == 1
    assert "503" in refused.stderr
    assert probe().returncode == 2
