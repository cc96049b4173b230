"""An authority of one's own, and a certificate for each service and server that it stands for.

``python -m backhaul_local.certificates [--renew] FOLDER NAME…`` makes what is missing, or will have ended within a
month; with ``--renew`` a certificate for each name anew, which the authority that there is signs.
"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from backhaul_local.files import write_private

_LOOPBACK = "127.0.0.1"
"""Not from ``ports``, which needs more than compose's one-shot services have; they use this module too."""

_AUTHORITY_VALID, _VALID = timedelta(days=3650), timedelta(days=90)
_RENEWED_BEFORE = timedelta(days=30)
_AUTHORITY = "Backhaul local authority"
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
"""What an authority may do. From Python 3.13 on, whoever verifies wants to see that, and whose key signed what."""


def authority_path(folder: Path) -> Path:
    return folder / "ca.pem"


def certificate_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pem"


def key_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


def certificate_and_key(folder: Path, name: str) -> str:
    """Both in one text, as mongod wants them."""
    return certificate_path(folder, name).read_text("utf-8") + key_path(folder, name).read_text("utf-8")


def client_context(folder: Path, name: str = "probe") -> ssl.SSLContext:
    """Of a client that shows the certificate of ``name``."""
    context = ssl.create_default_context(cafile=authority_path(folder))
    context.load_cert_chain(certificate_path(folder, name), key_path(folder, name))
    return context


def ensure_certificates(
    folder: Path, names: Iterable[str], *, servers: Iterable[str] = (), renew: bool = False, valid: timedelta = _VALID
) -> None:
    """Make the authority, and a certificate and key for each name, where they are missing or end within a month.

    What is for ``servers`` shows nobody as a client. With ``renew`` all but the authority is made anew. Only its
    owner can read the folder: whoever has ``ca.key`` can make itself any of the names.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_key, authority = _authority(folder)
    usages = {name: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH] for name in names}
    usages |= {name: [ExtendedKeyUsageOID.SERVER_AUTH] for name in servers}
    for name, usage in usages.items():
        if not renew and _is_good(folder, name, authority):
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        hosts = [x509.DNSName(host) for host in (name, f"{name}.backhaul.svc", "localhost")]
        certificate = (
            _builder(_name(name), authority.subject, key, valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([*hosts, x509.IPAddress(ip_address(_LOOPBACK))]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
            .sign(authority_key, hashes.SHA256())
        )
        write_private(key_path(folder, name), _key_pem(key))
        write_private(certificate_path(folder, name), _pem(certificate))


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """The key and the certificate that are kept in ``folder``, or new ones, which make all others worthless."""
    try:
        kept = serialization.load_pem_private_key(key_path(folder, "ca").read_bytes(), None)
        authority = x509.load_pem_x509_certificate(authority_path(folder).read_bytes())
        if (
            isinstance(kept, ec.EllipticCurvePrivateKey)
            and kept.public_key() == authority.public_key()
            and authority.not_valid_after_utc - datetime.now(UTC) > _VALID
        ):
            return kept, authority
    except (OSError, ValueError):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    authority = (
        _builder(_name(_AUTHORITY), _name(_AUTHORITY), key, _AUTHORITY_VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(key_path(folder, "ca"), _key_pem(key))
    write_private(authority_path(folder), _pem(authority))
    return key, authority


def _is_good(folder: Path, name: str, authority: x509.Certificate) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path(folder, name).read_bytes())
        key = serialization.load_pem_private_key(key_path(folder, name).read_bytes(), None)
        certificate.verify_directly_issued_by(authority)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return left > _RENEWED_BEFORE and key.public_key() == certificate.public_key()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, valid: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + valid)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m backhaul_local.certificates", description=__doc__)
    parser.add_argument("--renew", action="store_true", help="make every certificate anew")
    parser.add_argument("--server", action="append", default=[], metavar="NAME", help="one that is no client's")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    ensure_certificates(given.folder, given.names, servers=given.server, renew=given.renew)


if __name__ == "__main__":
    main()
