"""What this process shows whom it connects to, and whom it believes: one certificate for all of Backhaul's own."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc

from backhaul_common.certificates import Files
from backhaul_common.settings import TlsServer, TlsSettings

T = TypeVar("T")

# Between gRPC's question for a certificate and its taking hold of the answer are some microseconds without a lock.
_BEGUN_S = 0.1


def files_of(settings: TlsSettings, make: Callable[[Path, Path, Path], T]) -> Files[T]:
    """What ``make`` makes of the certificate, the key and the authority of ``settings``. UnfitError as ``Files``;
    ValueError where none are set."""
    cert, key, authority = settings.grpc_tls_cert_file, settings.grpc_tls_key_file, settings.grpc_tls_ca_file
    if cert is None or key is None or authority is None:
        raise ValueError("BACKHAUL_GRPC_TLS_CERT_FILE, _KEY_FILE and _CA_FILE are not set.")
    return Files(make, cert, key, authority)


class ClientContext(ssl.SSLContext):
    """A context for clients that each connection made by it asks for the files as they are then.

    Libraries keep the context that they were given for as long as they live; this one hands each connection on to a
    context of its own files' making. Sessions of TLS are not resumed: a session belongs to one of those contexts.
    """

    _files: Files[ssl.SSLContext]

    def __new__(cls, settings: TlsSettings) -> ClientContext:  # SSLContext's takes a protocol
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made._files = files_of(settings, client_context)
        return made

    def __init__(self, settings: TlsSettings) -> None:
        """As ``files_of``."""

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
    files = files_of(settings, _server_configuration)
    first = files.current()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # gRPC calls this before each handshake, one call at a time, and frees what the handshakes came from with each
        # answer but None: also under one that has asked already and not yet begun, which ends the process
        # (grpc/grpc#36693). So it is answered only when the files were replaced, and not before those have begun; those
        # that have not asked wait meanwhile.
        if not files.renewed():
            return None
        time.sleep(_BEGUN_S)
        return files.made.value

    return grpc.dynamic_ssl_server_credentials(
        first,
        renewed,  # type: ignore[arg-type]  # gRPC takes None for "as before", and its types do not know it
        require_client_authentication=True,
    )


def channel_credentials(cert: Path, key: Path, authority: Path) -> grpc.ChannelCredentials:
    """Of a gRPC client, as the files are now. ssl.SSLError where they do not belong together."""
    # gRPC would find that out with the next connection, and refuse it.
    client_context(cert, key, authority)
    return grpc.ssl_channel_credentials(authority.read_bytes(), key.read_bytes(), cert.read_bytes())


def _server_configuration(cert: Path, key: Path, authority: Path) -> grpc.ServerCertificateConfiguration:
    client_context(cert, key, authority)  # As in channel_credentials.
    return grpc.ssl_server_certificate_configuration([(key.read_bytes(), cert.read_bytes())], authority.read_bytes())


def client_context(cert: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """Of a client, as the files are now. ssl.SSLError where they do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(authority)
    # Without a passphrase at hand OpenSSL would ask for one on the terminal.
    context.load_cert_chain(cert, key, password="")
    return context
