"""The certificate that is used: which is fit, and what becomes of one that is not."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from backhaul_common.certificates import Certificates, Files, UnfitError
from backhaul_common.metering import Metrics
from backhaul_common.metrics import CERTIFICATE_EXPIRES, CERTIFICATE_REFUSED
from backhaul_common.service import Service
from backhaul_common.settings import CommonSettings
from backhaul_common.tls import client_context
from backhaul_testing.authority import HOUR, Authority
from backhaul_testing.authority import Files as Pem
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs


def shown(metrics: Metrics, name: str) -> float:
    lines = metrics.render().decode().splitlines()
    (line,) = [line for line in lines if line.startswith((name + " ", name + "{", name + "_seconds"))]
    return float(line.split()[-1])


class Used:
    """A certificate towards servers, without an authority, as a process uses and watches it."""

    def __init__(self, files: Pem, metrics: Metrics, now: Callable[[], float] = time.time) -> None:
        self.files = Files(context_of, *files, now=now)
        self.watched = Certificates(metrics).add("internal", self.files)
        self.look = self.watched.look

    @property
    def context(self) -> ssl.SSLContext:
        return self.files.made.value


def context_of(cert: Path, key: Path) -> ssl.SSLContext:
    return client_context(cert, key, cert)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    made = Metrics("test")
    yield made
    made.close()


def garbage(files: Pem, _: Authority) -> None:
    files.cert.write_text("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n")


def empty(files: Pem, _: Authority) -> None:
    files.cert.write_bytes(b"")


def gone(files: Pem, _: Authority) -> None:
    files.key.unlink()


def another_key(files: Pem, authority: Authority) -> None:
    files.key.write_bytes(authority.issue("other").key.read_bytes())


def certificate_alone(files: Pem, authority: Authority) -> None:
    """As while one of two files is replaced, and the other not yet."""
    files.cert.write_bytes(authority.issue("other").cert.read_bytes())


def locked(files: Pem, _: Authority) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a passphrase"),
        )
    )


def version_5(files: Pem, _: Authority) -> None:
    """Of X.509 there are three, and the field that says which is the certificate's first."""
    certificate = x509.load_pem_x509_certificate(files.cert.read_bytes())
    third, fifth = bytes.fromhex("a003020102"), bytes.fromhex("a003020104")
    changed = certificate.public_bytes(serialization.Encoding.DER).replace(third, fifth, 1)
    files.cert.write_text(ssl.DER_cert_to_PEM_cert(changed))


def expired(files: Pem, authority: Authority) -> None:
    authority.issue("gateway", lasts=-HOUR)


@pytest.mark.parametrize("spoil", [garbage, empty, gone, another_key, certificate_alone, locked, version_5, expired])
def test_an_unfit_certificate_leaves_the_one_before(
    authority: Authority, metrics: Metrics, spoil: Callable[[Pem, Authority], None]
) -> None:
    files = authority.issue("gateway")
    kept = files.cert.read_bytes(), files.key.read_bytes()
    certificate = Used(files, metrics)
    context, expires = certificate.context, shown(metrics, CERTIFICATE_EXPIRES.name)
    with capture_logs() as logs:
        certificate.look()
        assert logs == []
        spoil(files, authority)
        for _ in range(3):
            certificate.look()
    [line] = logs
    assert (line["event"], line["log_level"]) == ("certificate_refused", "error")
    assert str(files.key if spoil is gone else files.cert) in line["error"]
    assert certificate.context is context
    assert shown(metrics, CERTIFICATE_REFUSED.name) == 1
    assert shown(metrics, CERTIFICATE_EXPIRES.name) == expires
    # As it was before, or a new one: all is well again.
    files.cert.write_bytes(kept[0])
    files.key.write_bytes(kept[1])
    certificate.look()
    assert shown(metrics, CERTIFICATE_REFUSED.name) == 0
    authority.issue("gateway", lasts=2 * HOUR)
    certificate.look()
    assert certificate.context is not context
    assert shown(metrics, CERTIFICATE_REFUSED.name) == 0
    assert shown(metrics, CERTIFICATE_EXPIRES.name) > expires


def test_a_certificate_that_is_not_valid_yet_is_used_once_it_is(authority: Authority, metrics: Metrics) -> None:
    """The files stay the same all the while."""
    files = authority.issue("gateway", lasts=-HOUR)
    now = time.time() - HOUR.total_seconds() - 30
    certificate = Used(files, metrics, now=lambda: now)
    before = certificate.context
    authority.issue("gateway")
    with capture_logs() as logs:
        for _ in range(3):
            certificate.look()
        [line] = logs
        assert line["event"] == "certificate_refused"
        assert "not valid yet" in line["error"]
        assert certificate.context is before
        now = time.time()
        certificate.look()
    assert logs[-1]["event"] == "certificate_loaded"
    assert certificate.context is not before
    assert shown(metrics, CERTIFICATE_REFUSED.name) == 0


def test_a_pair_may_be_replaced_one_file_after_the_other(authority: Authority, metrics: Metrics) -> None:
    files = authority.issue("gateway")
    certificate = Used(files, metrics)
    before, other = certificate.context, authority.issue("other")
    with capture_logs() as logs:
        files.cert.write_bytes(other.cert.read_bytes())
        certificate.look()
        assert shown(metrics, CERTIFICATE_REFUSED.name) == 0
        files.key.write_bytes(other.key.read_bytes())
        certificate.look()
    assert [line["event"] for line in logs] == ["certificate_loaded"]
    assert certificate.context is not before


@pytest.mark.parametrize("spoil", [garbage, empty, gone, another_key, locked, version_5])
def test_a_start_without_a_fit_certificate_says_why(
    authority: Authority, metrics: Metrics, spoil: Callable[[Pem, Authority], None]
) -> None:
    files = authority.issue("gateway")
    spoil(files, authority)
    with pytest.raises(UnfitError, match=r"gateway\.(pem|key)"):
        Used(files, metrics)


def test_an_expired_certificate_does_not_keep_a_process_from_starting(authority: Authority, metrics: Metrics) -> None:
    """Whoever looks at it refuses it, and the alert says so. A gateway's port without TLS serves in any case."""
    files = authority.issue("gateway", lasts=-HOUR)
    with capture_logs() as logs:
        certificate = Used(files, metrics)
    assert [(line["event"], line["log_level"]) for line in logs] == [("certificate_not_valid", "error")]
    # Nothing that is valid is given up for it: the next one may be as old.
    before = certificate.context
    authority.issue("gateway", lasts=timedelta(minutes=-1))
    certificate.look()
    assert certificate.context is not before
    assert shown(metrics, CERTIFICATE_REFUSED.name) == 0


def test_of_threads_that_ask_at_once_one_is_told_of_a_renewal(authority: Authority) -> None:
    """gRPC must be given a renewed certificate once. All get the new one, whoever is told."""
    pem = authority.issue("server")
    files, together = Files(context_of, *pem), Barrier(8)

    def ask() -> tuple[bool, ssl.SSLContext]:
        together.wait(60)
        return files.renewed(), files.current()

    with ThreadPoolExecutor(8) as threads:
        for _ in range(10):
            before = files.made.value
            authority.issue("server")
            answers = [asked.result(60) for asked in [threads.submit(ask) for _ in range(8)]]
            assert sum(told for told, _ in answers) == 1
            assert {context for _, context in answers} == {files.made.value} != {before}


async def test_a_service_tells_of_the_certificate_that_it_shows_others(authority: Authority) -> None:
    pem = authority.issue("audit")
    settings = CommonSettings(grpc_tls_cert_file=pem.cert, grpc_tls_key_file=pem.key, grpc_tls_ca_file=authority.file)
    async with Service("audit", settings) as service:
        assert shown(service.metrics, CERTIFICATE_EXPIRES.name) > time.time()
        assert shown(service.metrics, CERTIFICATE_REFUSED.name) == 0
        assert 'certificate_expires_seconds{certificate="internal"' in service.metrics.render().decode()
    async with Service("audit", CommonSettings()) as service:
        assert "certificate_expires_seconds{" not in service.metrics.render().decode()
    pem.key.write_bytes(authority.issue("other").key.read_bytes())
    with pytest.raises(SystemExit, match=r"BACKHAUL_GRPC_TLS_CERT_FILE: cannot use the certificate: .*audit\.pem"):
        async with Service("audit", settings):
            pass


def test_what_is_unfit_is_not_read_for_each_connection(authority: Authority) -> None:
    files = authority.issue("server")
    made = 0

    def make(cert: Path, key: Path) -> ssl.SSLContext:
        nonlocal made
        made += 1
        return context_of(cert, key)

    used = Files(make, *files)
    before = used.current()
    files.cert.write_bytes(authority.issue("other").cert.read_bytes())
    for _ in range(50):
        assert used.current() is before
    assert made == 2
    # Whatever is put there next is read at once.
    authority.issue("server")
    assert used.current() is not before
