"""Says, once each time, that a tenant has as many open dead letters as it may have.

All of it is part of the transaction that files the letters: that the quota is reached, that it was said, and the notice
in the outbox. Two copies of the service that reach it together write one document, so one of them sees that the other
said it.
"""

from __future__ import annotations

from collections.abc import Sequence

from backhaul_common import mongo, outbox
from backhaul_common.documents import Document
from backhaul_common.names import DEAD_LETTERS_COLLECTION, NORMALIZER_OUTBOX, QUOTAS_COLLECTION
from backhaul_common.notices import entry, notice_id
from backhaul_proto.callback.v1.callback_pb2 import Callback
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.notice.v1.notice_pb2 import About, Notice

from backhaul_normalizer.model import Fill

FULL = "dead_letters.full"

ROOMY = 0.9
"""The quota counts as left when no more than this part of it is open. Otherwise a tenant who closes and fills its last
place would be told each time."""


class Telling:
    """One transaction's part of it: made before the dead letters are filed, and told when they are."""

    def __init__(self, database: mongo.ThreadDatabase, session: mongo.Session, fills: Sequence[Fill]) -> None:
        self._database = database
        self._session = session
        self._quotas = [self._quota(fill) for fill in fills]

    def tell(self) -> None:
        """Note which quotas are reached or left, and write a notice for each that was not reached before."""
        for fill, known, said in self._quotas:
            reached = said or self._has(fill, fill.after, fill.most)
            times = known.get("times", 0) + (reached and not said)
            if reached != known.get("reached", False) or times != known.get("times", 0):
                registration = fill.first.registration
                self._database[QUOTAS_COLLECTION].replace_one(
                    {"_id": registration},
                    {"registration": registration, "reached": reached, "times": times},
                    upsert=True,
                    session=self._session,
                )
            if reached and not said:
                notice = entry(_notice(fill, times), fill.first.path)
                outbox.write(self._database, self._session, NORMALIZER_OUTBOX, [notice])

    def _quota(self, fill: Fill) -> tuple[Fill, Document, bool]:
        """What is known of the quota, and whether it is reached already and that was said."""
        query = {"_id": fill.first.registration}
        known = self._database[QUOTAS_COLLECTION].find_one(query, session=self._session) or {}
        said = known.get("reached", False) and (
            fill.before > ROOMY * fill.most or self._has(fill, fill.most, int(ROOMY * fill.most) + 1)
        )
        return fill, known, said

    def _has(self, fill: Fill, estimate: int, least: int) -> bool:
        """Whether ``least`` letters are open. They are counted where the ``estimate`` of it says so.

        An estimate may be too high: letters that are filed anew are counted in it as often as they come.
        """
        if estimate < least:
            return False
        query = {"registration": fill.first.registration, "state": "open"}
        letters = self._database[DEAD_LETTERS_COLLECTION]
        return letters.count_documents(query, limit=least, session=self._session) >= least


def _notice(fill: Fill, times: int) -> Notice:
    tenant, registration, _ = fill.owner
    return Notice(
        id=notice_id(registration, FULL, str(times)),
        tenant_id=tenant,
        registration=registration,
        type=FULL,
        occurred_at_us=fill.first.seen_at_us,
        about=About(channel=fill.first.channel),
        text=f"{fill.most} dead letters are open. Further ones are not kept one by one, but counted in one of each "
        "channel. Replay or discard some.",
        attributes=[Attribute(name="most", value=str(fill.most))],
        traceparent=Callback.FromString(fill.first.callback).traceparent,
    )
