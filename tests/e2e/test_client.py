"""The client of libs/client against a running gateway: the README's programs, and its models against the OpenAPI."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import httpx
import msgspec
import pytest
from backhaul_client import (
    AdminClient,
    NotFoundError,
    TenantClient,
    admin,
    adminmodels,
    auditmodels,
    changes,
    communicationmodels,
    communications,
    models,
    notificationmodels,
    notifications,
    overviewmodels,
    people,
    reconciliation,
    replaymodels,
    replays,
    statusmodels,
    suppressionmodels,
    tenant,
)
from backhaul_client.calls import call, lines, pieces, rows
from backhaul_client.following import followed
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town

README = Path(__file__).parents[2] / "libs" / "client" / "README.md"
SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "AccessOut": statusmodels.Access,
    "StatusOut": statusmodels.ChannelStatus,
    "EventOut": models.Event,
    "MessageSummary": models.MessageSummary,
    "MessageOut": models.Message,
    "CommunicationOut": communicationmodels.CommunicationRecord,
    "CommunicationSummary": communicationmodels.CommunicationSummary,
    "BatchOut": communicationmodels.Batch,
    "MemberOut": communicationmodels.Member,
    "RecipientErasureOut": people.RecipientErasure,
    "ErrorCountOut": models.ErrorCount,
    "ErrorCountsOut": models.ErrorCounts,
    "StatsRowOut": models.StatsRow,
    "StatsOut": models.Stats,
    "PreviewOut": models.Preview,
    "DeadLetterSummary": models.DeadLetterSummary,
    "DeadLetterOut": models.DeadLetter,
    "TenantOut": adminmodels.Tenant,
    "NewTenantOut": adminmodels.NewTenant,
    "ChannelOut": adminmodels.Channel,
    "ChannelAddressOut": adminmodels.ChannelAddress,
    "IssuedKeyOut": adminmodels.IssuedKey,
    "TenantAtAGlance": overviewmodels.TenantOverview,
    "OverviewPage": overviewmodels.Overview,
    "LoggedChangeOut": changes.Change,
    "ReplayOut": replaymodels.Replay,
    "SuppressionOut": suppressionmodels.Suppression,
    "AddressOut": suppressionmodels.AddressRecord,
    "ChangedOut": suppressionmodels.SuppressionOutcome,
    "ReactivatedOut": suppressionmodels.Reactivated,
    "CheckOut": suppressionmodels.Checked,
    "CheckBatchOut": suppressionmodels.BatchChecked,
    "ChangesOut": suppressionmodels.SuppressionChanges,
    "AuditFileOut": auditmodels.AuditFile,
    "AuditLinkOut": auditmodels.AuditLink,
    "AuditDigestOut": auditmodels.AuditDigest,
    "AuditProofsOut": auditmodels.AuditProofs,
    "AuditKeyOut": auditmodels.AuditKey,
    "SubscriptionOut": notificationmodels.Subscription,
    "AttemptOut": notificationmodels.Attempt,
    "ListedDeliveryOut": notificationmodels.Delivery,
    "DeliveryWithHistoryOut": notificationmodels.Delivery,
    "RedeliveredOut": notificationmodels.Redelivered,
    "EventTypeOut": notificationmodels.EventType,
    "ServiceOut": adminmodels.Service,
    "NewServiceOut": adminmodels.NewService,
    "TenantChange": adminmodels.TenantChange,
    "SecretKeysOut": adminmodels.SecretKeys,
    "IssuedTokenOut": adminmodels.IssuedServiceToken,
}
FOR_OTHERS = re.compile(r"/(healthz|readyz|metrics)|(/in/.*)?/api/postevents|/in/.*/oauth/token")
"""Paths for machines that watch, and for providers."""
WHILE_SENDING = {"progress"}
"""An import's answer comes while the request is sent, and httpx reads nothing then; a verification is always asked for
it."""


async def test_the_programs_of_the_readme_run_as_they_stand_there(town: Town, installation: Stack) -> None:
    person = await town.platform.register()
    address = person.address("Twilio", communicationId="spring-sale")
    for post in (
        person.twilio.status(address, "SM0001", "sent"),
        person.twilio.status(address, "SM0001", "failed", ErrorCode="30006"),
        person.twilio.form(address, {"From": "+15005550010", "Body": "STOP"}),
    ):
        assert (await person.send(post)).status_code == 200
    await person.message_with("twilio", "SM0001", 2)

    async def dead() -> bool:
        return bool(await person.dead_letters())

    await until("the dead letter", dead)
    # Those of suppression and of audit files have other services, and tests of their own.
    programs = [
        one
        for one in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        if not ("suppression" in one or "audit" in one)
    ]
    environ = {
        "BACKHAUL_URL": installation.gateway_url,
        "BACKHAUL_API_KEY": person.api_key,
        "BACKHAUL_ADMIN_TOKEN": installation.admin_token,
    }
    shown = []
    for program in programs:
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=environ, stdout=PIPE, stderr=PIPE
        )
        out, err = await running.communicate()
        assert (running.returncode, err.decode()) == (0, "")
        shown.append(out.decode())
    blocking, asynchronous, sender, team = shown
    assert sender.startswith("closed 3 of 3 waiting\n")
    assert sorted(sender.splitlines()[1:]) == [f"person-{number} ['waiting']" for number in range(3)]
    assert re.fullmatch(
        r"failed since .*\nsent sent \nfailed failed 30006\n\+15005550001 30006 .+\n404 not_found\n", blocking
    )
    assert asynchronous.startswith("1 messages: {'Queued': 0,")
    assert "MessageSid is missing" in asynchronous
    assert "api_key=Secret('…')" in team
    assert "\nNone\n" in team
    assert "globex active ['Twilio']" in team
    assert "token=Secret('…')" in team
    await town.platform.client.delete_service("crm")
    await town.platform.client.delete_tenant("globex")


@pytest.fixture
def openapi(installation: Stack) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(f"{installation.gateway_url}/openapi.json").json()
    return document


def test_it_has_a_method_for_each_operation_with_each_parameter(openapi: dict[str, Any]) -> None:
    """What a call sends is what the OpenAPI document lists, and no operation lacks a method."""
    offered: dict[tuple[str, str], set[str]] = {}
    for path, operations in openapi["paths"].items():
        if not FOR_OTHERS.fullmatch(path):
            for method, operation in operations.items():
                parameters = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
                offered[method.upper(), re.sub(r"\{.*?\}", "x", path)] = parameters - WHILE_SENDING
    made: dict[tuple[str, str], set[str]] = {}
    parts = (
        communications.Communications,
        communications.Batches,
        reconciliation.Reconciliation,
        replays.Replays,
        notifications.Subscriptions,
        notifications.Deliveries,
    )
    for calls in (tenant.TenantClient, *parts, admin.AdminClient):
        for member in inspect.getmembers_static(
            calls, lambda one: isinstance(one, call | followed | lines | pieces | rows)
        ):
            build = member[1]._build
            arguments = {name: _any(hint) for name, hint in get_type_hints(build).items() if name != "return"}
            one = build(None, **arguments)
            # Several methods may ask by one path: for a batch alone, or with members.
            parameters = made.setdefault((one.method, re.sub("/1$", "/x", one.path)), set())
            parameters.update(set(one.params) - {""} - WHILE_SENDING)
    # Any number of sends in one call: its requests are made of what is told.
    (reported,) = tenant.TenantClient.report_sends._build(None, [{"channel": "Twilio"}])
    made[reported.method, reported.path] = set(reported.params)
    assert made == offered


def _any(hint: Any) -> Any:
    """A value that a parameter of that type may have, and that is sent."""
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if get_origin(hint) is Mapping:
        return {"x": "x"}
    for kind in get_args(hint) or (hint,):
        if kind is datetime:
            return datetime.fromisoformat("2026-11-01T00:00:00Z")
        if kind in (int, bool):
            return kind(1)
    return "x"


@pytest.mark.parametrize("name", SCHEMAS)
def test_its_models_have_every_field(openapi: dict[str, Any], name: str) -> None:
    _compare(openapi["components"]["schemas"], name, SCHEMAS[name])


def _compare(schemas: dict[str, Any], name: str, model: type[msgspec.Struct]) -> None:
    properties = schemas[name]["properties"]
    fields = {field.name: field for field in msgspec.structs.fields(model)}
    assert fields.keys() == properties.keys()
    for key, schema in properties.items():
        inner = [kind for kind in (fields[key].type, *get_args(fields[key].type)) if _is_model(kind)]
        references = re.findall(r"#/components/schemas/(\w+)", str(schema))
        assert bool(inner) == bool(references and "properties" in schemas[references[0]]), key
        if inner:
            _compare(schemas, references[0], inner[0])


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


async def test_the_platform_teams_calls_do_what_they_say(town: Town, installation: Stack) -> None:
    def work(tenant_id: str) -> None:
        with AdminClient(installation.gateway_url, installation.admin_token) as team:
            made = team.create_tenant(tenant_id, name="One", queue_path=tenant_id)
            assert team.put_channel(tenant_id, "Twilio", secrets=["one", "two"]).secret_count == 2
            assert team.put_channel(tenant_id, "Twilio", verification="off").secret_count == 2
            assert team.channel(tenant_id, "twilio").verification == "off"
            assert [channel.key for channel in team.channels(tenant_id)] == ["twilio"]
            changed = team.change_tenant(tenant_id, name="Two", limits={"burst": 7}, audit={"retention_days": 90})
            assert (changed.name, changed.limits.burst, changed.status) == ("Two", 7, "active")
            assert (made.audit.retention_days, changed.audit.retention_days) == (None, 90)
            key = team.add_key(tenant_id)
            with TenantClient(installation.gateway_url, key.key) as own:
                assert own.channel_status("Twilio").parts.verification.mode == "off"
                assert list(own.messages()) == []
            team.delete_key(tenant_id, key.id)
            assert key.id not in [one.id for one in team.tenant(tenant_id).keys]
            assert tenant_id in [one.id for one in team.tenants(page_size=1)]
            team.delete_channel(tenant_id, "Twilio")
            with pytest.raises(NotFoundError):
                team.delete_tenant(tenant_id, registration=f"{made.registration}x")
            assert team.delete_tenant(tenant_id) is None
            with pytest.raises(NotFoundError):
                team.tenant(tenant_id)

    await asyncio.to_thread(work, "by-the-client")


@pytest.mark.parametrize("purge", [False, True])
async def test_who_registers_an_id_again_is_in_nobodys_services(installation: Stack, purge: bool) -> None:
    def work(tenant_id: str) -> None:
        with AdminClient(installation.gateway_url, installation.admin_token) as team:
            for one in (tenant_id, f"{tenant_id}-other"):
                team.create_tenant(one, name="One", queue_path=one)
            team.create_service(tenant_id, name="One", tenants=[tenant_id, f"{tenant_id}-other"], verbs=["check"])
            team.delete_tenant(tenant_id, purge=purge)
            deadline = time.monotonic() + 30
            while purge and time.monotonic() < deadline:
                with suppress(NotFoundError):
                    team.tenant(tenant_id)
                    time.sleep(0.1)
                    continue
                break
            with pytest.raises(NotFoundError):
                team.tenant(tenant_id)
            assert team.service(tenant_id).tenants == (f"{tenant_id}-other",)
            team.delete_service(tenant_id)
            team.delete_tenant(f"{tenant_id}-other")

    await asyncio.to_thread(work, f"granted-{'purged' if purge else 'empty'}")


async def test_the_platform_teams_calls_about_services_do_what_they_say(installation: Stack) -> None:
    def work() -> None:
        with AdminClient(installation.gateway_url, installation.admin_token) as team:
            made = team.create_service("by-the-client", name="One", tenants=["*"], verbs=["check"])
            assert made.token.startswith("bhs_")
            assert made.token not in repr(made)
            changed = team.change_service("by-the-client", verbs=["read"], limits={"burst": 7}, disabled=True)
            assert (changed.verbs, changed.limits.burst, changed.disabled, changed.tenants) == (
                ("read",),
                7,
                True,
                ("*",),
            )
            end = datetime.fromisoformat("2126-11-01T00:00:00Z")
            issued = team.add_service_token("by-the-client", expires_at=end, others_expire_at=end)
            assert (issued.expires_at, issued.token[4:16]) == (end, issued.id)
            assert [token.expires_at for token in team.service("by-the-client").tokens] == [end, end]
            team.delete_service_token("by-the-client", made.tokens[0].id)
            assert [token.id for token in team.service("by-the-client").tokens] == [issued.id]
            assert "by-the-client" in [one.id for one in team.services(page_size=1)]
            team.delete_service("by-the-client")
            with pytest.raises(NotFoundError):
                team.service("by-the-client")

    await asyncio.to_thread(work)
