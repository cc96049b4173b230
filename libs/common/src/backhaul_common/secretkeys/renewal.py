"""Documents in which secrets are kept, and how those are encrypted anew while others change them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backhaul_proto.secretkeys.v1 import secretkeys_pb2 as pb

from backhaul_common import mongo
from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.pauses import pauses
from backhaul_common.secrets import SecretBox
from backhaul_common.store_format import StoreFormat

MAX_DOCUMENTS = 100
"""Documents that a call looks at."""

MAX_CALL_S = 2.0
"""After so long a call begins no other document: it is answered well before whoever asks gives up."""

MAX_UNREADABLE = 1000
"""Likewise with so many that cannot be decrypted: an answer has a bound."""

PATIENCE_S = 1.0
"""For how long a document is tried again that others change at the same time."""

_FIRST_PAUSE_S = 0.005
_MAX_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Kept:
    """Documents in which secrets are kept.

    ``fields`` are where in a document, ``*`` standing for every name of an object and every place of a list. ``box`` is
    what they are encrypted with, ``tenant`` says whose a document is, from what it has of ``whose``. ``where`` finds
    them. ``revised``: whoever else changes a document writes it whole if it still has its revision, so that must grow.
    """

    rows: mongo.Collection
    box: SecretBox
    fields: Sequence[str]
    tenant: Callable[[Document], str]
    whose: Sequence[str] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    revised: bool = False

    @property
    def read(self) -> Document:
        """What is read of a document."""
        return dict.fromkeys(("revision", *self.whose, *(name.partition(".")[0] for name in self.fields)), 1)


class _Look:
    """What is found in a document, and made of it."""

    def __init__(self, box: SecretBox) -> None:
        self.current = self.older = 0
        self.unreadable: list[str] = []
        self._box = box

    def of(self, document: Document, fields: Sequence[str]) -> Document:
        """The document's uppermost fields that change, with their new values."""
        after = dict(document)
        for name in fields:
            first, *rest = name.split(".")
            if first in after:
                after[first] = self._within(after[first], rest, first)
        return {name: value for name, value in after.items() if value != document[name]}

    def _within(self, value: Any, rest: Sequence[str], place: str) -> Any:
        if not rest:
            return self._renewed(value, place) if isinstance(value, str) and value else value
        first, *others = rest
        if isinstance(value, dict):
            names = list(value) if first == "*" else [first] if first in value else []
            return value | {name: self._within(value[name], others, f"{place}.{name}") for name in names}
        if isinstance(value, list) and first == "*":
            return [self._within(one, others, f"{place}.{number}") for number, one in enumerate(value)]
        return value

    def _renewed(self, secret: str, place: str) -> str:
        try:
            renewed = self._box.renewed(secret)
        except ValueError:
            self.unreadable.append(place)
            return secret
        if renewed == secret:
            self.current += 1
        else:
            self.older += 1
        return renewed


class SecretRenewal:
    """Looks at all that a service keeps, some documents a call, and encrypts anew what is not under the first key.

    Nothing is remembered between calls: what a secret is under tells what is left to do. So a call that was cut short
    is made good by the next one, and several at once do no harm.
    """

    def __init__(self, box: SecretBox, store_format: StoreFormat, kept: Sequence[Kept]) -> None:
        """``box`` is the ring itself, from which those of ``kept`` are derived."""
        self._key_id = box.key_id
        self._format = store_format
        self._kept = kept

    async def some(self, asked: pb.RenewSecretsRequest) -> pb.RenewSecretsResponse:
        """See RenewSecrets of the contract. UNAVAILABLE too."""
        if asked.key_id != self._key_id:
            raise BackhaulError(
                Code.FAILED_PRECONDITION,
                f"The first key here is {self._key_id}, and not {asked.key_id[:64]!r}.",
                field="key_id",
                fix="Give all copies the same BACKHAUL_SECRET_KEYS, in the same order, and restart them.",
            )
        begin, after = self._position(asked.after)
        await self._format.ensure()
        answer = pb.RenewSecretsResponse()
        ends, left = time.monotonic() + MAX_CALL_S, MAX_DOCUMENTS
        for number, kept in list(enumerate(self._kept))[begin:]:
            for document in await self._read(kept, after, left):
                await self._renew(kept, document, answer, look=asked.look)
                left -= 1
                if not left or len(answer.unreadable) >= MAX_UNREADABLE or time.monotonic() > ends:
                    answer.next = f"{number}/{document['_id']}"
                    return answer
            after = ""
        return answer

    def _position(self, token: str) -> tuple[int, str]:
        number, _, after = token.partition("/")
        if not token:
            return 0, ""
        if not (number.isascii() and number.isdigit() and len(number) < 4 and int(number) < len(self._kept)):
            raise BackhaulError(
                Code.INVALID_ARGUMENT,
                "That is no place to go on from.",
                field="after",
                fix="Pass what the answer before gave, or nothing.",
            )
        return int(number), after

    async def _read(self, kept: Kept, after: str, most: int) -> list[Document]:
        conditions = {"$and": [dict(kept.where), {"_id": {"$gt": after}}]}
        async with mongo.operation():
            found = kept.rows.find(conditions, kept.read).sort("_id", 1).limit(most)
            return await found.to_list(most)

    async def _renew(self, kept: Kept, document: Document, answer: pb.RenewSecretsResponse, *, look: bool) -> None:
        """Look at one document, and add what is found to ``answer``."""
        give_up_at = time.monotonic() + PATIENCE_S
        for pause_s in pauses(_FIRST_PAUSE_S, _MAX_PAUSE_S, spread=0.5):
            found = _Look(kept.box)
            # In a thread, since a tenant may have hundreds of secrets and others wait for the event loop.
            values = await asyncio.to_thread(found.of, document, kept.fields)
            if look or not values:
                break
            if await self._written(kept, document, values):
                answer.renewed += found.older
                found.older = 0
                break
            if time.monotonic() + pause_s > give_up_at:
                break
            await asyncio.sleep(pause_s)
            # Somebody else changed it meanwhile, or deleted it. What they wrote counts.
            async with mongo.operation():
                again = await kept.rows.find_one({"_id": document["_id"]}, kept.read)
            if again is None:
                return
            document = again
        answer.current += found.current
        answer.older += found.older
        for place in found.unreadable:
            tenant_id, id_ = kept.tenant(document), str(document["_id"])
            answer.unreadable.add(tenant_id=tenant_id, id=id_, field=place)

    async def _written(self, kept: Kept, document: Document, values: Document) -> bool:
        """Whether ``values`` were written, in place of those that were read and no others."""
        same = {"_id": document["_id"], **{name: document[name] for name in values}}
        update: Document = {"$set": values}
        if kept.revised:
            same["revision"] = document.get("revision")
            update["$inc"] = {"revision": 1}
        async with mongo.operation():
            return (await kept.rows.update_one(same, update)).matched_count == 1
