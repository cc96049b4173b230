"""Real SMTP servers, and what came to them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope


class Box:
    """``aiosmtpd``'s handler: what came, and whom it will not have."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.refuses: dict[str, str] = {}
        self.data = "250 OK, queued as 7"
        self.slow: asyncio.Event | None = None

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:  # noqa: N802  # aiosmtpd's name
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802  # as above
        if self.slow is not None:
            await self.slow.wait()
        self.mails.append(envelope)
        return self.data

    def read(self, at: int = 0) -> EmailMessage:
        content = self.mails[at].content
        assert isinstance(content, bytes)
        made = message_from_bytes(content, policy=policy.default)
        assert isinstance(made, EmailMessage)
        return made

    def part(self, kind: str, at: int = 0) -> str:
        body = self.read(at).get_body((kind,))
        assert isinstance(body, EmailMessage)
        return str(body.get_content())


@asynccontextmanager
async def serving(factory: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def smtp(**more: Any) -> AsyncIterator[tuple[Box, int]]:
    box = Box()
    async with serving(lambda: SMTP(box, **more)) as port:
        yield box, port
