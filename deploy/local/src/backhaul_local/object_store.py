"""A real S3 server: SeaweedFS with everything in one process."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException

from backhaul_local.binaries import find_weed
from backhaul_local.certificates import certificate_path, client_context, key_path
from backhaul_local.member import START_TIMEOUT_S, Command, Member
from backhaul_local.ports import LOOPBACK, Band, PortClaim, accepts_connections

# SeaweedFS listens for gRPC at each HTTP port plus this.
_GRPC_OFFSET = 10_000
# The parts that it consists of besides S3, in the order of `_inner_ports`.
_INNER_PARTS = ("master", "volume", "filer", "admin")
# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS.
_SOCKET_PATH_LIMIT = 100
_PROBE_OBJECT = ".readiness-probe"


@dataclass(frozen=True, kw_only=True)
class ObjectStoreConfig:
    """Port 0: a free one is chosen at the first start and kept. The bucket is created at the start.

    avoid: ports of others that do not listen yet, for the choice of this one's inner ports.
    """

    data_dir: Path
    port: int = 0
    avoid: Collection[int] = ()
    log_path: Path | None = None
    access_key: str = "backhaul"
    secret_key: str = field(default="backhaul-local", repr=False)
    bucket: str = "backhaul"
    tls_dir: Path | None = None
    """Where the certificate of ``s3`` is: its port speaks https then. Clients need none, as tenants follow links."""


class ObjectStoreServer(Member):
    def __init__(self, config: ObjectStoreConfig, *, start_timeout: float = START_TIMEOUT_S) -> None:
        super().__init__("s3", config.log_path or config.data_dir / "s3.log", start_timeout=start_timeout)
        self.config = config
        self._port = config.port
        self._inner_ports: list[int] = []

    @property
    def port(self) -> int:
        if self._port == 0:
            (self._port,) = self._hold.choose(1, Band.S3, companion_offset=_GRPC_OFFSET, avoid=self.config.avoid)
        return self._port

    @property
    def uri(self) -> str:
        """The endpoint as a URL, for instance http://127.0.0.1:8333."""
        return f"http{'s' if self.config.tls_dir else ''}://{LOOPBACK}:{self.port}"

    def claims(self) -> Sequence[PortClaim]:
        if not self._inner_ports:
            taken = {self.port, self.port + _GRPC_OFFSET, *self.config.avoid}
            count = len(_INNER_PARTS)
            self._inner_ports = self._hold.choose(count, Band.S3, companion_offset=_GRPC_OFFSET, avoid=taken)
        remedy = "Stop it, use it with BACKHAUL_OBJECT_STORE_ENDPOINT, or set BACKHAUL_LOCAL_PORTS=s3=PORT."
        claims = [PortClaim(self.port, "S3", remedy)]
        claims += [
            PortClaim(port, f"S3, its {part}") for part, port in zip(_INNER_PARTS, self._inner_ports, strict=True)
        ]
        return claims + [PortClaim(claim.port + _GRPC_OFFSET, f"{claim.purpose}, gRPC", remedy) for claim in claims]

    def command(self) -> Command:
        data = (self.config.data_dir / "data").resolve()
        data.mkdir(parents=True, exist_ok=True)
        self.claims()  # Chooses the inner ports.
        # Nobody has removed those of a predecessor that was killed together with whoever had started it.
        self._remove_sockets()
        self._sockets_path.write_text("\n".join(map(str, self._sockets())), encoding="utf-8")
        master, volume, filer, admin = self._inner_ports
        argv = [
            *(str(find_weed()), "-logtostderr=true", "mini", f"-dir={data}"),
            # It would report to its makers, and listen on every interface, unless told otherwise.
            *(f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-master.telemetry=false"),
            *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-s3.port={self.port}", f"-master.port={master}", f"-volume.port={volume}"),
            *(f"-filer.port={filer}", f"-admin.port={admin}"),
            *(f"-filer.localSocket={self._socket_path('filer')}", f"-s3.localSocket={self._socket_path('s3')}"),
            f"-bucket={self.config.bucket}",
        ]
        if (folder := self.config.tls_dir) is not None:
            argv += [f"-s3.cert.file={certificate_path(folder, 's3')}", f"-s3.key.file={key_path(folder, 's3')}"]
        credentials = {"AWS_ACCESS_KEY_ID": self.config.access_key, "AWS_SECRET_ACCESS_KEY": self.config.secret_key}
        # The ports behind S3's take and give nothing over HTTP without a token that is signed with one of these. All
        # the parts are in this one process, so the keys need not outlive it.
        credentials |= {
            f"WEED_JWT_{name}_KEY": secrets.token_urlsafe(32)
            for name in ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")
        }
        return Command(argv, {**os.environ, **credentials})

    def probe(self) -> str | None:
        """Store and remove an object: the HTTP port answers earlier than there is a volume to write to."""
        if not accepts_connections(self.port):
            return "no connection"
        tls = client_context(self.config.tls_dir) if self.config.tls_dir else None
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1.0, read=5.0), retries=False, ssl_context=tls)
        client = Minio(
            f"{LOOPBACK}:{self.port}",
            access_key=self.config.access_key,
            secret_key=self.config.secret_key,
            secure=tls is not None,
            region="us-east-1",
            http_client=pool,
        )
        try:
            if not client.bucket_exists(self.config.bucket):
                return f"bucket {self.config.bucket} is not there yet"
            client.put_object(self.config.bucket, _PROBE_OBJECT, BytesIO(b"."), 1)
            client.remove_object(self.config.bucket, _PROBE_OBJECT)
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            return str(error)
        finally:
            pool.clear()
        return None

    def stop_blocking(self) -> bool:
        graceful = super().stop_blocking()
        self._remove_sockets()
        return graceful

    def kill_blocking(self) -> None:
        super().kill_blocking()
        self._remove_sockets()

    def _socket_path(self, part: str) -> Path:
        wanted = self.config.data_dir.resolve() / f"{part}.sock"
        if len(os.fsencode(wanted)) <= _SOCKET_PATH_LIMIT:
            return wanted
        return Path(tempfile.gettempdir()) / f"backhaul-{part}-{self.port}.sock"

    @property
    def _sockets_path(self) -> Path:
        return self.config.data_dir / "sockets"

    def _sockets(self) -> list[Path]:
        """The Unix sockets of this server. Those for gRPC lie in /tmp whatever it is told, under its ports' numbers."""
        ports = [self.port, *self._inner_ports]
        grpc = [
            Path("/tmp") / f"seaweedfs-{part}-grpc-{port + _GRPC_OFFSET}.sock"  # noqa: S108  # the server's own choice.
            for part, port in zip(("s3", *_INNER_PARTS), ports, strict=True)
        ]
        return [self._socket_path("filer"), self._socket_path("s3"), *grpc]

    def _remove_sockets(self) -> None:
        """Remove what a kill -9, and in part an orderly end, leaves behind of the server that was started here last."""
        if not self._sockets_path.exists():
            return
        for line in self._sockets_path.read_text(encoding="utf-8").splitlines():
            Path(line).unlink(missing_ok=True)
        self._sockets_path.unlink()
