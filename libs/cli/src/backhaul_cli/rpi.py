"""The settings file of an RPI callback service, as far as Backhaul has the same; and of all else what to do instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from backhaul_cli.failing import FailedError
from backhaul_cli.texts import command

LABELS = ("SendGrid", "mPulse", "Twilio", "Outbound Delivery")
_ROOT = "callbackserviceconfig"
_QUEUE_PATH = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OTHER = re.compile(r"[^A-Za-z0-9_-]+")
_BROKER = "Backhaul has a broker of its own (BACKHAUL_NATS_URL), which tenants share: leave it out."
_STORAGE = (
    "Backhaul files events in object storage that speaks S3, one for the installation (BACKHAUL_OBJECT_STORE_ENDPOINT, "
    "…_BUCKET and their keys), or a bucket of the channel's own (settings.audit.bucket)."
)
_CDN = "Backhaul serves no files to the public: leave it out."


class Setting(NamedTuple):
    """What becomes of one setting. ``what`` is a sentence, without the setting's value where that may be a secret."""

    name: str
    carried: Literal["yes", "no", "not needed"]
    what: str


class _Told(NamedTuple):
    """One leaf of the file: its path as written, the same in lower case, and its value."""

    name: str
    path: str
    value: object


class _Made:
    """What the leaves make, one after the other."""

    def __init__(self) -> None:
        self.queue_path = self.label = self.filed_label = ""
        self.saves = False
        self.processing = "on"

    def _queue_enabled(self, value: object) -> tuple[bool, str]:
        self.processing = "on" if _truth(value) else "held"
        said = {
            "on": "Callbacks are processed: processing is on.",
            "held": "Callbacks are stored and answered, and wait: processing is held, until it is set to on.",
        }
        return True, said[self.processing]

    def _channel(self, value: object) -> tuple[bool, str]:
        self.label = str(value).replace("%20", " ").strip()
        known = {label.lower() for label in LABELS}
        more = "" if self.label.lower() in known else " No provider goes by that label: add provider to the channel."
        return True, f"The channel {self.label}.{more}"

    def _path(self, value: object) -> tuple[bool, str]:
        told = str(value)
        self.queue_path = _OTHER.sub("-", told).strip("-")[:64]
        if self.queue_path == told:
            return True, f"The tenant's queue_path, {told}."
        return True, f"The tenant's queue_path, as {self.queue_path}: one has letters, digits, - and _, 64 at most."

    def _saves(self, value: object) -> tuple[bool, str]:
        self.saves = _truth(value) and self.label.lower() == "sendgrid"
        if _truth(value) and not self.saves:
            return False, "It is SendGrid's alone. Files of other channels are asked for by settings.audit.enabled."
        where = f"the folder of settings.audit.folder, which is events unless it is set. {_STORAGE}"
        return True, f"Events are filed into {where}" if self.saves else "Events are not filed."

    def _filed(self, value: object) -> tuple[bool, str]:
        self.filed_label = str(value).replace("%20", " ").strip()
        return True, f"Events of {self.filed_label} are filed (settings.audit.enabled). {_STORAGE}"

    def _redirects(self, value: object) -> tuple[bool, str]:
        word = str(_truth(value)).lower()
        return False, f"It is the gateway's: BACKHAUL_GATEWAY_ENABLE_HTTPS_REDIRECTION={word}."

    def take(self, told: _Told) -> Setting:
        """What becomes of one leaf."""
        known: Mapping[str, Callable[[object], tuple[bool, str]]] = {
            "queueenabled": self._queue_enabled,
            "queueprovider.channellabel": self._channel,
            "queueprovider.callbackservicequeuepath": self._path,
            "externalcontentprovider.saveemailevents": self._saves,
            "externalcontentprovider.channellabel": self._filed,
            "enablehttpsredirection": self._redirects,
        }
        if take := known.get(told.path.removeprefix(f"{_ROOT}.")):
            carried, what = take(told.value)
            return Setting(told.name, "yes" if carried else "no", what)
        for start, carried_over, what in _ELSEWHERE:
            if told.path.removeprefix(f"{_ROOT}.").startswith(start):
                return Setting(told.name, carried_over, what)
        return Setting(told.name, "no", "It is not known what it does: look whether anything needs it.")


_ELSEWHERE: tuple[tuple[str, Literal["no", "not needed"], str], ...] = (
    ("queueprovider.callbackservicequeuesettings", "not needed", _BROKER),
    ("externalcontentprovider.folder", "no", f"A folder has no address of its own. {_STORAGE}"),
    ("externalcontentprovider.externalcontentsettings.settings[enablecdn]", "not needed", _CDN),
    ("externalcontentprovider.externalcontentsettings.settings[cdnendpoint]", "not needed", _CDN),
    (
        "externalcontentprovider.externalcontentsettings.settings[useazureidentityauthentication]",
        "no",
        "Without keys Backhaul reaches S3 by web_identity or instance_role (settings.audit.bucket.credentials).",
    ),
    ("externalcontentprovider.externalcontentsettings", "no", _STORAGE),
)


def imported(document: object, tenant: str, name: str) -> tuple[dict[str, Any], list[Setting]]:
    """The configuration, as ``backhaul apply`` takes it, and what becomes of each setting of ``document``. ``tenant``
    is the id, or empty for one that follows from the queue path; so is ``name``. ``FailedError`` where it is no such
    file."""
    if not isinstance(document, dict) or not any(str(key).lower() == _ROOT for key in document):
        raise FailedError(
            "There is no CallbackServiceConfig in it.", "Name the appsettings file of an RPI callback service."
        )
    made = _Made()
    leaves = list(_leaves(document))
    for told in leaves:
        made.take(told)
    # Once more: what some mean is known by others, in whatever order they stand.
    settings = [made.take(told) for told in leaves]
    if not _QUEUE_PATH.fullmatch(made.queue_path) or not made.label:
        raise FailedError(
            "QueueProvider has no CallbackServiceQueuePath or no ChannelLabel, by which tenant and channel are known.",
            "Add them to the file.",
        )
    settings.append(
        Setting(
            "(the provider's secret)",
            "no",
            "It is not in the file. Callbacks are taken without it, and marked (verification is observe). Then: "
            f"{command('channels add', made.label, secret=True, verification='enforce')}",
        )
    )
    settings.append(
        Setting(
            "(the callback address)",
            "no",
            f"Give the provider the one that {command('channels show', made.label)} says, in the place of RPI's.",
        )
    )
    tenant_id = tenant or made.queue_path.lower().strip("_")
    one = {"id": tenant_id, "name": name or made.queue_path, "queue_path": made.queue_path, "channels": _channels(made)}
    return {"version": 1, "tenants": [one]}, settings


def _channels(made: _Made) -> list[dict[str, Any]]:
    filed: dict[str, dict[str, Any]] = {}
    if made.saves:
        filed[made.label] = {"save_email_events": True}
    if made.filed_label:
        filed.setdefault(made.filed_label, {})["audit"] = {"enabled": True}
    known = {label.lower(): label for label in filed}
    labels = [made.label, *(label for label in filed if label.lower() != made.label.lower())]
    return [
        {
            "label": label,
            "verification": "observe",
            "processing": made.processing,
            "settings": filed.get(known.get(label.lower(), ""), {}),
        }
        for label in labels
    ]


def _leaves(value: object, name: str = "") -> Iterator[_Told]:
    """Every setting, by its path; one of a list of keys and values by its key. What is empty is one as well."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves(one, f"{name}.{key}" if name else str(key))
        if value or not name:
            return
    elif isinstance(value, list) and value:
        for number, one in enumerate(value):
            fields = {str(key).lower(): field for key, field in one.items()} if isinstance(one, dict) else {}
            # Elsewhere, or without a value, what is called key may be a secret, and no name.
            if isinstance(fields.get("key"), str) and fields.keys() & {"value", "values"}:
                yield _told(f"{name}[{fields['key']}]", fields.get("value") or fields.get("values"))
            else:
                yield from _leaves(one, f"{name}[{number}]")
        return
    yield _told(name, value)


def _told(name: str, value: object) -> _Told:
    # .NET reads names in any case.
    return _Told(name, name.lower(), value)


def _truth(value: object) -> bool:
    return value is True or str(value).strip().lower() == "true"
