"""One message of a stream on its way through a service."""

from __future__ import annotations

from nats.aio.client import Client

from backhaul_common.feed import formats
from backhaul_common.jetstream import translated


class StreamMessage:
    """One message, delivered once or again.

    ``path`` is the queue path that is the second token of every subject, ``traceparent`` empty where it brought none.
    ``again`` says that whoever published it may have published the same before, in a message of its own.
    """

    __slots__ = ("_client", "again", "data", "path", "reply", "stream_seq", "subject", "traceparent")

    def __init__(
        self, client: Client, subject: str, reply: str, data: bytes, traceparent: str = "", *, again: bool = False
    ) -> None:
        self._client = client
        self.subject = subject
        self.path = subject.split(".", 2)[1]
        self.reply = reply
        self.stream_seq = formats.stream_seq_of(reply)
        self.data = data
        self.traceparent = traceparent
        self.again = again

    @property
    def deliveries(self) -> int:
        """How often it has been delivered, this time included."""
        return formats.place_of(self.reply).deliveries

    @property
    def stored_at_us(self) -> int:
        """When the stream stored it, by the broker's clock: unix time in microseconds."""
        return formats.stored_at_us_of(self.reply)

    async def ack(self) -> None:
        """It is done with. UNAVAILABLE when the broker cannot be told, as with the others."""
        await answer(self._client, self.reply, formats.ACK)

    async def nak(self, delay_s: float) -> None:
        """Deliver it again, not before ``delay_s``."""
        await answer(self._client, self.reply, formats.nak(delay_s))

    async def term(self) -> None:
        """It is given up: it stays in the stream, and is not delivered any more."""
        await answer(self._client, self.reply, formats.TERM)


async def answer(client: Client, reply: str, word: bytes) -> None:
    """Say ``word`` of the message that is answered on ``reply``. UNAVAILABLE when the broker cannot be told."""
    async with translated("NATS"):
        await client.publish(reply, word)
