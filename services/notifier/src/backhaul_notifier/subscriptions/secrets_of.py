"""Secrets of subscriptions at rest: credentials and signing keys, each bound to its subscription and its place there.

What is encrypted begins with that place, so a text that is moved to another field or another subscription opens
nothing. Opening names no secret in what it raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.names import SUBSCRIPTIONS_COLLECTION
from backhaul_common.secretkeys import Kept
from backhaul_common.secrets import SecretBox
from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.model import StoredSecret, Subscription
from backhaul_notifier.signing import SecretKind, SigningKey, active, parse_key

_PURPOSE = "subscriptions"


@dataclass(frozen=True, slots=True)
class _Place:
    """A secret field: of ``owner`` within credentials, where that is there. ``shown``: a call shows it."""

    owner: str
    name: str
    shown: bool = True

    def of(self, credentials: Any) -> Any:
        """The message that has the field; None where there is none."""
        if not credentials.HasField(self.owner or self.name):
            return None
        return getattr(credentials, self.owner) if self.owner else credentials


_PLACES = (
    _Place("basic", "password"),
    _Place("", "bearer_token"),
    _Place("header", "value"),
    _Place("oauth", "client_secret"),
    _Place("mutual_tls", "private_key", shown=False),
)


class Seals:
    """Encrypts what is secret of subscriptions, and opens it again."""

    def __init__(self, box: SecretBox) -> None:
        self._box = box.of(_PURPOSE)

    def sealed(self, id_: str, place: str, plain: str) -> str:
        """``plain``, encrypted, for this place of the subscription ``id_``."""
        return self._box.encrypt(f"{id_}\n{place}\n{plain}")

    def unsealed(self, id_: str, place: str, sealed: str) -> str:
        """The text that was sealed. ValueError where it was so for another place, or no key fits."""
        begin = f"{id_}\n{place}\n"
        plain = self._box.decrypt(sealed)
        if not plain.startswith(begin):
            raise ValueError("the secret is not of this place")
        return plain.removeprefix(begin)

    def sealed_definition(self, id_: str, definition: pb.Definition) -> pb.Definition:
        """A copy of ``definition`` whose secrets are encrypted."""
        return _changed(definition, lambda place, text: self.sealed(id_, place, text))

    def unsealed_definition(self, id_: str, definition: pb.Definition) -> pb.Definition:
        """A copy of a stored ``definition`` whose secrets are plain. ValueError as ``unsealed``."""
        return _changed(definition, lambda place, text: self.unsealed(id_, place, text))

    def credentials(self, subscription: Subscription) -> pb.Credentials:
        """The credentials of its HTTP destination, plain; empty where it has none. ValueError as ``unsealed``."""
        return self.unsealed_definition(subscription.id, subscription.definition).http.credentials

    def sealed_key(self, id_: str, key: SigningKey) -> StoredSecret:
        """``key`` as it is stored."""
        sealed = self.sealed(id_, f"secrets.{key.kind}", key.text)
        return StoredSecret(str(key.kind), sealed, key.public_text, key.created_at_us, key.expires_at_us)

    def key(self, id_: str, stored: StoredSecret) -> SigningKey:
        """The key that was stored. ValueError as ``unsealed``."""
        kind = SecretKind(stored.kind)
        plain = parse_key(self.unsealed(id_, f"secrets.{kind}", stored.secret), stored.created_at_us)
        return SigningKey(kind, plain.secret, stored.created_at_us, stored.expires_at_us)

    def keys(self, subscription: Subscription, now_us: int) -> Sequence[SigningKey]:
        """The keys that sign now, newest first. ValueError as ``unsealed``."""
        return active((self.key(subscription.id, stored) for stored in subscription.secrets), now_us)


def blank(definition: pb.Definition) -> pb.Definition:
    """A copy without secrets, as it is answered: the fields are there, and empty."""
    return _changed(definition, lambda _place, _text: "")


def with_kept(definition: pb.Definition, before: pb.Definition) -> pb.Definition:
    """A copy in which what is secret and empty is as in ``before``, where that shows itself in the same way.

    INVALID_ARGUMENT names each that calls would show to another server than the one it was given for: whoever may
    write a subscription could read its secrets otherwise.
    """
    made = pb.Definition()
    made.CopyFrom(definition)
    wrong = []
    for place, holder in _secrets(made):
        kept = place.of(before.http.credentials) if before.HasField("http") else None
        if kept is None or getattr(holder, place.name) or not getattr(kept, place.name):
            continue
        if place.shown and _servers(made) != _servers(before):
            field = ".".join(filter(None, ("definition.http.credentials", place.owner, place.name)))
            message = "The address is that of another server, and what is stored was given for the one before."
            wrong.append(Violation(field, message, "Pass it again, or leave scheme, host and port as they were."))
        setattr(holder, place.name, getattr(kept, place.name))
    if wrong:
        raise BackhaulError(Code.INVALID_ARGUMENT, "The definition is not valid.", violations=wrong)
    return made


def _servers(definition: pb.Definition) -> tuple[str, str]:
    """Scheme, host and port of whom a secret is shown to: of the endpoint, and of the server that gives tokens."""
    return _origin(definition.http.url), _origin(definition.http.credentials.oauth.token_url)


def _origin(url: str) -> str:
    """As it is spelled, but for its case: what is spelled otherwise counts as another one."""
    scheme, _, rest = url.lower().partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}"


def document_of(stored: StoredSecret) -> Document:
    """A signing key as ``documents`` has it."""
    row: Document = {"kind": stored.kind, "secret": stored.secret, "created_at_us": stored.created_at_us}
    if stored.public_key:
        row["public_key"] = stored.public_key
    if stored.expires_at_us:
        row["expires_at_us"] = stored.expires_at_us
    return row


def _changed(definition: pb.Definition, change: Callable[[str, str], str]) -> pb.Definition:
    """A copy in which ``change`` made every secret that is not empty another text."""
    made = pb.Definition()
    made.CopyFrom(definition)
    for place, holder in _secrets(made):
        text = getattr(holder, place.name)
        if text:
            setattr(holder, place.name, change(f"credentials.{place.owner or place.name}", text))
    return made


def _secrets(definition: pb.Definition) -> Iterator[tuple[_Place, Any]]:
    """The secret fields that there are, and the messages that have them."""
    if not definition.HasField("http") or not definition.http.HasField("credentials"):
        return
    for place in _PLACES:
        holder = place.of(definition.http.credentials)
        if holder is not None:
            yield place, holder


def of_subscriptions(database: mongo.Database, box: SecretBox) -> Kept:
    """What is encrypted of subscriptions. Their revision stays: whoever changes one encrypts anew what it writes."""
    places = (".".join(filter(None, ("definition.http.credentials", one.owner, one.name))) for one in _PLACES)
    fields = (*places, "secrets.*.secret", "made_of")
    return Kept(database[SUBSCRIPTIONS_COLLECTION], box.of(_PURPOSE), fields, itemgetter("tenant"), whose=["tenant"])
