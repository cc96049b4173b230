"""TLS: whom the door trusts, and what it shows."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import OrderedDict
from pathlib import Path
from typing import Final

from backhaul_notifier.door.outcome import RequestError, Tls

MAX_CONTEXTS: Final = 256
"""Each holds the certificates of all authorities: about a megabyte."""


class Contexts:
    """One context for each set of certificates. Connections are pooled by context: who shows one certificate gets no
    connection of who shows another."""

    def __init__(self, authorities: Path | None = None) -> None:
        """``authorities`` is a PEM file; None: those that the machine trusts."""
        self._authorities = authorities
        self._made: OrderedDict[Tls, ssl.SSLContext] = OrderedDict()
        self._making = asyncio.Lock()

    async def of(self, tls: Tls | None) -> ssl.SSLContext:
        """The context for ``tls``. Raises RequestError where it cannot be used."""
        tls = tls or Tls()
        if (known := self._made.get(tls)) is None:
            async with self._making:
                if (known := self._made.get(tls)) is None:
                    # Reading the authorities takes some 20 ms.
                    known = self._made[tls] = await asyncio.to_thread(self._make, tls)
                    if len(self._made) > MAX_CONTEXTS:
                        self._made.popitem(last=False)
        self._made.move_to_end(tls)
        return known

    def _make(self, tls: Tls) -> ssl.SSLContext:
        try:
            context = (
                ssl.create_default_context(cadata=tls.authority)
                if tls.authority
                else ssl.create_default_context(cafile=self._authorities)
            )
        except (ssl.SSLError, ValueError) as exc:
            raise RequestError("The authority's certificate is no PEM that can be read.") from exc
        context.set_alpn_protocols(["http/1.1"])
        # From 3.13 on, Python would refuse certificates that lack what private authorities often leave out.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if tls.certificate or tls.key:
            self._show(context, tls)
        return context

    @staticmethod
    def _show(context: ssl.SSLContext, tls: Tls) -> None:
        # ssl takes certificates from files only; this one is in memory, and nobody else's.
        file = os.memfd_create("tls", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(file), "wb") as writer:
                writer.write(f"{tls.certificate}\n{tls.key}\n".encode())
            # Without a password it would ask for one at the terminal.
            context.load_cert_chain(f"/proc/self/fd/{file}", password="")
        except (ssl.SSLError, ValueError) as exc:
            raise RequestError(
                "The client certificate and its key are no pair of PEM that can be read; the key must not be encrypted."
            ) from exc
        finally:
            os.close(file)
