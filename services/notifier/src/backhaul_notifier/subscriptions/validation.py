"""What a tenant may say of a subscription: every field is checked, and all that is wrong is told at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from backhaul_common.errors import Violation
from backhaul_common.mailaddresses import ADDRESS_FIX, is_mail_address
from backhaul_common.vocabulary import Values
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.notifier.v1 import notifier_pb2 as pb

from backhaul_notifier.calling.credentials import is_ours
from backhaul_notifier.catalogue.matching import known_types, selection_of
from backhaul_notifier.catalogue.types import KINDS, EventType
from backhaul_notifier.documents import MAX_RATE_PER_S
from backhaul_notifier.door.outcome import DoorError, RequestError, require_headers
from backhaul_notifier.payloads import Form, check_form
from backhaul_notifier.subscriptions.credentials import MAX_HEADER_NAME, check_credentials
from backhaul_notifier.subscriptions.stored import policy_in
from backhaul_notifier.urls import Template, parse
from backhaul_notifier.wrong import Wrong

MAX_BYTES: Final = 64 << 10
"""Of a definition: every copy holds all of them in memory."""

MAX_NAME: Final = 128
MAX_HEADERS: Final = 20
MAX_HEADER_VALUE: Final = 4096
MAX_ADDRESSES: Final = 10
MAX_EVERY_MINUTES: Final = 1440
MAX_CONCURRENCY: Final = 64

_FIELD = "definition"

_FORMS = Values(pb.PayloadForm.DESCRIPTOR, Form)


def checked(given: pb.Definition, check_address: Callable[[str], None]) -> pb.Definition:
    """The definition as it is to be stored, but for its secrets, which are plain: what says nothing has its default,
    names are in lower case, lists sorted.

    ``check_address`` raises DoorError for an address that will not be called. INVALID_ARGUMENT names every field that
    is wrong, within ``definition``, and repeats no secret.
    """
    wrong = Wrong(_FIELD, "The definition is not valid.")
    size = given.ByteSize()
    if size > MAX_BYTES:
        wrong.add("", f"It has {size} bytes, and not {MAX_BYTES} at most.", "Make several subscriptions.")
        wrong.raise_any()
    made = pb.Definition()
    made.CopyFrom(given)
    if len(given.name) > MAX_NAME or not given.name.isprintable():
        text = f"It is longer than {MAX_NAME} characters, or has some that nobody sees."
        wrong.add("name", text, "Shorten it to one line of text.")
    types = _choose(made, wrong)
    with wrong.gathered():
        policy_in(given.policy)
    made.policy.kind = made.policy.kind or pb.POLICY_KIND_STANDARD
    made.ordering = made.ordering or pb.ORDERING_NONE
    if made.ordering not in pb.Ordering.values():
        wrong.add("ordering", f"It has no value {made.ordering}.", "Choose none, message or recipient.")
    match made.WhichOneof("destination"):
        case "http":
            _check_http(made, types, check_address, wrong)
        case "mail":
            _check_mail(made, wrong)
        case _:
            wrong.add("", "It has no destination.", "Pass http or mail.")
    _check_bounds(made, wrong)
    made.alert_addresses[:] = _addresses(given.alert_addresses, "alert_addresses", wrong)
    wrong.raise_any()
    return made


def _choose(made: pb.Definition, wrong: Wrong) -> list[EventType]:
    """Put what is chosen as it is stored; the types of the catalogue that it covers."""
    chosen = made.filter
    with wrong.gathered():
        selection = selection_of(
            made.types,
            channels=chosen.channels,
            communication_ids=chosen.communication_ids,
            error_codes=chosen.error_codes,
            kinds=[KINDS.by_number.get(kind, str(kind)) for kind in chosen.kinds],
            attributes=[(pair.name, pair.value) for pair in chosen.attributes],
            field=_FIELD,
        )
        made.types[:] = selection.types
        if made.HasField("filter"):
            stored = selection.filter
            made.filter.CopyFrom(
                pb.Filter(
                    channels=stored.channels,
                    communication_ids=stored.communication_ids,
                    error_codes=stored.error_codes,
                    kinds=[KINDS.number(word) for word in stored.kinds],
                    attributes=[Attribute(name=name, value=value) for name, value in stored.attributes],
                )
            )
    return known_types(made.types)


def _check_http(
    made: pb.Definition, types: Sequence[EventType], check_address: Callable[[str], None], wrong: Wrong
) -> None:
    http = made.http
    http.method = http.method or pb.HTTP_METHOD_POST
    if http.method not in pb.HttpMethod.values():
        wrong.add("http.method", f"It has no value {http.method}.", "Choose GET or POST.")
    template: Template | None = None
    # Of types that mean nothing every variable would be wrong as well.
    if types:
        with wrong.gathered():
            template = parse(http.url, types, field=f"{_FIELD}.http.url")
    if template is not None:
        # Variables stand behind scheme, host and port, so whatever they hold it is the same door.
        _check_door(template.expanded(lambda _: "x"), "http.url", check_address, wrong)
    made.payload.form = made.payload.form or pb.PAYLOAD_FORM_FULL
    with wrong.gathered():
        form = _FORMS.value(made.payload.form, f"{_FIELD}.payload.form")
        check_form(
            form or Form.FULL,
            max_events=made.payload.max_events,
            max_wait_s=made.payload.max_wait_s,
            post=http.method != pb.HTTP_METHOD_GET,
            variables="${" in http.url,
            with_raw=made.payload.with_raw,
            field=_FIELD,
        )
    _check_headers(http.headers, wrong)
    if http.HasField("credentials"):
        https = http.url.lower().startswith("https://")
        for found in check_credentials(http.credentials, https=https):
            _tell(found, wrong)
        if http.credentials.HasField("oauth") and http.credentials.oauth.token_url:
            _check_door(http.credentials.oauth.token_url, "http.credentials.oauth.token_url", check_address, wrong)


def _tell(found: Violation, wrong: Wrong) -> None:
    wrong.add(f"http.credentials.{found.field}" if found.field else "http.credentials", found.message, found.fix)


def _check_door(url: str, field: str, check_address: Callable[[str], None], wrong: Wrong) -> None:
    try:
        check_address(url)
    except DoorError as exc:
        wrong.add(field, exc.sentence, "Pass an address that Backhaul may call.")


def _check_headers(headers: Sequence[Attribute], wrong: Wrong) -> None:
    if len(headers) > MAX_HEADERS:
        wrong.add("http.headers", f"There are more than {MAX_HEADERS}.", "Leave some out.")
    seen: set[str] = set()
    for place, header in enumerate(headers[:MAX_HEADERS]):
        field, name = f"http.headers[{place}]", header.name.lower()
        if len(name) > MAX_HEADER_NAME:
            wrong.add(f"{field}.name", f"It has more than {MAX_HEADER_NAME} characters.", "Shorten it.")
            continue
        try:
            require_headers({header.name: header.value})
        except RequestError as exc:
            wrong.add(field, exc.sentence, "Pass a name and a value that HTTP can carry, or leave it out.")
            continue
        if is_ours(name):
            wrong.add(field, f"Backhaul itself writes {name}.", "Leave it out.")
        elif name == "authorization":
            fix = "Pass it as credentials, which are never shown."
            wrong.add(field, "Whoever reads the subscription would see it.", fix)
        elif name in seen:
            wrong.add(field, f"The header {name} is there twice.", "Pass one, with both values.")
        if len(header.value) > MAX_HEADER_VALUE:
            wrong.add(field, f"Its value has more than {MAX_HEADER_VALUE} characters.", "Shorten it.")
        seen.add(name)


def _check_mail(made: pb.Definition, wrong: Wrong) -> None:
    if not made.mail.addresses:
        wrong.add("mail.addresses", "There are none.", f"Pass 1 to {MAX_ADDRESSES}.")
    made.mail.addresses[:] = _addresses(made.mail.addresses, "mail.addresses", wrong)
    if not 0 <= made.mail.every_minutes <= MAX_EVERY_MINUTES:
        wrong.add("mail.every_minutes", f"It is not 1 to {MAX_EVERY_MINUTES}.", "Pass minutes, or 0 for 10.")
    if made.payload != pb.Payload():
        wrong.add("payload", "A mail has a form of its own.", "Leave it out.")
    made.ClearField("payload")
    if made.ordering != pb.ORDERING_NONE:
        wrong.add("ordering", "A digest tells what happened in its order anyway.", "Leave it out.")


def _check_bounds(made: pb.Definition, wrong: Wrong) -> None:
    for name, most, fix in (
        ("rate_per_s", MAX_RATE_PER_S, "Pass calls a second, or 0: as many as it bears."),
        ("concurrency", MAX_CONCURRENCY, "Pass calls at once, or 0 for 8."),
    ):
        if not 0 <= getattr(made, name) <= most:
            wrong.add(name, f"It is not 1 to {most}.", fix)


def _addresses(given: Sequence[str], field: str, wrong: Wrong) -> list[str]:
    """Mail addresses, each once."""
    if len(given) > MAX_ADDRESSES:
        wrong.add(field, f"There are more than {MAX_ADDRESSES}.", "Use a list's own address.")
    found = []
    for place, text in enumerate(given[:MAX_ADDRESSES]):
        address = text.strip()
        if not is_mail_address(address):
            wrong.add(f"{field}[{place}]", "It is no mail address.", ADDRESS_FIX)
        found.append(address)
    return list(dict.fromkeys(found))
