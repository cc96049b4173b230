"""What an adapter is told of the callback that it reads, and what becomes of parts that it ignores."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.request import urlopen

from backhaul_channels import (
    Adapter,
    ChannelSettings,
    Context,
    EventKind,
    Ignored,
    NormalizedEvent,
    RawCallback,
    Source,
    Verifier,
)
from backhaul_common.names import DEAD_LETTERS_COLLECTION, EVENTS_COLLECTION
from backhaul_local.ports import Hold
from backhaul_normalizer.model import Fact
from backhaul_normalizer.normalize import Normalizer
from backhaul_proto.callback.v1 import callback_pb2
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_testing import make
from normalizer_rig import RigFactory


class ReportingAdapter(Adapter[ChannelSettings]):
    """Takes lines; those that begin with a dash are ignored for the reason that follows."""

    provider = "twilio"
    labels = ("Twilio",)
    own_parameters = frozenset({"sig"})
    ignores = frozenset({"typing"})

    def __init__(self) -> None:
        self.contexts: list[Context[ChannelSettings]] = []
        self.callbacks: list[RawCallback] = []
        self.looks = False

    def verifier(self, secrets: Sequence[str], settings: ChannelSettings) -> Verifier:
        raise NotImplementedError

    def split(self, callback: RawCallback, settings: ChannelSettings) -> Sequence[bytes]:
        self.callbacks.append(callback)
        if self.looks:
            assert callback.header(b"x-second") == b"b: c"
        return callback.body.split(b"\n")

    def normalize(self, part: bytes, context: Context[ChannelSettings]) -> NormalizedEvent | Ignored:
        self.contexts.append(context)
        if part.startswith(b"-"):
            return Ignored(part[1:].decode())
        return NormalizedEvent(kind=EventKind.SENT, key=part.decode(), provider_status="sent")


class NoTenants:
    """A directory that knows nobody."""

    tenants: Mapping[str, Any] = {}

    def get(self, tenant_id: str) -> None:
        return None

    async def reload(self, tenant_id: str) -> None:
        return None

    def listen(self, listener: Any) -> None:
        pass


def read(adapter: ReportingAdapter, **fields: Any) -> list[Any]:
    callback = Callback(
        tenant_id="acme",
        registration="acme.1",
        channel="twilio",
        provider="twilio",
        method="POST",
        url="https://x.example.com/in/t/api/postevents?channelLabel=Twilio&sig=1&case=7&case=8",
        headers=b"x-first: a\r\nx-second: b: c\r\n",
        received_at_us=5,
        **fields,
    )
    return list(Normalizer({"twilio": adapter}, NoTenants()).read(callback, 1, "acme"))


def test_the_context_is_made_once_and_has_what_holds_for_all_parts() -> None:
    adapter = ReportingAdapter()
    assert len(read(adapter, body=b"1\n2")) == 2
    first, second = adapter.contexts
    assert first is second
    assert (first.parameters, first.source, first.received_at_us) == (
        [("case", "7"), ("case", "8")],
        Source.CALLBACK,
        5,
    )
    for number, source in (
        (callback_pb2.SOURCE_BACKFILL, Source.BACKFILL),
        (callback_pb2.SOURCE_REPLAY, Source.REPLAY),
    ):
        read(adapter, body=b"3", source=number)
        assert adapter.contexts[-1].source is source


def test_headers_are_parsed_for_those_alone_who_look(monkeypatch: Any) -> None:
    adapter = ReportingAdapter()
    read(adapter, body=b"1")
    headers = adapter.callbacks[0].headers
    assert "_pairs" not in vars(headers)
    adapter.looks = True
    (fact,) = read(adapter, body=b"1")
    assert isinstance(fact, Fact)
    assert list(adapter.callbacks[1].headers) == [(b"x-first", b"a"), (b"x-second", b"b: c")]


def test_a_part_is_ignored_for_a_reason_that_the_adapter_declared() -> None:
    """Anything else it says is no name of its own, since each makes a row in a metric."""
    outcomes = read(ReportingAdapter(), body=b"1\n-typing\n-message 4711 was typed")
    assert outcomes[1:] == [Ignored("typing"), Ignored("other")]
    assert isinstance(outcomes[0], Fact)


async def test_what_is_ignored_is_counted_and_neither_event_nor_dead_letter(
    rig_factory: RigFactory, monkeypatch: Any
) -> None:
    monkeypatch.setattr("backhaul_normalizer.app.load_adapters", lambda: {"twilio": ReportingAdapter()})
    hold = Hold()
    [port] = hold.choose(1)
    async with rig_factory(metrics_port=port) as rig:
        acme = make.tenant("acme")
        await rig.register(acme)
        await rig.publish(acme, make.callback(acme, b"1\n-typing\n-typing\n-unheard of"))
        await rig.drained()
        assert len(await rig.rows(EVENTS_COLLECTION)) == 1
        assert await rig.rows(DEAD_LETTERS_COLLECTION) == []
        shown = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())  # loopback
        for reason, count in (("typing", 2), ("other", 1)):
            assert re.search(rf'parts_ignored_total\{{[^}}]*reason="{reason}"[^}}]*\}} {count}\.0', shown), shown
