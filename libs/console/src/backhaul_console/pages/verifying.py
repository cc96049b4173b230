"""What takes its time: verifying audit files, and recounting a communication. The page tells how far it is, without
JavaScript as well."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from backhaul_client.auditmodels import AuditRecount, AuditVerification
from starlette.responses import Response

from backhaul_console.forms import MISTYPED
from backhaul_console.pages.audits import chain_of
from backhaul_console.streaming import streamed_page
from backhaul_console.visits import Page, Visit

MAX_FINDINGS = 300
"""On a page: whoever has more of them has another question than which."""
_TOLD_EVERY_S = 5.0


class _Pace:
    """Lets through how far something is, at most every five seconds: a page keeps each piece of what it is sent."""

    def __init__(self) -> None:
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time to tell again."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _TOLD_EVERY_S
        return True


async def _verify(visit: Visit) -> Response:
    form = visit.asked
    if not form["run"]:
        return visit.page("audits/verify.html", form=form, stream="")
    try:
        told = visit.api.verify_audits(
            from_=form.moment("from"), to=form.moment("to"), chain=chain_of(visit), heads=form["heads"].split()
        )
        return await streamed_page(visit, "audits/verify.html", _verified(_said(visit), told), form=form)
    except MISTYPED as exc:
        form = form.refused(exc)
        return visit.page("audits/verify.html", status=form.status, form=form, stream="")


async def _verified(said: Any, told: AsyncIterator[AuditVerification]) -> AsyncGenerator[str, None]:
    pace, invalid = _Pace(), 0
    async for one in told:
        for finding in one.findings:
            if finding.valid:
                continue
            invalid += 1
            if invalid <= MAX_FINDINGS:
                yield said.finding(finding)
        if one.done:
            yield said.verified(one, invalid, max(0, invalid - MAX_FINDINGS))
        elif pace.due():
            yield said.checked(one)


async def _recount(visit: Visit) -> Response:
    communication_id = visit.query.get("communication_id", "").strip()
    if not communication_id:
        return visit.page("audits/recount.html", communication_id="", stream="")
    told = visit.api.recount_communication(communication_id)
    rows = _recounted(visit, told)
    return await streamed_page(visit, "audits/recount.html", rows, communication_id=communication_id)


async def _recounted(visit: Visit, told: AsyncIterator[AuditRecount]) -> AsyncGenerator[str, None]:
    pace, said = _Pace(), _said(visit)
    async for one in told:
        if one.done:
            yield visit.templates.get_template("audits/recounted.html").render(visit=visit, recount=one)
        elif pace.due():
            yield said.counted(one)


def _said(visit: Visit) -> Any:
    return visit.templates.get_template("audits/streamed.html").module


ROUTES = (
    Page("GET", "/audits/verify", _verify),
    Page("GET", "/audits/recount", _recount),
)
