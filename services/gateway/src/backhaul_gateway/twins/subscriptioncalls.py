"""What tenants ask of subscriptions and deliveries: JSON bodies, and how refusals name what stands in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Self

from backhaul_common.vocabulary import Words
from backhaul_proto.event.v1.event_pb2 import Attribute, EventKind
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from backhaul_gateway.twins.renaming import renamed
from backhaul_gateway.twins.subscriptions import METHODS
from backhaul_gateway.web.filters import Text, microseconds
from backhaul_gateway.web.moments import AwareMoment

_KINDS = Words(EventKind.DESCRIPTOR)
_FORMS = Words(pb.PayloadForm.DESCRIPTOR)
_POLICIES = Words(pb.PolicyKind.DESCRIPTOR)
_ORDERINGS = Words(pb.Ordering.DESCRIPTOR)
_SECRETS = Words(pb.SecretKind.DESCRIPTOR)
_WHICH = Words(pb.Redelivered.DESCRIPTOR)

_MAX_URL = 8192
_MAX_PEM = 65_536
_MAX_RATE = 1_000
_WEEK_S = 604_800


def _word_of(words: Words) -> Any:
    def known(word: str) -> str:
        if words.number(word) is None:
            raise ValueError(f"Input should be one of: {', '.join(words.words)}.")
        return word

    return AfterValidator(known)


def _shown(words: Words) -> Any:
    return Field(max_length=64, json_schema_extra={"enum": list(words.words)})


_Kind = Annotated[str, _shown(_KINDS), _word_of(_KINDS)]
_Method = Annotated[str, _shown(METHODS), _word_of(METHODS)]
_Form = Annotated[str, _shown(_FORMS), _word_of(_FORMS)]
_PolicyKind = Annotated[str, _shown(_POLICIES), _word_of(_POLICIES)]
_Ordering = Annotated[str, _shown(_ORDERINGS), _word_of(_ORDERINGS)]
_SecretKind = Annotated[str, _shown(_SECRETS), _word_of(_SECRETS)]
_Which = Annotated[str, _shown(_WHICH), _word_of(_WHICH)]

_WAYS = ("basic", "bearer_token", "header", "oauth")
"""How an endpoint is shown who calls: by one of these."""

_Short = Annotated[Text, Field(max_length=512)]
_Long = Annotated[Text, Field(max_length=_MAX_URL)]
_Pem = Annotated[Text, Field(max_length=_MAX_PEM)]
_Many: Any = Field(default=[], max_length=1_000)
_Rate = Annotated[int, Field(strict=True, ge=0, le=_MAX_RATE)]
_Flag = Annotated[bool, Field(strict=True)]


def _number(most: int) -> Any:
    return Field(strict=True, ge=0, le=most)


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NameValueIn(_Input):
    """A name with its value. Names may repeat."""

    name: _Short
    value: _Long

    def message(self) -> Attribute:
        """As the contract has it."""
        return Attribute(name=self.name, value=self.value)


class SubscriptionFilterIn(_Input):
    """Which events are told: those that pass every list that is not empty. ``attributes`` must all be among an event's
    vars or attributes; ``kinds`` choose of types that are of several."""

    channels: Annotated[list[_Short], _Many]
    communication_ids: Annotated[list[_Short], _Many]
    error_codes: Annotated[list[_Short], _Many]
    attributes: Annotated[list[NameValueIn], _Many]
    kinds: Annotated[list[_Kind], _Many]

    def message(self) -> pb.Filter:
        """As the contract has it."""
        return pb.Filter(
            channels=self.channels,
            communication_ids=self.communication_ids,
            error_codes=self.error_codes,
            attributes=[pair.message() for pair in self.attributes],
            kinds=[_KINDS.number(word) for word in self.kinds],
        )


class BasicIn(_Input):
    """HTTP Basic."""

    username: _Long
    password: _Long = ""


class HeaderIn(_Input):
    """A header that only the two sides know."""

    name: _Short
    value: _Long = ""


class OAuthIn(_Input):
    """A token is fetched by client credentials (RFC 6749, 4.4), and used until it expires."""

    token_url: _Long
    client_id: _Long
    client_secret: _Long = ""
    scope: _Long = ""
    audience: _Long = ""


class MutualTlsIn(_Input):
    """PEM: the certificate with what leads to its root, and its key, which is not encrypted."""

    certificate: _Pem
    private_key: _Pem = ""


class CredentialsIn(_Input):
    """How the endpoint is shown who calls: by one of the first four, and ``mutual_tls`` beside it or alone. Where a PUT
    leaves what is secret empty, it stays as it is."""

    basic: BasicIn | None = None
    bearer_token: _Long | None = None
    header: HeaderIn | None = None
    oauth: OAuthIn | None = None
    mutual_tls: MutualTlsIn | None = None

    @model_validator(mode="after")
    def _by_one(self) -> Self:
        given = [name for name in _WAYS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"Input should be one of: {', '.join(given)}.")
        return self

    def message(self) -> pb.Credentials:
        """As the contract has it."""
        credentials = pb.Credentials()
        if self.basic is not None:
            credentials.basic.CopyFrom(pb.BasicCredentials(**self.basic.model_dump()))
        if self.bearer_token is not None:
            credentials.bearer_token = self.bearer_token
        if self.header is not None:
            credentials.header.CopyFrom(pb.HeaderCredentials(**self.header.model_dump()))
        if self.oauth is not None:
            credentials.oauth.CopyFrom(pb.OAuthCredentials(**self.oauth.model_dump()))
        if self.mutual_tls is not None:
            credentials.mutual_tls.CopyFrom(pb.MutualTls(**self.mutual_tls.model_dump()))
        return credentials


class HttpDestinationIn(_Input):
    """An endpoint. ``url`` may have variables: ``https://example.com/sent?member=${memberId}``."""

    method: _Method | None = Field(None, description="POST where it is left out.")
    url: _Long = Field(examples=["https://example.com/backhaul"])
    headers: Annotated[list[NameValueIn], _Many]
    credentials: CredentialsIn | None = None

    def message(self) -> pb.HttpDestination:
        """As the contract has it."""
        return pb.HttpDestination(
            method=_of(METHODS, self.method),
            url=self.url,
            headers=[pair.message() for pair in self.headers],
            credentials=self.credentials.message() if self.credentials is not None else None,
        )


class MailDestinationIn(_Input):
    """People, who are told by a digest of so many minutes from its first event on; 0 is 10."""

    addresses: Annotated[list[_Short], Field(max_length=1_000, examples=[["ops@example.com"]])]
    every_minutes: Annotated[int, _number(1_440)] = 0

    def message(self) -> pb.MailDestination:
        """As the contract has it."""
        return pb.MailDestination(addresses=self.addresses, every_minutes=self.every_minutes)


class PayloadIn(_Input):
    """What is sent. ``full`` is the whole event, ``thin`` where it is read, ``cloudevents`` CloudEvents 1.0; ``spec``
    is nothing but the address, as Dispatch has it. One call tells up to ``max_events``, of which the first waits for
    ``max_wait_s`` at most."""

    form: _Form | None = Field(None, description="full where it is left out.")
    max_events: Annotated[int, _number(100)] = 0
    max_wait_s: Annotated[int, _number(60)] = 0
    with_raw: _Flag = Field(default=False, description="With what the provider sent, in base64.")

    def message(self) -> pb.Payload:
        """As the contract has it."""
        return pb.Payload(
            form=_of(_FORMS, self.form),
            max_events=self.max_events,
            max_wait_s=self.max_wait_s,
            with_raw=self.with_raw,
        )


class PolicyIn(_Input):
    """What is success, and when is tried again. All but ``kind`` is of ``custom``: the seconds from each attempt to the
    next, how long one may take, and whether nothing but 200 is success."""

    kind: _PolicyKind | None = Field(None, description="standard where it is left out.")
    retry_after_s: Annotated[list[Annotated[int, _number(_WEEK_S)]], Field(default=[], max_length=20)]
    timeout_s: Annotated[int, _number(120)] = 0
    only_200: _Flag = False

    def message(self) -> pb.Policy:
        """As the contract has it."""
        return pb.Policy(
            kind=_of(_POLICIES, self.kind),
            retry_after_s=self.retry_after_s,
            timeout_s=self.timeout_s,
            only_200=self.only_200,
        )


class _DefinitionIn(_Input):
    name: _Short = Field("", description="For people.")
    types: Annotated[list[_Short], Field(max_length=1_000, examples=[["message.delivered", "reply.*"]])]
    filter: SubscriptionFilterIn | None = None
    http: HttpDestinationIn | None = None
    mail: MailDestinationIn | None = None
    payload: PayloadIn | None = None
    policy: PolicyIn | None = None
    ordering: _Ordering | None = Field(None, description="none where it is left out.")
    rate_per_s: _Rate = Field(0, description="Calls a second; 0: as many as it bears.")
    concurrency: Annotated[int, _number(64)] = Field(0, description="Calls at once; 0 is 8.")
    alert_addresses: Annotated[
        list[_Short], Field(default=[], max_length=1_000, description="Who is told when Backhaul pauses it.")
    ]

    @model_validator(mode="after")
    def _one_destination(self) -> Self:
        if self.http is not None and self.mail is not None:
            raise ValueError("Input should be one of: http, mail.")
        return self

    def definition(self) -> pb.Definition:
        """As the contract has it."""
        parts = {
            name: part.message()
            for name in ("filter", "http", "mail", "payload", "policy")
            if (part := getattr(self, name)) is not None
        }
        return pb.Definition(
            name=self.name,
            types=self.types,
            ordering=_of(_ORDERINGS, self.ordering),
            rate_per_s=self.rate_per_s,
            concurrency=self.concurrency,
            alert_addresses=self.alert_addresses,
            **parts,
        )


class SubscriptionIn(_DefinitionIn):
    """What to tell, and where: either ``http`` or ``mail``. ``secret`` is one of your own (``whsec_`` and base64 of 24
    to 64 bytes); left out, one is made."""

    secret: _Short = ""

    def request(self, tenant_id: str, key: str) -> pb.CreateSubscriptionRequest:
        """The call, under the Idempotency-Key ``key``."""
        return pb.CreateSubscriptionRequest(
            tenant_id=tenant_id, definition=self.definition(), idempotency_key=key, secret=self.secret
        )


class SubscriptionUpdateIn(_DefinitionIn):
    """What stands in place of the definition that there is. With ``revision`` it does so where nobody has changed it
    since that one."""

    revision: Annotated[int, _number(2**63 - 1)] = 0

    def request(self, tenant_id: str, subscription_id: str) -> pb.UpdateSubscriptionRequest:
        """The call."""
        return pb.UpdateSubscriptionRequest(
            tenant_id=tenant_id, id=subscription_id, definition=self.definition(), revision=self.revision
        )


class ResumeIn(_Input):
    """How fast what waited is sent, in calls a second; 0: as fast as the subscription is."""

    rate_per_s: _Rate = 0


class RotateSecretIn(_Input):
    """What to sign with from now on: a key of this ``kind``, ``secret`` if it is your own (of hmac). For ``grace_s``
    calls are signed with those of its kind before as well; left out, a day. Those of the other kind stay."""

    kind: _SecretKind = "hmac"
    grace_s: Annotated[int, _number(_WEEK_S)] | None = None
    secret: _Short = ""

    def request(self, tenant_id: str, subscription_id: str) -> pb.RotateSecretRequest:
        """The call."""
        return pb.RotateSecretRequest(
            tenant_id=tenant_id,
            id=subscription_id,
            kind=_of(_SECRETS, self.kind),
            grace_s=self.grace_s,
            secret=self.secret,
        )


class TestIn(_Input):
    """Of which type a sample is sent; left out, the first of the subscription's."""

    type: _Short = ""


class RedeliverIn(_Input):
    """What is sent again: deliveries that were made from ``from``, inclusive, to ``to``, exclusive; left out, until
    now. ``failed`` recovers, ``all`` replays, and ``never_attempted`` makes up for what was missed. The rest chooses of
    these, as it does of a list; ``message_id`` needs ``channel`` too."""

    which: _Which
    from_: AwareMoment = Field(alias="from", description="RFC 3339; inclusive.")
    to: AwareMoment | None = Field(None, description="RFC 3339; exclusive.")
    types: Annotated[list[_Short], Field(default=[], max_length=1_000, description="Of these alone.")]
    channel: _Short = ""
    message_id: _Short = ""
    communication: _Short = ""
    event_id: _Short = ""
    rate_per_s: _Rate = Field(0, description="Calls a second; 0: as fast as the subscription is.")
    dry_run: _Flag = Field(default=False, description="Count, and send nothing.")

    def request(self, tenant_id: str, subscription_id: str) -> pb.RedeliverRequest:
        """The call."""
        return pb.RedeliverRequest(
            tenant_id=tenant_id,
            subscription_id=subscription_id,
            which=_of(_WHICH, self.which),
            from_us=microseconds(self.from_),
            to_us=microseconds(self.to),
            types=self.types,
            channel=self.channel,
            message_id=self.message_id,
            communication_id=self.communication,
            event_id=self.event_id,
            rate_per_s=self.rate_per_s,
            dry_run=self.dry_run,
        )


def _of(words: Words, word: str | None) -> Any:
    """The value of a word that was looked at; 0 where it is left out."""
    return words.number(word) if word is not None else 0


@contextmanager
def in_words_of_http(*, of: str = "id", unanswered: str = "") -> Iterator[None]:
    """Around a call of the notifier: what it refuses is named as the request has it, whose path has ``of`` for the id.
    ``unanswered`` tells the caller what it means that nobody can answer."""
    with renamed({**_RENAMED, "id": of}, within="definition.", texts=_TEXTS, unanswered=unanswered):
        yield


_RENAMED = {
    "definition": "body",
    "communication_id": "communication",
    "idempotency_key": "Idempotency-Key",
    "page_size": "limit",
    "from_us": "from",
    "to_us": "to",
}
"""The fields of the contract that have other names in requests."""

_TEXTS = {"from_us": "from", "to_us": "to"}
