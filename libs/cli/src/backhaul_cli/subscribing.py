"""What a subscription is made of: a document, options over it, and secrets that are in neither."""

from __future__ import annotations

import copy
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from backhaul_cli.documents import object_of
from backhaul_cli.failing import FailedError
from backhaul_cli.options import secret

Definition = dict[str, Any]

_PARTS: dict[str, type] = {
    "types": list,
    "name": str,
    "filter": dict,
    "http": dict,
    "mail": dict,
    "payload": dict,
    "policy": dict,
    "ordering": str,
    "rate_per_s": int,
    "concurrency": int,
    "alert_addresses": list,
}
FIELDS = tuple(_PARTS)
"""What whoever makes one says of it."""
_KINDS = {list: "a list", str: "a text", dict: "an object", int: "a whole number"}
_TOLD = ("id", "state", "state_text", "state_since", "created_at", "updated_at", "secrets", "standing")
"""What Backhaul alone says of one; a document may repeat it."""
_EXAMPLE = "backhaul subscriptions show ID --json writes such a document."
ENDPOINT_SECRET = "BACKHAUL_ENDPOINT_SECRET"  # noqa: S105  # the name of a variable
SIGNING_SECRET = "BACKHAUL_SIGNING_SECRET"  # noqa: S105  # likewise


class _Flag(NamedTuple):
    """An option, and the field of the definition that it sets."""

    option: str
    field: str
    of: Any
    metavar: str | None
    help: str


_FLAGS = (
    _Flag("--type", "types", list[str], "TYPE", "What is told: message.failed, reply.* or *, say. May be repeated."),
    _Flag("--url", "http.url", str, "URL", "The endpoint that is called; ${event.…} stands for what is told."),
    _Flag("--method", "http.method", str, "METHOD", "POST, or GET of the payload spec."),
    _Flag("--header", "http.headers", list[str], "NAME=VALUE", "A header that is no secret. May be repeated."),
    _Flag("--mail", "mail.addresses", list[str], "ADDRESS", "Who is told by a digest, and no endpoint. Repeatable."),
    _Flag("--every", "mail.every_minutes", int, "MINUTES", "A digest is of so many minutes."),
    _Flag("--name", "name", str, "NAME", "What you call it."),
    _Flag("--channel", "filter.channels", list[str], "LABEL", "Of this channel alone. May be repeated."),
    _Flag("--communication", "filter.communication_ids", list[str], "ID", "Of this communication alone. Repeatable."),
    _Flag("--error-code", "filter.error_codes", list[str], "CODE", "With this error code alone. May be repeated."),
    _Flag("--attribute", "filter.attributes", list[str], "NAME=VALUE", "With this attribute alone. May be repeated."),
    _Flag("--kind", "filter.kinds", list[str], "KIND", "Of this kind alone, within the types. May be repeated."),
    _Flag("--payload", "payload.form", Literal["full", "thin", "cloudevents", "spec"], None, "What is sent."),
    _Flag("--max-events", "payload.max_events", int, "N", "So many events in a call at most."),
    _Flag("--max-wait", "payload.max_wait_s", int, "SECONDS", "For so long a call waits until it has as many."),
    _Flag("--raw/--no-raw", "payload.with_raw", bool, None, "With what the provider sent."),
    _Flag(
        "--policy", "policy.kind", Literal["standard", "dispatch", "rcs", "custom"], None, "When is tried once more."
    ),
    _Flag("--retry-after", "policy.retry_after_s", list[int], "SECONDS", "Of custom: tried so much later. Repeatable."),
    _Flag("--timeout", "policy.timeout_s", int, "SECONDS", "Of custom: an attempt takes no longer."),
    _Flag("--only-200/--any-2xx", "policy.only_200", bool, None, "Of custom: what is success."),
    _Flag("--ordering", "ordering", Literal["none", "message", "recipient"], None, "Of what is told in its order."),
    _Flag("--rate", "rate_per_s", int, "N", "So many calls a second at most; 0 is no bound."),
    _Flag("--concurrency", "concurrency", int, "N", "So many calls at once."),
    _Flag("--alert", "alert_addresses", list[str], "ADDRESS", "Who hears that it was paused. May be repeated."),
    _Flag("--basic", "basic", str, "USERNAME", "HTTP Basic; the password is asked for, or read."),
    _Flag("--bearer", "bearer", bool, None, "A bearer token, which is asked for, or read."),
    _Flag("--credential-header", "credential_header", str, "NAME", "A header that is one; it is asked for, or read."),
    _Flag("--credentials", "credentials", str, "FILE", "JSON: basic, bearer_token, header, oauth, mutual_tls."),
)
_SHOWING = ("basic", "bearer", "credential_header", "credentials")
"""How the endpoint is shown who calls. Their secrets are no options."""


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with all of the options above, which it takes as ``**given``, by their fields, None where one was
    not said."""
    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    flags = [
        inspect.Parameter(
            one.field.replace(".", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[one.of | None, typer.Option(one.option, metavar=one.metavar, help=one.help)],
        )
        for one in _FLAGS
    ]
    arguments = [one for one in own if one.default is one.empty]
    options = [one.replace(kind=one.KEYWORD_ONLY) for one in own if one.default is not one.empty]
    made = [*arguments, *flags, *options]
    command.__signature__ = signature.replace(parameters=made)  # type: ignore[attr-defined]  # what typer reads
    command.__annotations__ = {one.name: one.annotation for one in made}
    return command


def read(file: str) -> Definition:
    """The document in ``file``, or on standard input where that is ``-``, without what Backhaul alone says."""
    text = sys.stdin.read() if file == "-" else Path(file).read_text()
    found = object_of(file, text, _EXAMPLE)
    if unknown := sorted(found.keys() - {*FIELDS, *_TOLD, "revision"}):
        raise FailedError(f"{file}: {unknown[0]} is no field of a subscription.", f"It has {', '.join(FIELDS)}.")
    # Null says nothing. What lies deeper is the gateway's to refuse.
    said = {name: value for name, value in found.items() if name not in _TOLD and value is not None}
    for name, kind in {**_PARTS, "revision": int}.items():
        _check(file, name, said.get(name), kind)
    _check(file, "http.credentials", said.get("http", {}).get("credentials"), dict)
    return said


def _check(file: str, name: str, value: object, kind: type) -> None:
    # A truth is a whole number to Python alone.
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise FailedError(f"{file}: {name} is not {_KINDS[kind]}.", _EXAMPLE)


def unknown(there: Definition, known: Definition) -> str:
    """The first setting of a subscription, as it is told, of which nothing is ``known``; empty where there is none.
    What Backhaul alone says, and null, is no setting."""
    settings = {name: value for name, value in there.items() if name not in _TOLD}
    return next(_unknown(settings, known), "")


def _unknown(there: object, known: object) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(known, dict):
        for name, value in there.items():
            if name not in known:
                yield from [name] if value is not None else []
            else:
                yield from (f"{name}{'' if inner[0] == '[' else '.'}{inner}" for inner in _unknown(value, known[name]))
    elif isinstance(there, list) and isinstance(known, list | tuple):
        for number, (one, other) in enumerate(zip(there, known, strict=True)):
            yield from (f"[{number}].{inner}" for inner in _unknown(one, other))


def defined(base: Definition, given: Mapping[str, Any], *, read_before: bool) -> Definition:
    """``base`` with what was ``given`` by options. An empty text takes away what there is; a list takes the place of
    the one before. ``read_before``: standard input is read already, so that no secret can be."""
    made: Definition = copy.deepcopy(base)
    for flag in _FLAGS:
        value = given[flag.field.replace(".", "_")]
        if value is None or flag.field in _SHOWING:
            continue
        if isinstance(value, list):
            value = [one for one in value if one != ""]
            if flag.metavar == "NAME=VALUE":
                value = [_pair(flag.option, one) for one in value]
        *parts, last = flag.field.split(".")
        place = made
        for part in parts:
            place[part] = place.get(part) or {}
            place = place[part]
        place[last] = value
    # Of a kind with a schedule of its own, the one before is no part.
    if given["policy_kind"] not in (None, "custom"):
        said = {name.removeprefix("policy_"): given[name] for name in given if name.startswith("policy_")}
        made["policy"] = {name: value for name, value in said.items() if value is not None}
    # It is called, or told by mail: what is said last takes the other's place.
    if _any(given, "mail_") and not _any(given, "http_"):
        made.update(http=None, payload=None)
    elif _any(given, "http_") and not _any(given, "mail_"):
        made["mail"] = None
    shown = _credentials(given, read_before=read_before)
    if shown is not None:
        if not (http := made.get("http")):
            raise FailedError("Nobody is shown credentials where nothing is called.", "Say --url.")
        tls = (http.get("credentials") or {}).get("mutual_tls")
        # A certificate goes with each of the others, and stays beside another one or none, unless --credentials says
        # all of it.
        kept = {"mutual_tls": tls} if tls and given["credentials"] is None else {}
        http["credentials"] = {**shown, **kept} or None
    if not made.get("types"):
        raise FailedError("It says of nothing what is told.", "Say --type, such as --type 'message.*'.")
    return made


def _any(given: Mapping[str, Any], begins: str) -> bool:
    return any(value is not None for name, value in given.items() if name.startswith(begins))


def _pair(option: str, text: str) -> dict[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise FailedError(f"{option} {text!r} is no name and value.", f"Say it as {option} name=value.")
    return {"name": name, "value": value}


def _credentials(given: Mapping[str, Any], *, read_before: bool) -> dict[str, Any] | None:
    """What was said about credentials: None where nothing was, nothing where an empty text takes them away."""
    said = [name for name in _SHOWING if given[name] is not None]
    if not said:
        return None
    if len(said) > 1:
        raise FailedError(
            "There is one kind of credentials.", "Of --basic, --bearer, --credential-header and --credentials."
        )
    (kind,) = said
    value = given[kind]
    if not value:
        return {}
    if kind == "credentials":
        return object_of(value, Path(value).read_text(), 'It is like {"bearer_token": "…"}.')
    what = {"basic": f"Password of {value}", "bearer": "Bearer token"}.get(kind, f"Value of the header {value}")
    asked = secret_of(what, ENDPOINT_SECRET, read_before=read_before)
    if kind == "bearer":
        return {"bearer_token": asked}
    return (
        {"basic": {"username": value, "password": asked}}
        if kind == "basic"
        else {"header": {"name": value, "value": asked}}
    )


def secret_of(what: str, variable: str, *, read_before: bool) -> str:
    """A secret: the environment's, or asked for, or read."""
    if found := os.environ.get(variable, ""):
        return found
    if read_before:
        raise FailedError("Standard input was the document, and no secret can be read there.", f"Set {variable}.")
    if not (found := secret(what)):
        raise FailedError("No secret was given.", f"Type it, write it to standard input, or set {variable}.")
    return found
