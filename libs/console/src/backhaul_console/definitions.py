"""A subscription's definition as a form: what is typed becomes what the API takes, under the API's own names."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
from backhaul_client.notificationmodels import HttpDestination, Subscription

from backhaul_console.forms import Filled, wrong
from backhaul_console.texts import _

FORMS = ("full", "thin", "cloudevents", "spec")
POLICIES = ("standard", "dispatch", "rcs", "custom")
ORDERINGS = ("none", "message", "recipient")
METHODS = ("POST", "GET")
WAYS = ("basic", "bearer_token", "header", "oauth")
"""How an endpoint is shown who calls."""

_SECRET = {
    "basic": ("username", "password"),
    "header": ("name", "value"),
    "oauth": ("token_url", "client_id", "client_secret", "scope", "audience"),
    "mutual_tls": ("certificate", "private_key"),
}
_LISTS = ("channels", "communication_ids", "error_codes", "kinds")
_TO = "destination"
_WAY = "way"


def empty() -> Filled:
    """What a form begins with. Its key has it make one subscription, however often it is sent."""
    return Filled.of(**{_TO: "http", "http.method": "POST", "idempotency_key": uuid4().hex})


def shown(found: Subscription) -> Filled:
    """A subscription that there is, without its secrets: what is secret stays as it is where it is left empty."""
    policy, payload = found.policy, found.payload
    values: dict[str, object] = {
        "revision": found.revision,
        "name": found.name,
        "types": found.types,
        "ordering": found.ordering,
        "rate_per_s": found.rate_per_s,
        "concurrency": found.concurrency,
        "alert_addresses": found.alert_addresses,
        "policy.kind": policy.kind,
        **({"payload.form": payload.form, "payload.max_events": payload.max_events} if payload else {}),
        **({"payload.max_wait_s": payload.max_wait_s} if payload else {}),
        "payload.with_raw": "yes" if payload and payload.with_raw else "",
        "filter.attributes": [f"{one.name}={one.value}" for one in found.filter.attributes],
        **{f"filter.{name}": getattr(found.filter, name) for name in _LISTS},
        _TO: "mail" if found.mail is not None else "http",
    }
    if policy.kind == "custom":
        values |= {
            "policy.retry_after_s": ", ".join(map(str, policy.retry_after_s)),
            "policy.timeout_s": policy.timeout_s,
        }
        values["policy.only_200"] = "yes" if policy.only_200 else ""
    if found.mail is not None:
        values |= {"mail.addresses": found.mail.addresses, "mail.every_minutes": found.mail.every_minutes}
    if found.http is not None:
        values |= _shown_endpoint(found.http)
    return Filled.of(**values)


def holds(found: Subscription) -> bool:
    """Whether the form can hold all of a subscription: what it could not, saving it would lose."""
    again = typed(shown(found))
    was: dict[str, Any] = msgspec.json.decode(msgspec.json.encode({name: getattr(found, name) for name in again}))
    known: dict[tuple[str, ...], str | None] = {POLICIES: found.policy.kind, ORDERINGS: found.ordering}
    known[FORMS] = found.payload.form if found.payload is not None else None
    known[METHODS] = found.http.method if found.http is not None else None
    if any(word is not None and word not in words for words, word in known.items()):
        return False
    if was["policy"]["kind"] != "custom":
        was["policy"] = {"kind": was["policy"]["kind"]}
    was["filter"] = {name: given for name, given in was["filter"].items() if given}
    if was["http"] is not None and was["http"]["credentials"] is not None:
        credentials = was["http"]["credentials"]
        was["http"]["credentials"] = {way: part for way, part in credentials.items() if part is not None} or None
    return was == again


def _shown_endpoint(http: HttpDestination) -> dict[str, object]:
    headers = [f"{one.name}: {one.value}" for one in http.headers]
    values: dict[str, object] = {"http.method": http.method, "http.url": http.url, "http.headers": headers}
    credentials = http.credentials
    if credentials is None:
        return values
    values[_WAY] = next((way for way in WAYS if getattr(credentials, way) is not None), "")
    for way, names in _SECRET.items():
        part = getattr(credentials, way)
        if part is not None:
            values |= {f"http.credentials.{way}.{name}": getattr(part, name) for name in names}
    return values


def typed(form: Filled) -> dict[str, Any]:
    """What the client's ``create`` and ``replace`` take; raises as the API would for what it cannot even be told."""
    custom = form["policy.kind"] == "custom"
    policy: dict[str, Any] = {"kind": form["policy.kind"] or "standard"}
    if custom:
        policy |= {
            "retry_after_s": _numbers(form, "policy.retry_after_s"),
            "timeout_s": form.number("policy.timeout_s"),
            "only_200": bool(form["policy.only_200"]),
        }
    mail = form[_TO] == "mail"
    return {
        "types": form.lines("types"),
        "name": form["name"],
        "mail": _mail(form) if mail else None,
        "http": None if mail else _http(form),
        "filter": _filter(form),
        "payload": None if mail else _payload(form),
        "policy": policy,
        "ordering": form["ordering"],
        "rate_per_s": form.number("rate_per_s"),
        "concurrency": form.number("concurrency"),
        "alert_addresses": form.lines("alert_addresses"),
    }


def _mail(form: Filled) -> dict[str, Any]:
    return {"addresses": form.lines("mail.addresses"), "every_minutes": form.number("mail.every_minutes")}


def _payload(form: Filled) -> dict[str, Any]:
    return {
        "form": form["payload.form"] or "full",
        "max_events": form.number("payload.max_events"),
        "max_wait_s": form.number("payload.max_wait_s"),
        "with_raw": bool(form["payload.with_raw"]),
    }


def _filter(form: Filled) -> dict[str, Any]:
    filled: dict[str, Any] = {name: lines for name in _LISTS if (lines := form.lines(f"filter.{name}"))}
    if attributes := _pairs(form, "filter.attributes", "=", _("Write name=value.")):
        filled["attributes"] = attributes
    return filled


def _http(form: Filled) -> dict[str, Any]:
    credentials: dict[str, Any] = {}
    way = form[_WAY]
    if way == "bearer_token":
        credentials[way] = form["http.credentials.bearer_token"]
    elif way in _SECRET:
        credentials[way] = {name: form[f"http.credentials.{way}.{name}"] for name in _SECRET[way]}
    if form["http.credentials.mutual_tls.certificate"]:
        names = _SECRET["mutual_tls"]
        credentials["mutual_tls"] = {name: form.raw(f"http.credentials.mutual_tls.{name}") for name in names}
    return {
        "method": form["http.method"] or "POST",
        "url": form["http.url"],
        "headers": _pairs(form, "http.headers", ":", _("Write Name: value.")),
        "credentials": credentials or None,
    }


def _pairs(form: Filled, name: str, between: str, fix: str) -> list[dict[str, str]]:
    return [_pair(name, line, between, fix) for line in form.lines(name)]


def _pair(field: str, line: str, between: str, fix: str) -> dict[str, str]:
    name, found, value = line.partition(between)
    if not found:
        raise wrong(field, _("A line has no %s.") % between, fix)
    return {"name": name.strip(), "value": value.strip()}


def _numbers(form: Filled, name: str) -> list[int]:
    return [Filled({name: [part]}).number(name) for part in form[name].replace(",", " ").split()]
