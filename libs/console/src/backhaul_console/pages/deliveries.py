"""What a tenant's own application was told, what became of each attempt, and once more."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from backhaul_client import AsyncRows, BackhaulError, NotFoundError, ProblemError
from backhaul_client.notificationmodels import Delivery, Subscription
from starlette.responses import Response

from backhaul_console.asking import asks
from backhaul_console.filtering import listed
from backhaul_console.forms import Filled
from backhaul_console.texts import _, counted
from backhaul_console.visits import Page, Visit

STATES = ("waiting", "held", "delivered", "failed")
_TEXTS = ("subscription_id", "state", "type", "event_id", "channel", "message_id", "communication", "reason")
_MANY = ("type", "event_id", "channel", "message_id", "communication", "from", "to")
"""Filters that sending many again has as well."""
_QUERY = (*_TEXTS, "undelivered", "never_attempted", "from", "to")
_MAX_AT_ONCE = 50
_MAX_ANSWER = 1_000
"""Characters of an answer, but for the latest: there are up to 30, of 4 KB each."""
_MAX_SUBSCRIPTIONS = 100
"""So many are offered to choose of, and named."""


async def _list(visit: Visit) -> Response:
    def asked(*, undelivered: str = "", never_attempted: str = "", **filters: Any) -> AsyncRows[Delivery]:
        # A box that is ticked is a text in the address.
        return visit.api.deliveries.list(
            undelivered=bool(undelivered), never_attempted=bool(never_attempted), **filters
        )

    found = await listed(visit, _QUERY, asked, page_size=_MAX_AT_ONCE)
    form = found.form
    names = {one.id: one.name or one.id for one in await _subscriptions(visit)}
    if form["subscription_id"]:
        names.setdefault(form["subscription_id"], form["subscription_id"])
    query = {name: form[name] for name in _QUERY} | {"cursor": visit.query.get("cursor", "")}
    values = {"form": form, "found": found, "rows": found.rows, "names": names, "query": query}
    return visit.page("deliveries/list.html", status=form.status, **values, states=STATES, many=_many(form))


async def _subscriptions(visit: Visit) -> list[Subscription]:
    """Those to choose of; none where the notifier says nothing, since what was asked for says so already."""
    try:
        found = await visit.first(visit.api.subscriptions.list(page_size=_MAX_SUBSCRIPTIONS))
    except BackhaulError:
        return []
    return [*found.rows]


def _many(form: Filled) -> dict[str, str] | None:
    """How all that the filters show would be sent again; None where a subscription cannot be asked for just these."""
    state, never = form["state"], bool(form["never_attempted"])
    if not form["subscription_id"] or form["reason"] or form["undelivered"] or state not in ("", "failed"):
        return None
    if never and state:
        return None
    which = "never_attempted" if never else state or "all"
    return {"which": which, **{"types" if name == "type" else name: form[name] for name in _MANY}}


async def _one(visit: Visit) -> Response:
    delivery = await visit.api.deliveries.get(visit.request.path_params["id"])
    return visit.page("deliveries/one.html", delivery=delivery, cut=_MAX_ANSWER)


async def _again(visit: Visit) -> Response:
    delivery_id = visit.request.path_params["id"]
    await visit.api.deliveries.redeliver(delivery_id)
    return visit.to(f"/deliveries/{delivery_id}", said="sent-again")


async def _asking(visit: Visit) -> Response:
    form = await visit.filled()
    ids = _ids(form)
    text = counted(
        "%(num)d delivery is sent again, whatever became of it, under the webhook-id that it had.",
        "%(num)d deliveries are sent again, whatever became of them, each under the webhook-id that it had.",
        len(ids),
    ) % {"num": len(ids)}
    more = _("Whoever has seen one knows it by that, and drops it.")
    return asks(
        visit,
        _("Send these again"),
        text,
        more,
        action="/deliveries/again/now" if ids else "",
        fields=[("ids", " ".join(ids)), *_shown_by(form)],
        label=_("Send again"),
        kind="primary",
        back=_back(form),
    )


async def _all_again(visit: Visit) -> Response:
    form = await visit.filled()
    ids, sent = _ids(form), 0
    for number, one in enumerate(ids):
        try:
            await visit.api.deliveries.redeliver(one)
        except NotFoundError:
            continue  # Its subscription was deleted meanwhile.
        except BackhaulError as exc:
            if not sent:
                raise
            return _broke_off(visit, form, sent, ids[number:], exc)
        sent += 1
    return visit.to("/deliveries", said="sent-again", **dict(_shown_by(form)))


def _broke_off(visit: Visit, form: Filled, sent: int, left: list[str], error: BackhaulError) -> Response:
    """How many were sent, why the others were not, and a form for these."""
    problem = error if isinstance(error, ProblemError) else None
    answer = asks(
        visit,
        _("Not all of these were sent again"),
        problem.detail if problem else _("The API did not answer."),
        figures=[(_("Sent again"), sent), (_("Not sent"), len(left))],
        action="/deliveries/again/now",
        fields=[("ids", " ".join(left)), *_shown_by(form)],
        label=_("Send the others"),
        kind="primary",
        back=_back(form),
    )
    answer.status_code = problem.status if problem else 503
    return answer


def _ids(form: Filled) -> list[str]:
    return [*dict.fromkeys(form["ids"].split())][:_MAX_AT_ONCE]


def _shown_by(form: Filled) -> list[tuple[str, str]]:
    """What the list was asked for, and its page."""
    return [(name, form[name]) for name in (*_QUERY, "cursor") if form[name]]


def _back(form: Filled) -> str:
    return "/deliveries?" + urlencode(_shown_by(form))


ROUTES = (
    Page("GET", "/deliveries", _list),
    Page("POST", "/deliveries/again", _asking),
    Page("POST", "/deliveries/again/now", _all_again),
    Page("GET", "/deliveries/{id}", _one),
    Page("POST", "/deliveries/{id}/again", _again),
)
