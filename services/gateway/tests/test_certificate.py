"""The certificate that is served: which is fit, and what becomes of one that is not."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from backhaul_common.metrics import CERTIFICATE_EXPIRES, CERTIFICATE_REFUSED, Metrics
from backhaul_gateway.web.tls import Certificate, UnfitError
from backhaul_testing.authority import HOUR, Authority, Files
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs


def shown(metrics: Metrics, name: str) -> float:
    lines = metrics.render().decode().splitlines()
    (line,) = [line for line in lines if line.startswith((name + " ", name + "{", name + "_seconds"))]
    return float(line.split()[-1])


def test_only_ciphers_that_keep_the_past_secret_are_allowed(authority: Authority, metrics: Metrics) -> None:
    """Whatever the key is: one of RSA could be used without a key of the connection's own."""
    files = authority.issue("gateway")
    context = Certificate(files.cert, files.key, metrics).context
    ciphers = context.get_ciphers()
    assert {cipher["protocol"] for cipher in ciphers} == {"TLSv1.2", "TLSv1.3"}
    assert all(cipher["aead"] for cipher in ciphers)
    assert {cipher["kea"] for cipher in ciphers if cipher["protocol"] == "TLSv1.2"} == {"kx-ecdhe"}
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def garbage(files: Files, _: Authority) -> None:
    files.cert.write_text("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n")


def empty(files: Files, _: Authority) -> None:
    files.cert.write_bytes(b"")


def gone(files: Files, _: Authority) -> None:
    files.key.unlink()


def another_key(files: Files, authority: Authority) -> None:
    files.key.write_bytes(authority.issue("other").key.read_bytes())


def certificate_alone(files: Files, authority: Authority) -> None:
    """As while one of two files is replaced, and the other not yet."""
    files.cert.write_bytes(authority.issue("other").cert.read_bytes())


def locked(files: Files, _: Authority) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a passphrase"),
        )
    )


def version_5(files: Files, _: Authority) -> None:
    """Of X.509 there are three, and the field that says which is the certificate's first."""
    certificate = x509.load_pem_x509_certificate(files.cert.read_bytes())
    third, fifth = bytes.fromhex("a003020102"), bytes.fromhex("a003020104")
    changed = certificate.public_bytes(serialization.Encoding.DER).replace(third, fifth, 1)
    files.cert.write_text(ssl.DER_cert_to_PEM_cert(changed))


def expired(files: Files, authority: Authority) -> None:
    authority.issue("gateway", lasts=-HOUR)


@pytest.mark.parametrize("spoil", [garbage, empty, gone, another_key, certificate_alone, locked, version_5, expired])
def test_an_unfit_certificate_leaves_the_one_before(
    authority: Authority, metrics: Metrics, spoil: Callable[[Files, Authority], None]
) -> None:
    files = authority.issue("gateway")
    kept = files.cert.read_bytes(), files.key.read_bytes()
    certificate = Certificate(files.cert, files.key, metrics)
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


def test_a_certificate_that_is_not_valid_yet_is_served_once_it_is(authority: Authority, metrics: Metrics) -> None:
    """The files stay the same all the while."""
    files = authority.issue("gateway", lasts=-HOUR)
    now = time.time() - HOUR.total_seconds() - 30
    certificate = Certificate(files.cert, files.key, metrics, now=lambda: now)
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
    certificate = Certificate(files.cert, files.key, metrics)
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
    authority: Authority, metrics: Metrics, spoil: Callable[[Files, Authority], None]
) -> None:
    files = authority.issue("gateway")
    spoil(files, authority)
    with pytest.raises(UnfitError, match=r"gateway\.(pem|key)"):
        Certificate(files.cert, files.key, metrics)


def test_an_expired_certificate_does_not_keep_a_gateway_from_starting(authority: Authority, metrics: Metrics) -> None:
    """Clients that look at it refuse it, and the alert says so. The port without TLS serves in any case."""
    files = authority.issue("gateway", lasts=-HOUR)
    with capture_logs() as logs:
        certificate = Certificate(files.cert, files.key, metrics)
    assert [(line["event"], line["log_level"]) for line in logs] == [("certificate_not_valid", "error")]
    # Nothing that is valid is given up for it: the next one may be as old.
    before = certificate.context
    authority.issue("gateway", lasts=timedelta(minutes=-1))
    certificate.look()
    assert certificate.context is not before
    assert shown(metrics, CERTIFICATE_REFUSED.name) == 0
