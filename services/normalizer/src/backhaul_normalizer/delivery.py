"""One message of CALLBACKS on its way through this service."""

from __future__ import annotations

from backhaul_common.jetstream import translated
from nats.aio.client import Client


class JetStreamDelivery:
    """One message of the stream, as JetStream delivered it."""

    __slots__ = ("_client", "data", "path", "reply", "stream_seq")

    def __init__(self, client: Client, path: str, stream_seq: int, reply: str, data: bytes) -> None:
        self._client = client
        self.reply = reply
        self.path = path
        self.stream_seq = stream_seq
        self.data = data

    async def ack(self) -> None:
        await self._answer(b"+ACK")

    async def nak(self, delay_s: float) -> None:
        await self._answer(b'-NAK {"delay": %d}' % int(delay_s * 1e9))

    async def term(self) -> None:
        """It is given up: it stays in the stream, and is not delivered any more. UNAVAILABLE as with the others."""
        await self._answer(b"+TERM")

    async def _answer(self, word: bytes) -> None:
        async with translated("NATS"):
            await self._client.publish(self.reply, word)


def stream_seq_of(reply: str) -> int:
    """The position in the stream of a message that is acknowledged on ``reply``."""
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.… with two more tokens in front where there is a domain.
    tokens = reply.split(".")
    return int(tokens[5 if len(tokens) < 11 else 7])


def deliveries_of(reply: str) -> int:
    """How often the message that is acknowledged on ``reply`` has been delivered, this time included."""
    tokens = reply.split(".")
    return int(tokens[4 if len(tokens) < 11 else 6])
