"""A tenant whom both versions write about, read at a gateway of each, and at a normalizer of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from backhaul_local.certificates import authority_path, certificate_path, key_path
from backhaul_proto.normalizer.v1 import normalizer_pb2 as pb
from backhaul_proto.normalizer.v1.normalizer_pb2_grpc import NormalizerServiceStub
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until
from google.protobuf.json_format import MessageToDict

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import PlatformTeam, Tenant

Json = Any
COMMUNICATION = "spring"
VARIES = {"last_used_at"}
"""Each gateway writes it a while after a key was used: the later answer may know more."""

_STATUSES = (("delivered", ""), ("undelivered", "30003"), ("failed", "30007"))


@dataclass
class Witness:
    """``sids`` are its messages, of most of which two phases tell; ``alone`` are communications of one phase each."""

    tenant: Tenant
    platform: PlatformTeam
    sids: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    events: int = 0
    people: int = 0
    screened: bool = True
    """Whether there is a suppression to be asked who has said STOP."""

    async def hear(self) -> None:
        """Callbacks of new messages, and later ones of those that were heard of before; a reply, and a mail."""
        tenant = self.tenant
        address = tenant.address("Twilio", communicationId=COMMUNICATION)
        for sid, (word, error) in zip(self.sids[-len(_STATUSES) :], _STATUSES, strict=False):
            fields = {"ErrorCode": error} if error else {}
            await self._take(tenant.twilio.status(address, sid, word, **fields))
        for _ in _STATUSES:
            self.sids.append(new_sid())
            await self._take(tenant.twilio.status(address, self.sids[-1], "queued"))
            await self._take(tenant.twilio.status(address, self.sids[-1], "sent"))
        await self._take(tenant.reply(f"+1500555{len(self.sids):04}", "STOP"))
        self.people += self.screened
        # Of a communication that nobody else hears of: one of the versions alone has written about it.
        alone = f"{COMMUNICATION}-{len(self.alone)}"
        self.alone.append(alone)
        mail = tenant.sendgrid.event(f"{new_sid()}.filterdrecv-1-2-3.0", "delivered", communicationId=alone)
        await self._take(tenant.sendgrid.batch(tenant.address("SendGrid"), [mail]))

        async def known() -> bool:
            found = tenant.client.suppressions(standing="any", page_size=500)
            rows = [row async for row in found] if self.screened else []
            return (len(await tenant.events(page_size=500)), len(rows)) == (self.events, self.people)

        await until(f"{self.events} events of the witness, and {self.people} people", known, within_s=60)

    async def _take(self, post: Any) -> None:
        async def taken() -> bool:
            return bool((await self.tenant.send(post)).status_code == 200)

        await until("an answer 200", taken, within_s=60)  # A gateway may be about to end.
        self.events += 1

    async def read(self, stack: Stack, copy: str) -> dict[str, Json]:
        """What the gateway ``copy`` of ``stack`` answers, by what was asked, where its version offers that."""
        base = f"http://127.0.0.1:{stack.port(copy, 'http')}"
        found: dict[str, Json] = {}
        for path, key in self._paths():
            token = {"X-Api-Key": self.tenant.api_key} if key else {"Authorization": f"Bearer {stack.admin_token}"}
            answer = await self.tenant.http.get(base + path, headers=token)
            if answer.status_code == 404 and "There is nothing at" in answer.text:
                continue
            assert answer.status_code == 200, f"{copy} answers {path}: {answer.status_code} {answer.text}"
            found[path] = answer.json()
        return found

    async def read_normalizer(self, stack: Stack, copy: str) -> dict[str, Json]:
        """What the normalizer ``copy`` of ``stack`` answers, by what was asked."""
        folder = stack.config.data_dir / "tls"
        files = authority_path(folder), key_path(folder, "gateway"), certificate_path(folder, "gateway")
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
        target = f"127.0.0.1:{stack.port(copy, 'grpc')}"
        metadata = (("authorization", f"Bearer {stack.credentials.internal_token}"),)
        asked: Mapping[str, Any] = {
            "ListEvents": pb.ListEventsRequest(tenant_id=self.tenant.id, page_size=200),
            "ListMessages": pb.ListMessagesRequest(tenant_id=self.tenant.id, page_size=200),
            "GetMessage": pb.GetMessageRequest(tenant_id=self.tenant.id, channel="twilio", message_id=self.sids[0]),
            "GetCommunication": pb.GetCommunicationRequest(tenant_id=self.tenant.id, communication_id=COMMUNICATION),
            "CountErrors": pb.CountErrorsRequest(tenant_id=self.tenant.id),
        }
        async with grpc.aio.secure_channel(target, credentials, [("grpc.enable_http_proxy", 0)]) as channel:
            stub: Any = NormalizerServiceStub(channel)
            return {
                name: MessageToDict(
                    await getattr(stub, name)(request, timeout=60, metadata=metadata), preserving_proto_field_name=True
                )
                for name, request in asked.items()
            }

    def _paths(self) -> Sequence[tuple[str, bool]]:
        """Each path, and whether the tenant asks it; otherwise the platform team does."""
        own = [
            "/v1/events?limit=200", "/v1/events?channel=twilio&kind=sent", "/v1/messages?limit=200",
            *(f"/v1/messages/twilio/{sid}" for sid in self.sids[:3]),
            *(f"/v1/communications/{name}" for name in (COMMUNICATION, *self.alone)),
            "/v1/errors", "/v1/suppressions?standing=any", "/v1/dead-letters", "/v1/replies", "/v1/channels",
        ]  # fmt: skip
        team = [f"/admin/v1/tenants/{self.tenant.id}", f"/admin/v1/tenants/{self.tenant.id}/channels"]
        return [*((path, True) for path in own), *((path, False) for path in team)]


def unlike(old: Json, new: Json, place: str = "") -> list[str]:
    """Where ``new`` does not say what ``old`` does. It may say more: what is read by name only grows."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in old if name not in VARIES]
        return [said for name in names for said in unlike(old[name], new.get(name), f"{place}.{name}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [said for number, (one, other) in pairs for said in unlike(one, other, f"{place}[{number}]")]
    return [] if old == new else [f"{place}: {old!r} and {new!r}"]
