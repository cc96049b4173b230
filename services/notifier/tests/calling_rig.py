"""Subscriptions, deliveries, and a caller through a real door, with doubles of the caller's own ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from backhaul_common.tracing import Tracing
from backhaul_notifier.calling.caller import HttpCalling
from backhaul_notifier.calling.oauth import Tokens
from backhaul_notifier.catalogue.matching import Matcher, selection_of
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.door.client import Door
from backhaul_notifier.model import Delivery, Subscription
from backhaul_notifier.payloads import Renderer
from backhaul_notifier.schedules import DISPATCH, RCS, STANDARD, Policy
from backhaul_notifier.signing import SecretKind, SigningKey, active
from backhaul_notifier.variables import Known
from backhaul_proto.event.v1.event_pb2 import Event
from backhaul_proto.notice.v1.notice_pb2 import Notice
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from door_rig import Hanging, door

PUBLIC_URL = "https://backhaul.example.com"
NOW_US = 1_795_700_000_000_000
WEBHOOK_ID = "msg_0123456789abcdef0123456789abcdef"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

HMAC = SigningKey(SecretKind.HMAC, b"k" * 32, 1)
PAIR = SigningKey(SecretKind.ED25519, b"p" * 32, 2)


def http(url: str, method: str = "POST", **more: Any) -> pb.Definition:
    """A definition whose calls go to ``url``; ``more`` are fields of the destination."""
    destination = pb.HttpDestination(method=pb.HttpMethod.Value(f"HTTP_METHOD_{method}"), url=url, **more)
    return pb.Definition(name="ours", types=["*"], http=destination)


def subscription(definition: pb.Definition, *, policy: Policy = STANDARD, revision: int = 1) -> Subscription:
    return Subscription(
        id="sub_5f2c7d1e8a9b0c3d4e5f6a7b",
        tenant="acme",
        registration="acme.5c0e9d1f2a3b",
        revision=revision,
        definition=definition,
        state="active",
        state_text="",
        state_since_us=NOW_US,
        created_at_us=NOW_US,
        updated_at_us=NOW_US,
        secrets=(),
        deleted=False,
        matcher=Matcher(selection_of(["*"])),
        policy=policy,
    )


def delivery(type_: str = "message.delivered", said: Event | Notice | None = None, number: int = 1) -> Delivery:
    """One that tells ``said``, or the sample of the type."""
    said = said or sample_of(TYPES[type_])
    return Delivery(
        id=number.to_bytes(16, "big"),
        subscription="sub_5f2c7d1e8a9b0c3d4e5f6a7b",
        type=type_,
        payload=said.SerializeToString(),
        notice=isinstance(said, Notice),
        order=number,
        key=b"",
        due_at_us=NOW_US,
        created_at_us=NOW_US,
        attempts=0,
        counted=0,
        ours=0,
        call=b"",
    )


class Opening:
    """``Opens``: what tests say."""

    def __init__(self, keys: Sequence[SigningKey] = (HMAC,), credentials: pb.Credentials | None = None) -> None:
        self._keys = keys
        self._credentials = credentials or pb.Credentials()
        self.sealed = False
        self.opens = 0

    def credentials(self, subscription: Subscription) -> pb.Credentials:
        self.opens += 1
        if self.sealed:
            raise ValueError("no key of the ring decrypts this secret")
        return self._credentials

    def keys(self, subscription: Subscription, now_us: int) -> Sequence[SigningKey]:
        return active(self._keys, now_us)


class Knows:
    """``Knowing``: what tests say, or an error."""

    def __init__(self, known: Known | None = None) -> None:
        self.answer: Known | Exception = known or Known()
        self.asked: list[tuple[str, ...]] = []
        self.takes_s = 0.0

    async def known(self, subscription: Subscription, said: Event | Notice, type_: str, names: Iterable[str]) -> Known:
        self.asked.append(tuple(names))
        await asyncio.sleep(self.takes_s)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Rig:
    """A caller and what it works with."""

    def __init__(self, sender: Door, opening: Opening, knows: Knows, tracing: Tracing, **clocks: Any) -> None:
        self.opening = opening
        self.knows = knows
        self.tokens = Tokens(sender, **({"clock": clocks["clock"]} if "clock" in clocks else {}))
        self.caller = HttpCalling(sender, Renderer(PUBLIC_URL), opening, knows, self.tokens, tracing, **clocks)


@asynccontextmanager
async def calling(
    opening: Opening | None = None,
    knows: Knows | None = None,
    *,
    resolver: Hanging | None = None,
    tracing: Tracing | None = None,
    clock: Callable[[], float] | None = None,
    now_us: Callable[[], int] | None = None,
    **settings: object,
) -> AsyncIterator[Rig]:
    clocks = {name: given for name, given in (("clock", clock), ("now_us", now_us)) if given is not None}
    async with door(resolver, **cast(Any, settings)) as sender:
        rig = Rig(sender, opening or Opening(), knows or Knows(), tracing or Tracing("notifier", None), **clocks)
        try:
            yield rig
        finally:
            await rig.tokens.close()


POLICIES = {"dispatch": DISPATCH, "rcs": RCS, "standard": STANDARD}
