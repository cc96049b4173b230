"""Subscriptions as documents, and as every copy holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, cast, get_args

from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.logs import get_logger
from backhaul_common.names import SUBSCRIPTION_CHANGED_SUBJECT
from backhaul_common.revisioned import Kind
from backhaul_common.vocabulary import Values
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from backhaul_notifier.catalogue.matching import Filter, Matcher, Selection, selection_of
from backhaul_notifier.catalogue.types import KINDS
from backhaul_notifier.documents import State
from backhaul_notifier.model import StoredSecret, Subscription
from backhaul_notifier.schedules import STANDARD, Policy, PolicyKind, policy_of

POLICIES: Final = Values(pb.PolicyKind.DESCRIPTOR, PolicyKind)


UNREADABLE: Final = "A newer version of the notifier wrote the subscription, and this copy cannot read what it says."
"""What people are told of such a subscription. What happens waits for it all the same."""

_log = get_logger(component="subscriptions")


def document_of(definition: pb.Definition) -> Document:
    """A definition as it is stored; its secrets must be encrypted."""
    return MessageToDict(definition, preserving_proto_field_name=True)


def _definition(value: object) -> pb.Definition:
    if isinstance(value, pb.Definition):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("it is no definition")  # noqa: TRY004  # pydantic makes nothing of a TypeError
    try:
        # Fields that only a newer version knows are left out here, and stay in the store.
        made = ParseDict(dict(value), pb.Definition(), ignore_unknown_fields=True)
    except ParseError:
        # The error shows what it could not parse, and encrypted secrets are beside it.
        raise ValueError("it is no definition that this version can read") from None
    # Words that only a newer version knows are left out as well. Without them it would mean something else.
    wanted = (made.policy.kind, made.ordering, not made.HasField("http") or (made.http.method and made.payload.form))
    if not all(wanted) or len(made.filter.kinds) != len(value.get("filter", {}).get("kinds", ())):
        raise ValueError("it has words that this version does not know")
    return made


class _Secret(BaseModel):
    kind: str
    secret: str
    public_key: str = ""
    created_at_us: int
    expires_at_us: int = 0


class _Standing(BaseModel):
    """What every version writes in the same way."""

    id: str
    tenant: str
    registration: str
    revision: int
    state: str
    state_since_us: int
    created_at_us: int
    updated_at_us: int
    begins: dict[str, int] = {}
    deleted: bool = False


class _Stored(_Standing):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    definition: Annotated[pb.Definition, BeforeValidator(_definition)]
    state: State
    state_text: str = ""
    secrets: tuple[_Secret, ...]

    @model_validator(mode="after")
    def _has_a_policy(self) -> _Stored:
        try:
            policy_in(self.definition.policy)
        except BackhaulError as exc:
            raise ValueError(exc.message) from None
        return self


def read(document: Mapping[str, Any]) -> Subscription:
    """The subscription of a document. ValidationError where it is none."""
    row = _Stored.model_validate({**document, "id": document["_id"]})
    return Subscription(
        id=row.id,
        tenant=row.tenant,
        registration=row.registration,
        revision=row.revision,
        definition=row.definition,
        state=row.state,
        state_text=row.state_text,
        state_since_us=row.state_since_us,
        created_at_us=row.created_at_us,
        updated_at_us=row.updated_at_us,
        secrets=tuple(StoredSecret(**secret.model_dump()) for secret in row.secrets),
        deleted=row.deleted,
        matcher=Matcher(selection_in(row.definition), row.id),
        policy=policy_in(row.definition.policy),
        begins=row.begins,
    )


def read_any(document: Mapping[str, Any]) -> Subscription:
    """The subscription of a document, as far as this version can read it. ValidationError where it is none."""
    try:
        return read(document)
    except ValidationError as exc:
        row = _Standing.model_validate({**document, "id": document["_id"]})
        _log.error("document_unreadable", subscription=row.id, error=f"{len(exc.errors())} of its fields")
    return Subscription(
        **row.model_dump(exclude={"state"}),
        state="paused" if row.state not in get_args(State) else cast("State", row.state),
        state_text=UNREADABLE,
        definition=pb.Definition(),
        secrets=(),
        matcher=Matcher(selection_of(["*"]), row.id),
        policy=STANDARD,
        readable=False,
    )


def readable(document: Mapping[str, Any]) -> Subscription:
    """The subscription of a document. UNAVAILABLE where this version cannot read it."""
    try:
        return read(document)
    except ValidationError as exc:
        raise BackhaulError(
            Code.UNAVAILABLE, UNREADABLE, fix="Try again: another copy may be newer.", retry_after_s=1.0
        ) from exc


def selection_in(definition: pb.Definition) -> Selection:
    """What a stored definition chooses; it was checked when it was written."""
    chosen = definition.filter
    return Selection(
        tuple(definition.types),
        Filter(
            channels=tuple(chosen.channels),
            communication_ids=tuple(chosen.communication_ids),
            error_codes=tuple(chosen.error_codes),
            kinds=tuple(KINDS.word(kind) for kind in chosen.kinds),
            attributes=tuple((pair.name, pair.value) for pair in chosen.attributes),
        ),
    )


def policy_in(policy: pb.Policy, field: str = "definition.policy") -> Policy:
    """The policy that a definition has; the standard one where it says nothing. INVALID_ARGUMENT within ``field``."""
    return policy_of(
        POLICIES.value(policy.kind, f"{field}.kind") or PolicyKind.STANDARD,
        steps_s=tuple(policy.retry_after_s),
        timeout_s=policy.timeout_s,
        only_200=policy.only_200,
        field=field,
    )


SUBSCRIPTION: Final = Kind("subscription", SUBSCRIPTION_CHANGED_SUBJECT, read_any)
"""What a ``Directory`` of subscriptions holds."""
