"""What a channel's form asks for, by its provider. The API takes settings as one object; a test holds these fields
against the providers' own schemas. Whatever has no field here is typed as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from backhaul_console.forms import Filled, wrong
from backhaul_console.texts import _

Json = dict[str, Any]
_ROOT = "settings"
CREDENTIALS = "pull_credentials"
"""What the API names them by which a provider is asked, and the box by which those that are left empty go."""


@dataclass(frozen=True)
class Setting:
    """One field. ``path`` is the API's, below ``settings``; lists are one to a line."""

    path: str
    label: str
    kind: Literal["lines", "tick", "choice"] = "lines"
    hint: str = ""
    options: Sequence[tuple[str, str]] = ()

    @property
    def name(self) -> str:
        """That of the input, by which what the API refuses finds it."""
        return f"{_ROOT}.{self.path}"

    def typed(self, form: Filled) -> Any:
        """What was typed, as the API takes it; None for nothing, which is the provider's default."""
        if self.kind == "tick":
            return True if "yes" in form.all(self.name) else None
        return (form.lines(self.name) if self.kind == "lines" else form[self.name]) or None

    def shows(self, value: object) -> bool:
        """Whether the field can hold what is stored. What it cannot stays among the JSON."""
        if self.kind == "tick":
            return isinstance(value, bool)
        if self.kind == "choice":
            return value in [option for option, _text in self.options if option]
        # An empty list is not the default, for which an empty field stands.
        return isinstance(value, list) and bool(value) and all(_is_line(one) for one in value)


@dataclass(frozen=True)
class Provider:
    """One provider. ``label`` is a channel's usual one; ``parts`` those of a secret that is no one text;
    ``credentials`` by which its API is asked, each with whether it is secret."""

    name: str
    label: str
    secret: str
    parts: Sequence[str] = ()
    settings: Sequence[Setting] = ()
    credentials: Mapping[str, bool] = field(default_factory=dict)


_JOINS = Setting(
    "communication_keys",
    _("Parameters that name a communication"),
    hint=_("One to a line; the first that a callback carries counts. Left empty, the provider's usual ones."),
)
_AUDIT = Setting(
    "audit.enabled",
    _("File its events for audit"),
    "tick",
    _("They are written to object storage, signed, and can be proved. Nothing is filed without it."),
)
_PEOPLE = Setting("audit.encrypt_people", _("Encrypt what is personal in these files"), "tick")
_EVERY = (_JOINS, _AUDIT, _PEOPLE)
_REPLIES = (
    Setting(
        "replies.likely_stop",
        _("A reply that is likely an opt-out"),
        "choice",
        options=(
            ("", _("as the provider's default")),
            ("flag", _("flag: a person decides")),
            ("apply", _("apply: it is one")),
            ("ignore", _("ignore: nothing follows")),
        ),
    ),
    Setting(
        "replies.languages", _("Further languages of keywords"), hint=_("One to a line, such as de. English is there.")
    ),
)
_BY_PASSWORD = _(
    "It signs nothing. A name and a password are optional: without them the ingest token in the address is the proof."
)
_NAME_AND_PASSWORD = ("username", "password")

KNOWN: Mapping[str, Provider] = {
    one.name: one
    for one in (
        Provider(
            "twilio",
            "Twilio",
            _("The auth token of the account, from Twilio's console. It signs each callback."),
            settings=(
                *_EVERY,
                *_REPLIES,
                Setting(
                    "reconcile.senders",
                    _("Senders of this channel"),
                    hint=_("One to a line, as +15005550006. The API is asked for theirs; left empty, for all."),
                ),
                Setting(
                    "reconcile.messaging_services",
                    _("Messaging services of this channel"),
                    hint=_("Their SIDs (MG…), one to a line."),
                ),
            ),
            credentials={
                "account_sid": False,
                "auth_token": True,
                "api_key_sid": False,
                "api_key_secret": True,
                "region": False,
            },
        ),
        Provider(
            "sendgrid",
            "SendGrid",
            _("The verification key of the Event Webhook's settings. It verifies the signature of each callback."),
            settings=(
                *_EVERY,
                Setting(
                    "region",
                    _("Where the account has its data"),
                    "choice",
                    options=(("", _("as the provider's default")), ("global", "global"), ("eu", "eu")),
                ),
            ),
            credentials={"api_key": True, "subuser": False},
        ),
        Provider(
            "google_rbm",
            "Google RBM",
            _("The client token of the agent's webhook."),
            settings=(*_EVERY, *_REPLIES),
        ),
        Provider("rcs", "RCS", _BY_PASSWORD, _NAME_AND_PASSWORD, _EVERY),
        Provider("mpulse", "mPulse", _BY_PASSWORD, _NAME_AND_PASSWORD, _EVERY),
        Provider("outbound_delivery", "Outbound Delivery", _BY_PASSWORD, _NAME_AND_PASSWORD, _EVERY),
        Provider(
            "generic",
            "",
            _("What the sender signs with. How it proves itself, and how its callbacks are read, is in the settings."),
            settings=_EVERY,
        ),
    )
}

_OTHER = Provider("", "", _("What the provider signs with."), settings=_EVERY)
"""One that only a newer version of the gateway knows."""


def provider(name: str) -> Provider:
    """What is asked for of a provider."""
    return KNOWN.get(name, _OTHER)


def shown(of: Provider, settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The fields' values, and what has none of its own as JSON."""
    rest, values = deepcopy(dict(settings)), dict[str, list[str]]()
    for one in of.settings:
        *above, last = one.path.split(".")
        within = _within(rest, above)
        if within is None or last not in within or not one.shows(within[last]):
            continue
        value = within.pop(last)
        values[one.name] = ["yes" if value else ""] if one.kind == "tick" else [_text(value)]
        if above and not within:
            del rest[above[0]]
    values[_ROOT] = [msgspec.json.format(msgspec.json.encode(rest), indent=2).decode() if rest else ""]
    return values


def settings_of(of: Provider, form: Filled) -> Json:
    """The settings that were typed. Raises as the API would."""
    settings = object_of(form, _ROOT) if form[_ROOT] else {}
    for one in of.settings:
        value = one.typed(form)
        if value is None:
            continue
        *above, last = one.path.split(".")
        within = settings
        for name in above:
            within = within.setdefault(name, {})
            if not isinstance(within, dict):
                raise wrong(_ROOT, _("%s is no object.") % name, _("Leave it out, or write it as an object."))
        if within.setdefault(last, value) != value:
            raise wrong(
                one.name, _("The settings as JSON have it too, and otherwise."), _("Say it in one of the two places.")
            )
    return settings


def credentials_of(of: Provider, form: Filled, *, asked: bool) -> dict[str, str]:
    """By what the provider is to be asked from now on; empty where nothing was typed. The API takes them as one object,
    in the place of all that a channel has, and tells nobody which these are: where it has some (``asked``), what is
    left empty may be one of them. Raises as the API would."""
    typed = {name: value for name in of.credentials if (value := form[f"{CREDENTIALS}.{name}"])}
    ticked = bool(form[CREDENTIALS])
    if ticked and not typed:
        raise wrong(
            CREDENTIALS,
            _("No credential is typed."),
            _("Type those that are valid from now on, or leave this box empty: those that there are stay."),
        )
    if asked and not ticked and 0 < len(typed) < len(of.credentials):
        raise wrong(
            CREDENTIALS,
            _("Some are left empty: those would be removed."),
            _("Type them too, or tick that what is left empty is removed. Type again what is secret."),
        )
    return typed


def object_of(form: Filled, name: str) -> Json:
    """A JSON object that was typed. Raises as the API would."""
    try:
        return msgspec.json.decode(form[name], type=Json)
    except (msgspec.MsgspecError, UnicodeError):
        raise wrong(name, _("This is no JSON object."), _('Write it like {"name": "value"}.')) from None


def _within(settings: Json, above: Sequence[str]) -> Json | None:
    found: Any = settings
    for name in above:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value == value.strip() and [value] == value.splitlines()


def _text(value: Any) -> str:
    return "\n".join(value) if isinstance(value, list) else str(value)
