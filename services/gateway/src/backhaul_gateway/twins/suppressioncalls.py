"""What tenants and the platform team ask of suppression: JSON bodies, and how refusals name what stands in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backhaul_gateway.twins.renaming import renamed
from backhaul_gateway.twins.suppressions import FAMILIES, KINDS, PURPOSES, SCOPES, SOURCES
from backhaul_gateway.web.filters import Text, microseconds
from backhaul_gateway.web.moments import AwareMoment

MAX_ADDRESS = 512
MAX_ID = 256
MAX_NOTE = 512
MAX_REFERENCE = 512
MAX_SAID = 1000


def _one_of(words: Sequence[str]) -> Any:
    def known(word: str) -> str:
        if word.lower() not in words:
            raise ValueError(f"Input should be one of: {', '.join(words)}.")
        return word

    return AfterValidator(known)


def _shown(words: Sequence[str]) -> Any:
    return Field(max_length=64, json_schema_extra={"enum": list(words)})


_CALLERS_SOURCES = tuple(word for number, word in SOURCES.by_number.items() if number != pb.SOURCE_EVENT)
"""Events are recorded by themselves: no caller has heard of something by one."""

_Address = Annotated[Text, Field(max_length=MAX_ADDRESS, examples=["+15005550001"])]
_Family = Annotated[str, _shown(FAMILIES.words), _one_of(FAMILIES.words)]
_Kind = Annotated[str, _shown(KINDS.words), _one_of(KINDS.words)]
_Purpose = Annotated[str, _shown(PURPOSES.words), _one_of(PURPOSES.words)]
_Scope = Annotated[str, _shown(SCOPES.words), _one_of(SCOPES.words)]
_Source = Annotated[str, _shown(_CALLERS_SOURCES), _one_of(_CALLERS_SOURCES)]
_Id = Annotated[Text, Field(max_length=MAX_ID)]
_Note = Annotated[Text, Field(max_length=MAX_NOTE)]


def _family_of(word: str | None) -> Any:
    return FAMILIES.number(word or "") or 0


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScopeIn(_Input):
    """What a suppression covers. All but ``all`` name which one in ``id``."""

    kind: _Scope = "all"
    id: _Id = ""

    def message(self) -> pb.Scope:
        """As the contract has it."""
        return pb.Scope(kind=SCOPES.number(self.kind), id=self.id)


class EvidenceIn(_Input):
    """Proof that the person said it: by which way, when, and where you find it."""

    source: _Source
    at: AwareMoment
    reference: Annotated[Text, Field(max_length=MAX_REFERENCE, examples=["form 4711"])]
    text: Annotated[Text, Field(max_length=MAX_SAID)] = ""

    def message(self) -> pb.Evidence:
        """As the contract has it."""
        return pb.Evidence(
            source=SOURCES.number(self.source),
            at_us=microseconds(self.at),
            reference=self.reference,
            text=self.text,
        )


class _AboutAddress(_Input):
    address: _Address
    family: _Family | None = Field(None, description="Told by the address where it is left out: a number's is phone.")

    def _family(self) -> Any:
        return _family_of(self.family)


class AddIn(_AboutAddress):
    """That a person must not be contacted, whoever said so and wherever."""

    kind: _Kind
    scope: ScopeIn = ScopeIn()
    source: _Source = Field("api", description="By which way it was heard of.")
    effective_at: AwareMoment | None = Field(None, description="When the person said it; left out, now.")
    evidence: EvidenceIn | None = None
    note: _Note = ""

    def request(self, tenant_id: str, key: str, actor: pb.Actor.ValueType, author: str) -> pb.AddRequest:
        """The call, under the Idempotency-Key ``key``, on behalf of ``actor``."""
        return pb.AddRequest(
            tenant_id=tenant_id,
            address=self.address,
            family=self._family(),
            kind=KINDS.number(self.kind),
            scope=self.scope.message(),
            source=SOURCES.number(self.source),
            effective_at_us=microseconds(self.effective_at),
            evidence=self.evidence.message() if self.evidence is not None else None,
            note=self.note,
            idempotency_key=key,
            actor=actor,
            author=author,
        )


class LiftIn(_AboutAddress):
    """What is to be lifted. A stop or an unsubscription takes evidence that the person consents."""

    kind: _Kind
    scope: ScopeIn = ScopeIn()
    evidence: EvidenceIn | None = None
    note: _Note = ""

    def request(self, tenant_id: str, key: str, actor: pb.Actor.ValueType, author: str) -> pb.LiftRequest:
        """The call, under the Idempotency-Key ``key``, on behalf of ``actor``."""
        return pb.LiftRequest(
            tenant_id=tenant_id,
            address=self.address,
            family=self._family(),
            kind=KINDS.number(self.kind),
            scope=self.scope.message(),
            evidence=self.evidence.message() if self.evidence is not None else None,
            note=self.note,
            idempotency_key=key,
            actor=actor,
            author=author,
        )


class OperatorAddIn(AddIn):
    """What the operator must have so."""

    kind: _Kind = "legal"


class OperatorLiftIn(LiftIn):
    """What the operator need not have so any more."""

    kind: _Kind = "legal"


class ReactivateIn(_AboutAddress):
    """Which address works again."""

    note: _Note = ""

    def request(self, tenant_id: str, key: str, author: str) -> pb.ReactivateRequest:
        """The call of a tenant, under the Idempotency-Key ``key``."""
        return pb.ReactivateRequest(
            tenant_id=tenant_id,
            address=self.address,
            family=self._family(),
            note=self.note,
            idempotency_key=key,
            actor=pb.ACTOR_TENANT,
            author=author,
        )


class _SendingIn(_Input):
    purpose: _Purpose | None = Field(None, description="What the message is for; left out, whatever blocks any.")
    sender: _Id | None = Field(None, description="What it is sent from; left out, it may be any; empty: none.")
    messaging_service: _Id | None = Field(None, description="Likewise.")
    group: _Id | None = Field(None, description="Likewise.")

    def _sending(self) -> pb.Sending:
        # What is absent may be any, and what is empty is none: only the former is left out.
        named = {
            name: value
            for name in ("sender", "messaging_service", "group")
            if (value := getattr(self, name)) is not None
        }
        purpose: Any = PURPOSES.number(self.purpose or "") or 0
        return pb.Sending(purpose=purpose, **named)


class CheckIn(_AboutAddress, _SendingIn):
    """Whether an address may be contacted, with such a message."""

    def request(self, tenant_id: str) -> pb.CheckRequest:
        """The call."""
        return pb.CheckRequest(
            tenant_id=tenant_id, address=self.address, family=self._family(), sending=self._sending()
        )


MAX_ITEMS = 10_000
MAX_CORRELATION = 128


class CheckItemIn(_Input):
    """One address of a batch. What is wrong with it is told in its result. ``correlation_id`` comes back with it."""

    address: str = Field(examples=["+15005550001"])
    correlation_id: Annotated[str, Field(max_length=MAX_CORRELATION)] = ""


class CheckBatchIn(_SendingIn):
    """Which addresses may be contacted, with such a message."""

    items: Annotated[list[CheckItemIn], Field(max_length=MAX_ITEMS)]
    family: _Family | None = None

    def request(self, tenant_id: str) -> pb.CheckBatchRequest:
        """The call, without the items."""
        return pb.CheckBatchRequest(tenant_id=tenant_id, family=_family_of(self.family), sending=self._sending())


DO_NOT_SEND = "Nothing was answered. Do not send; ask again later."
"""What it means that a question got no answer."""

SAY_AGAIN = "It may have been recorded, or not. Send it again later, under the same Idempotency-Key if it had one."
"""What it means that a statement got no answer."""


@contextmanager
def in_words_of_http(*, query: bool = False, unanswered: str = "") -> Iterator[None]:
    """Around a call of suppression: what it refuses is named as the request has it, and not as the contract does; as
    its ``query`` has it, or its body. ``unanswered`` tells the caller what it means that nobody can answer."""
    with renamed({**_RENAMED, **_IN_QUERIES} if query else _RENAMED, unanswered=unanswered):
        yield


_RENAMED = {
    "effective_at_us": "effective_at",
    "evidence.at_us": "evidence.at",
    "sending.purpose": "purpose",
    "sending.sender": "sender",
    "sending.messaging_service": "messaging_service",
    "sending.group": "group",
    "idempotency_key": "Idempotency-Key",
    "after_position": "after",
    "page_token": "cursor",
    "page_size": "limit",
    "from_us": "from",
    "to_us": "to",
}
"""The fields of the contract that have other names in requests."""

_IN_QUERIES = {"scope.kind": "scope_kind", "scope.id": "scope_id"}
"""Those of queries, beside them."""
