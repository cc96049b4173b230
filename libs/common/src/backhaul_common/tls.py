"""What this process shows whom it connects to, and whom it believes: PEM files, read again when they are replaced.

Whoever renews a certificate replaces its files. Connections that stand keep what they have; each new one has the new.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from backhaul_common.logs import get_logger
from backhaul_common.settings import TlsServer, TlsSettings

T = TypeVar("T")
Stamp = tuple[tuple[int, int, int], ...]

# Between gRPC's question for a certificate and its taking hold of the answer are some microseconds without a lock.
_BEGUN_S = 0.1


class Files(Generic[T]):
    """What ``make`` makes of a certificate, its key and its authority; made anew when one of them was replaced.

    They are replaced one after another, so that a certificate may lie beside the key of its predecessor for a moment.
    What cannot be made of them leaves what there was, and is tried again the next time.
    """

    def __init__(self, settings: TlsSettings, make: Callable[[Path, Path, Path], T]) -> None:
        """ValueError, ssl.SSLError or OSError where the files are no good at the start."""
        cert, key, authority = settings.grpc_tls_cert_file, settings.grpc_tls_key_file, settings.grpc_tls_ca_file
        if cert is None or key is None or authority is None:
            raise ValueError("BACKHAUL_GRPC_TLS_CERT_FILE, _KEY_FILE and _CA_FILE are not set.")
        self._paths = (cert, key, authority)
        self._names = [os.fspath(path) for path in self._paths]
        self._make = make
        self._problem = ""
        self._seen = self._stamp()
        self._made = self._checked()

    def current(self) -> T:
        """As the files are now. A look at them takes some microseconds."""
        self.renewed()
        return self._made

    def renewed(self) -> bool:
        """Whether what is current was made anew just now."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._made = self._checked()
        except (OSError, ssl.SSLError) as exc:
            if repr(exc) != self._problem:
                self._problem = repr(exc)
                get_logger(component="tls").warning("certificate_unusable", error=self._problem)
            return False
        self._seen, self._problem = stamp, ""
        get_logger(component="tls").info("certificate_renewed")
        return True

    def _checked(self) -> T:
        cert, key, authority = self._paths
        # OpenSSL is asked whether they belong together: gRPC would find out with the next connection, and refuse it.
        _context(cert, key, authority)
        return self._make(cert, key, authority)

    def _stamp(self) -> Stamp:
        # By names made once: a Path would make its own anew for each of these.
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in map(os.stat, self._names))


class ClientContext(ssl.SSLContext):
    """A context for clients that each connection made by it asks for the files as they are then.

    Libraries keep the context that they were given for as long as they live; this one hands each connection on to a
    context of its own files' making. Sessions of TLS are not resumed: a session belongs to one of those contexts.
    """

    _files: Files[ssl.SSLContext]

    def __new__(cls, settings: TlsSettings) -> ClientContext:  # SSLContext's takes a protocol
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made._files = Files(settings, _context)
        return made

    def __init__(self, settings: TlsSettings) -> None:
        """As ``Files``."""

    def wrap_socket(self, *args: Any, **kw: Any) -> ssl.SSLSocket:
        """See ``ssl.SSLContext``."""
        return self._files.current().wrap_socket(*args, **{**kw, "session": None})

    def wrap_bio(self, *args: Any, **kw: Any) -> ssl.SSLObject:
        """See ``ssl.SSLContext``."""
        return self._files.current().wrap_bio(*args, **{**kw, "session": None})


def context_to(server: TlsServer, settings: TlsSettings) -> ClientContext | None:
    """The context for connections to ``server``; None where the settings do not name it among those that must have
    TLS with these certificates."""
    return ClientContext(settings) if server in settings.servers_with_tls() else None


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials | None:
    """Of a gRPC server, which asks for a client's certificate; None where there are no certificates."""
    if settings.grpc_tls_cert_file is None:
        return None
    files = Files(settings, _server_configuration)
    first = files.current()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # gRPC calls this before each handshake, one call at a time, and frees what the handshakes came from with each
        # answer but None: also under one that has asked already and not yet begun, which ends the process
        # (grpc/grpc#36693). So it is answered only when the files were replaced, and not before those have begun; those
        # that have not asked wait meanwhile.
        if not files.renewed():
            return None
        time.sleep(_BEGUN_S)
        return files.current()

    return grpc.dynamic_ssl_server_credentials(
        first,
        renewed,  # type: ignore[arg-type]  # gRPC takes None for "as before", and its types do not know it
        require_client_authentication=True,
    )


def channel_credentials(cert: Path, key: Path, authority: Path) -> grpc.ChannelCredentials:
    """Of a gRPC client, as the files are now."""
    return grpc.ssl_channel_credentials(authority.read_bytes(), key.read_bytes(), cert.read_bytes())


def _server_configuration(cert: Path, key: Path, authority: Path) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(key.read_bytes(), cert.read_bytes())], authority.read_bytes())


def _context(cert: Path, key: Path, authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(authority)
    context.load_cert_chain(cert, key)
    return context
