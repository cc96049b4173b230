"""The authority that stacks and compose make themselves."""

from __future__ import annotations

import contextlib
import ssl
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from backhaul_local.certificates import authority_path, certificate_path, client_context, ensure_certificates, key_path
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(folder: Path, before: dict[str, bytes]) -> set[str]:
    return {name for name, text in content(folder).items() if before.get(name) != text}


def test_what_is_there_and_good_stays(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["audit"], servers=["nats"])
    before = content(tmp_path)
    ensure_certificates(tmp_path, ["audit"], servers=["nats"])
    assert content(tmp_path) == before
    ensure_certificates(tmp_path, ["audit", "gateway"], servers=["nats"])
    assert changed(tmp_path, before) == {"gateway.pem", "gateway.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_what_ends_within_a_month_is_made_anew_by_the_same_authority(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["audit"], valid=timedelta(days=29))
    ensure_certificates(tmp_path, ["gateway"])
    before = content(tmp_path)
    ensure_certificates(tmp_path, ["audit", "gateway"])
    assert changed(tmp_path, before) == {"audit.pem", "audit.key"}


@pytest.mark.parametrize("broken", ["audit.pem", "audit.key"])
def test_what_is_damaged_is_made_anew(tmp_path: Path, broken: str) -> None:
    ensure_certificates(tmp_path, ["audit"])
    (tmp_path / broken).write_text("-----BEGIN")
    ensure_certificates(tmp_path, ["audit"])
    client_context(tmp_path, "audit")


@pytest.mark.parametrize("lost", ["ca.pem", "ca.key"])
def test_without_its_authority_nothing_is_good(tmp_path: Path, lost: str) -> None:
    ensure_certificates(tmp_path, ["audit"])
    before = content(tmp_path)
    (tmp_path / lost).unlink()
    ensure_certificates(tmp_path, ["audit"])
    assert changed(tmp_path, before) == {"ca.pem", "ca.key", "audit.pem", "audit.key"}


def test_a_servers_certificate_is_no_clients(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["audit"], servers=["nats"])
    for name, usages in (("audit", 2), ("nats", 1)):
        certificate = x509.load_pem_x509_certificate(certificate_path(tmp_path, name).read_bytes())
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert len(list(usage)) == usages
        assert ExtendedKeyUsageOID.SERVER_AUTH in usage
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert {name, f"{name}.backhaul.svc", "localhost"} == set(names.get_values_for_type(x509.DNSName))


def test_as_a_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> None:
        subprocess.run(  # noqa: S603  # ours
            [sys.executable, "-m", "backhaul_local.certificates", *arguments], check=True, timeout=60
        )

    run(str(tmp_path), "audit", "--server", "nats")
    before = content(tmp_path)
    run("--renew", str(tmp_path), "audit")
    assert changed(tmp_path, before) == {"audit.pem", "audit.key"}
    assert authority_path(tmp_path).exists()
    assert key_path(tmp_path, "nats").exists()


def test_whoever_verifies_strictly_believes_it(tmp_path: Path) -> None:
    """As Python does by default from 3.13 on."""
    ensure_certificates(tmp_path, ["audit"], servers=["nats"])
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority_path(tmp_path))
    server.load_cert_chain(certificate_path(tmp_path, "nats"), key_path(tmp_path, "nats"))
    server.verify_mode = ssl.CERT_REQUIRED
    client = client_context(tmp_path, "audit")
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    ends = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    there = server.wrap_bio(ends[0], ends[1], server_side=True)
    here = client.wrap_bio(ends[1], ends[0], server_hostname="nats")
    for side in (here, there, here, there):
        with contextlib.suppress(ssl.SSLWantReadError):  # It is the other's turn.
            side.do_handshake()
    here.write(b"hello")
    assert there.read() == b"hello"
