"""Makes every secret of compose.yaml, a file each, and what each container reads of them. Idempotent.

``secret_files.py [--renew] <folder>``. In ``kept/`` lies what is made once: put a value of your own in its place, or
delete one to have it made anew, and start compose again. The other folders, one for each container, are written from it
at every run. Certificates are renewed a month before they end, or with ``--renew``.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from backhaul_local.certificates import authority_path, certificate_path, ensure_certificates, key_path
from backhaul_local.files import write_private
from rights import RIGHTS, SERVICES, nats_config

USER = int(os.environ.get("CONTAINER_USER", "10001"))
"""Whom containers run as, and who alone may read what is for them."""

MAKE: Mapping[str, Callable[[], str]] = {
    "admin-token": lambda: secrets.token_hex(24),
    "internal-token": lambda: secrets.token_hex(24),
    "secret-keys": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "s3-access-key": lambda: secrets.token_hex(10),
    "s3-secret-key": lambda: secrets.token_hex(20),
    "grafana-password": lambda: secrets.token_hex(16),
    # A replica set's members know each other by it; it may hold base64 only.
    "mongo-keyfile": lambda: base64.b64encode(secrets.token_bytes(96)).decode(),
    "mongo-admin": lambda: secrets.token_hex(24),
    **{f"{server}-{service}": (lambda: secrets.token_hex(24)) for server in ("mongo", "nats") for service in SERVICES},
}


WITH_CERTIFICATES = {
    **dict.fromkeys((*SERVICES, "hello"), ("ca.pem", "tls.pem", "tls.key")),
    "servers": ("ca.pem", "both.pem"),
    "nats": ("ca.pem", "tls.pem", "tls.key"),
    "mongo": ("ca.pem", "both.pem"),
    # As it calls them itself.
    "minio": ("public.crt", "private.key", "CAs/ca.pem"),
}
"""What each container has of certificates."""
_NO_CLIENTS = ("nats", "minio")
_NATS_TLS = {
    "cert_file": "/run/secrets/tls.pem",
    "key_file": "/run/secrets/tls.key",
    "ca_file": "/run/secrets/ca.pem",
    "verify_and_map": True,
}


def kept(folder: Path) -> dict[str, str]:
    """Every secret by its name; what is missing is made."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, make in MAKE.items():
        path = folder / name
        if not path.exists() or not path.read_text("utf-8").strip():
            write_private(path, make() + "\n")
    return {name: (folder / name).read_text("utf-8").strip() for name in MAKE}


def of_service(service: str, known: Mapping[str, str]) -> dict[str, str]:
    """The settings of ``service`` that are secrets, by variable: each the content of a file of that name."""
    settings = {
        "BACKHAUL_MONGO_URI": f"mongodb://{service}:{known[f'mongo-{service}']}@mongo:27017/"
        "?replicaSet=rs0&authSource=admin",
        "BACKHAUL_NATS_URL": f"nats://{service}:{known[f'nats-{service}']}@nats:4222",
        "BACKHAUL_INTERNAL_TOKEN": known["internal-token"],
    }
    if service in {"gateway", "audit", "reconciler", "notifier"}:
        settings["BACKHAUL_SECRET_KEYS"] = known["secret-keys"]
    if service in {"gateway", "audit"}:
        settings["BACKHAUL_OBJECT_STORE_ACCESS_KEY"] = known["s3-access-key"]
        settings["BACKHAUL_OBJECT_STORE_SECRET_KEY"] = known["s3-secret-key"]
    if service == "gateway":
        settings["BACKHAUL_GATEWAY_ADMIN_TOKEN"] = known["admin-token"]
    return settings


def of_servers(known: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What containers that are not Backhaul's read, by container and file."""
    passwords = {name: known[f"nats-{name}"] for name in RIGHTS}

    def nats(tls: Mapping[str, object] | None) -> str:
        return nats_config(passwords, listen="0.0.0.0:4222", store="/data", monitor="0.0.0.0:8222", tls=tls)

    return {
        "nats": {"nats.conf": nats(None), "nats-tls.conf": nats(_NATS_TLS)},  # in compose's network
        "mongo": {"keyfile": known["mongo-keyfile"]},
        "minio": {"user": known["s3-access-key"], "password": known["s3-secret-key"]},
        "grafana": {"password": known["grafana-password"]},
        "servers": {
            "admin": known["mongo-admin"],
            **{f"mongo-{name}": known[f"mongo-{name}"] for name in RIGHTS},
            **{name: known[name] for name in ("s3-access-key", "s3-secret-key")},
        },
        # The certificate with which hello asks whether services are ready.
        "hello": {},
    }


def write(folder: Path, *, renew: bool = False) -> None:
    """Everything in ``folder``, with ``renew`` each certificate anew. What is for people is its owner's, what
    containers read is ``USER``'s."""
    known = kept(folder / "kept")
    tls = folder / "kept" / "tls"
    ensure_certificates(tls, WITH_CERTIFICATES.keys() - set(_NO_CLIENTS), servers=_NO_CLIENTS, renew=renew)
    files = {**{service: of_service(service, known) for service in SERVICES}, **of_servers(known)}
    for name, wanted in WITH_CERTIFICATES.items():
        certificate, key = certificate_path(tls, name).read_text("utf-8"), key_path(tls, name).read_text("utf-8")
        made = {
            **dict.fromkeys(("ca.pem", "CAs/ca.pem"), authority_path(tls).read_text("utf-8")),
            **dict.fromkeys(("tls.pem", "public.crt"), certificate),
            **dict.fromkeys(("tls.key", "private.key"), key),
            "both.pem": certificate + key,
        }
        files[name] |= {file: made[file] for file in wanted}
    for name, contents in files.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o700)
        for file, text in contents.items():
            (folder / name / file).parent.mkdir(exist_ok=True, mode=0o700)
            write_private(folder / name / file, text)
    # For curl -H @file: a token among curl's arguments is seen by every user of the machine.
    write_private(folder / "admin-header", f"Authorization: Bearer {known['admin-token']}\n")
    if os.geteuid() == 0:
        _give(folder, files)


def _give(folder: Path, containers: Mapping[str, Mapping[str, str]]) -> None:
    # The folder itself may be root's: Docker makes what it is to mount.
    owner = folder.parent.stat()
    for path in (folder, folder / "admin-header", folder / "kept", *(folder / "kept").rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    for name, files in containers.items():
        for path in {folder / name, *(inside for file in files for inside in _below(folder / name, file))}:
            os.chown(path, USER, USER)


def _below(folder: Path, file: str) -> tuple[Path, ...]:
    return (folder / file, (folder / file).parent)


def main() -> int:
    renew = sys.argv[1:2] == ["--renew"]
    folder, *volumes = sys.argv[1 + renew :]
    write(Path(folder), renew=renew)
    # Volumes are root's when they are made.
    for volume in volumes:
        os.chown(volume, USER, USER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
