"""Settings of an RPI callback service: each is carried over, or it is said what to do instead."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from backhaul_cli.__main__ import main
from backhaul_cli.failing import FailedError
from backhaul_cli.rpi import Setting, imported

SECRETS = ("hidden-password", "hidden-access-key", "hidden-user")


def keyed(**values: Any) -> list[dict[str, Any]]:
    return [{"Key": key, "Value": value, "Values": None} for key, value in values.items()]


def appsettings() -> dict[str, Any]:
    """Every setting that such a service has."""
    return {
        "CallbackServiceConfig": {
            "QueueEnabled": True,
            "QueueProvider": {
                "ChannelLabel": "SendGrid",
                "CallbackServiceQueuePath": "Acme_Callbacks",
                "CallbackServiceQueueSettings": {
                    "Assembly": "Some.Queue",
                    "Type": "Some.Queue.Factory",
                    "Settings": keyed(HostName="mq", VirtualHost="/", UserName=SECRETS[2], Password=SECRETS[0]),
                },
            },
            "ExternalContentProvider": {
                "Folder": "https://files.example.com/rpi",
                "SaveEmailEvents": False,
                "ExternalContentSettings": {
                    "Assembly": "Some.Storage",
                    "Type": "Some.Storage.Connector",
                    "Settings": keyed(
                        StorageAccount="acme",
                        AccessKey=SECRETS[1],
                        EnableCdn=False,
                        BlobServiceEndpoint=None,
                        CdnEndpoint=None,
                        UseAzureIdentityAuthentication=True,
                    ),
                },
            },
            "EnableHttpsRedirection": False,
        }
    }


def by_name(settings: list[Setting]) -> dict[str, Setting]:
    return {one.name.removeprefix("CallbackServiceConfig."): one for one in settings}


def test_each_setting_is_carried_over_or_named_and_no_secret_is_told() -> None:
    document, settings = imported(appsettings(), "", "")
    assert document == {
        "version": 1,
        "tenants": [
            {
                "id": "acme_callbacks",
                "name": "Acme_Callbacks",
                "queue_path": "Acme_Callbacks",
                "channels": [
                    {"label": "SendGrid", "verification": "observe", "processing": "on", "settings": {}}
                ],
            }
        ],
    }  # fmt: skip
    found = by_name(settings)
    assert len(found) == len(settings) == 22
    assert {name for name, one in found.items() if one.carried == "yes"} == {
        "QueueEnabled",
        "QueueProvider.ChannelLabel",
        "QueueProvider.CallbackServiceQueuePath",
        "ExternalContentProvider.SaveEmailEvents",
    }
    at = "ExternalContentProvider.ExternalContentSettings.Settings"
    for name, said in (
        ("EnableHttpsRedirection", "BACKHAUL_GATEWAY_ENABLE_HTTPS_REDIRECTION=false"),
        ("ExternalContentProvider.Folder", "BACKHAUL_OBJECT_STORE_ENDPOINT"),
        ("QueueProvider.CallbackServiceQueueSettings.Settings[Password]", "BACKHAUL_NATS_URL"),
        (f"{at}[UseAzureIdentityAuthentication]", "web_identity"),
        (f"{at}[CdnEndpoint]", "leave it out"),
        (f"{at}[AccessKey]", "S3"),
        ("(the provider's secret)", "--secret"),
    ):
        assert said in found[name].what
    assert not any(secret in repr((document, settings)) for secret in SECRETS)


@pytest.mark.parametrize(
    ("at", "value", "label", "expected"),
    [
        ("QueueEnabled", False, "SendGrid", {"processing": "held"}),
        ("ExternalContentProvider.SaveEmailEvents", True, "SendGrid", {"settings": {"save_email_events": True}}),
        ("ExternalContentProvider.SaveEmailEvents", "True", "SendGrid", {"settings": {"save_email_events": True}}),
        ("ExternalContentProvider.ChannelLabel", "mPulse", "mPulse", {"settings": {"audit": {"enabled": True}}}),
        ("QueueProvider.ChannelLabel", "Outbound%20Delivery", "Outbound Delivery", {"settings": {}}),
    ],
)
def test_what_is_set_is_in_the_channel(at: str, value: object, label: str, expected: dict[str, Any]) -> None:
    given = appsettings()
    *way, last = f"CallbackServiceConfig.{at}".split(".")
    place = given
    for word in way:
        place = place[word]
    place[last] = value
    (tenant,) = imported(given, "acme", "Acme")[0]["tenants"]
    assert (tenant["id"], tenant["name"]) == ("acme", "Acme")
    (channel,) = [one for one in tenant["channels"] if one["label"] == label]
    assert {name: channel[name] for name in expected} == expected


def test_what_only_one_channel_has_is_no_other_ones() -> None:
    given = appsettings()["CallbackServiceConfig"]
    given["QueueProvider"]["ChannelLabel"] = "Twilio"
    given["ExternalContentProvider"]["SaveEmailEvents"] = True
    # In whatever order they stand.
    document, settings = imported({"CallbackServiceConfig": dict(reversed(given.items()))}, "", "")
    assert [one["label"] for one in document["tenants"][0]["channels"]] == ["Twilio"]
    assert "SendGrid's alone" in by_name(settings)["ExternalContentProvider.SaveEmailEvents"].what


def _cased(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.upper(): _cased(one) for key, one in value.items()}
    return [_cased(one) for one in value] if isinstance(value, list) else value


def test_names_count_in_any_case() -> None:
    assert imported(_cased(appsettings()), "", "")[0] == imported(appsettings(), "", "")[0]


def test_what_is_not_known_is_named_too() -> None:
    given = copy.deepcopy(appsettings())
    given["Logging"] = {"LogLevel": {"Default": "Warning"}}
    given["CallbackServiceConfig"]["QueueProvider"]["New"] = []
    given["CallbackServiceConfig"]["Odd"] = [{"a": 1}, 2, {}]
    given["CallbackServiceConfig"]["QueueProvider"]["ChannelLabel"] = "Pigeons"
    given["CallbackServiceConfig"]["QueueProvider"]["CallbackServiceQueuePath"] = "a b/c"
    document, settings = imported(given, "", "")
    found = by_name(settings)
    for name in ("Logging.LogLevel.Default", "QueueProvider.New", "Odd[0].a", "Odd[1]", "Odd[2]"):
        assert "not known" in found[name].what
    assert "No provider goes by that label" in found["QueueProvider.ChannelLabel"].what
    assert document["tenants"][0]["queue_path"] == "a-b-c"
    assert "as a-b-c" in found["QueueProvider.CallbackServiceQueuePath"].what


def test_what_is_called_key_is_a_name_only_where_it_has_a_value_in_a_list() -> None:
    given = appsettings()
    settings = given["CallbackServiceConfig"]["QueueProvider"]["CallbackServiceQueueSettings"]["Settings"]
    settings += [{"Key": SECRETS[0]}, {"key": SECRETS[1], "Other": 1}, {"Key": {"a": SECRETS[0]}, "Value": 1}]
    given["Jwt"] = {"Key": SECRETS[0], "Value": SECRETS[1]}
    given["Keys"] = {"One": {"Key": SECRETS[2], "Issuer": "x"}}
    told = imported(given, "", "")
    assert not any(secret in repr(told) for secret in SECRETS)
    assert {"Jwt.Key", "Jwt.Value", "Keys.One.Key", "Keys.One.Issuer"} <= by_name(told[1]).keys()


def test_a_label_is_one_word_of_the_commands_that_are_suggested() -> None:
    given = appsettings()
    label = "x'; touch owned; '"
    given["CallbackServiceConfig"]["QueueProvider"]["ChannelLabel"] = label
    found = by_name(imported(given, "", "")[1])
    for name, said in (("(the provider's secret)", "add"), ("(the callback address)", "show")):
        assert f"backhaul channels {said} {shlex.quote(label)} " in found[name].what


@pytest.mark.parametrize("given", [[], {}, {"CallbackServiceConfig": None}, {"CallbackServiceConfig": {"a": 1}}])
def test_what_is_no_such_file_is_refused(given: Any) -> None:
    with pytest.raises(FailedError):
        imported(given, "", "")


def test_the_command_writes_a_document_and_says_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "appsettings.json", tmp_path / "acme.json"
    file.write_text(json.dumps(appsettings()), "utf-8-sig")
    assert main(["import-rpi", str(file)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == imported(appsettings(), "", "")[0]
    assert said.err.count("\n") == 22
    assert main(["import-rpi", str(file), "--out", str(out), "--tenant", "acme"]) == 0
    said = capsys.readouterr()
    assert json.loads(out.read_text())["tenants"][0]["id"] == "acme"
    assert "EnableHttpsRedirection" in said.out
    for text in ('{"Password": "hidden-password"', "\xff", 100_000 * '{"a":'):
        file.write_text(text, "latin-1")
        assert main(["import-rpi", str(file)]) == 2
        assert "hidden" not in capsys.readouterr().err
