"""Certificates for gRPC between the services of one machine: an authority of its own, and one for each service."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from backhaul_local.files import write_private

_LOOPBACK = "127.0.0.1"
"""Not from ``ports``, which needs more than compose's one-shot services have; they use this module too."""

_VALID = timedelta(days=365)
_RENEWED_BEFORE = timedelta(days=30)


def authority_path(folder: Path) -> Path:
    return folder / "ca.pem"


def certificate_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pem"


def key_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


def ensure_certificates(folder: Path, names: Iterable[str]) -> None:
    """Make the authority, and a certificate and key for each name, unless all are there and good for a month.

    The authority's own key is not kept: nobody can add another service to those that were made with it.
    """
    names = list(names)
    if all(_is_good(path) for path in (authority_path(folder), *(certificate_path(folder, name) for name in names))):
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("Backhaul local authority")
    authority = (
        _builder(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(name), authority_name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ip_address(_LOOPBACK))]
                ),
                critical=False,
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(authority_key, hashes.SHA256())
        )
        write_private(
            key_path(folder, name),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
        )
        write_private(certificate_path(folder, name), _pem(certificate))
    # Last: what is interrupted before is made anew as a whole.
    write_private(authority_path(folder), _pem(authority))


def _is_good(path: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc - datetime.now(UTC) > _RENEWED_BEFORE


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
