"""The log of changes of a whole installation: what each service really did is in it, and no secret of any."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import grpc
from backhaul_testing.waiting import until
from simulators.callers import tls_of
from simulators.reflecting import ReflectingClient

if TYPE_CHECKING:
    from backhaul_client.notifications import HttpIn
    from backhaul_local.stack import Stack
    from simulators.people import Town

SECRET, PERSON = "whsec_" + "QmFja2hhdWwtcGxhbnRlZC1zZWNyZXQtMQ==", "+15005550077"


async def test_what_a_tenant_and_the_platform_team_do_is_in_the_log(town: Town) -> None:
    tenant = await town.platform.register()
    own, team = tenant.client, town.platform.client
    key = await own.add_key(scopes=["read"])
    await own.put_channel("Other", provider="twilio", secrets=["planted-secret"])
    await own.communications.put("spring", name="Spring")
    await own.batches.put("spring", "first")
    await own.communications.disable("spring", reason=f"{PERSON} complained")
    await own.communications.enable("spring")
    await own.batches.close("first")
    await own.suppress(PERSON, "manual", note=f"{PERSON} called")
    await own.lift_suppression(PERSON, "manual")
    await own.import_suppressions(f"address\n{PERSON}\n".encode())
    await own.erase_recipient(PERSON)
    where: HttpIn = {
        "url": "https://hooks.example.com/planted-path",
        "headers": [{"name": "X", "value": "planted-header"}],
    }
    subscription = await own.subscriptions.create(["message.*"], http=where, secret=SECRET)
    await own.subscriptions.pause(subscription.id)
    await own.subscriptions.delete(subscription.id)
    await own.delete_channel("Other")
    await own.delete_key(key.id)
    await team.change_tenant(tenant.id, limits={"burst": 77})

    # Not what was read.
    entries = [one async for one in own.changes()]
    made = [(one.action.partition(" ")[2].removeprefix("/v1/"), one.outcome) for one in reversed(entries)]
    assert [path for path, _ in made if not path.startswith("/admin")] == [
        "keys",
        "channels/{label}",
        "communications/{communication_id}",
        "communications/{communication_id}/batches/{batch_id}",
        "communications/{communication_id}/disable",
        "communications/{communication_id}/enable",
        "batches/{batch_id}/close",
        "suppressions",
        "suppressions/lift",
        "suppressions/import",
        "recipients/{address}",
        "subscriptions",
        "subscriptions/{subscription_id}/pause",
        "subscriptions/{subscription_id}",
        "channels/{label}",
        "keys/{key_id}",
    ]
    assert {outcome for _, outcome in made} == {"done"}
    author = f"key:{tenant.api_key.split('_')[1]}"
    assert {one.author for one in entries if one.action.split()[1].startswith("/v1")} == {author}
    by_action = {one.action: one for one in entries}
    told = by_action["POST /v1/subscriptions"]
    assert told.target == {"id": subscription.id}
    assert told.after is not None
    assert told.after["http"] == {"url": "https://hooks.example.com/***", "headers": "***"}
    latest = entries[0]
    assert latest.before is not None
    assert latest.after is not None
    assert (latest.after["limits"]["burst"], latest.author, latest.client) == (77, "admin:admin", None)
    assert latest.before["limits"]["burst"] != 77
    text = str(entries)
    hidden = (
        SECRET,
        PERSON,
        "planted",
        key.key,
        tenant.api_key,
        *(one.secret or "x-none" for one in subscription.secrets),
    )
    assert not [one for one in hidden if one in text]

    # The platform team sees the same, and from where.
    seen = [one async for one in team.changes(tenant=tenant.id)]
    assert [one.id for one in seen] == [one.id for one in entries]
    assert all(one.client for one in seen)


async def test_what_a_service_account_changes_over_grpc_is_in_the_log(
    storing_town: Town, storing_installation: Stack
) -> None:
    town, stack = storing_town, storing_installation
    tenant, other = await town.platform.register(), await town.platform.register()
    verbs = ["add", "lift", "erase", "reconcile", "subscribe"]
    account = await town.platform.client.create_service(
        f"crm-{secrets.token_hex(4)}", name="CRM", tenants=[tenant.id], verbs=verbs
    )

    async def call(service: str, method: str, **fields: Any) -> Any:
        """The first answer, once the service knows the account."""

        def once() -> Any:
            contract = f"backhaul_proto.{service}.v1.{service.title()}Service"
            with ReflectingClient(f"127.0.0.1:{stack.port(service, 'grpc')}", tls_of(stack), account.token) as client:
                try:
                    return client.call(contract, method, {"tenant_id": tenant.id, **fields}, at_most=1)
                except grpc.RpcError as exc:
                    if exc.code() is grpc.StatusCode.UNAUTHENTICATED:
                        return None
                    raise

        return await until(f"{method} is let in", lambda: asyncio.to_thread(once))

    await call("suppression", "Add", address=PERSON, kind="SUPPRESSION_KIND_MANUAL", note=f"{PERSON} called")
    await call("suppression", "Lift", address=PERSON, kind="SUPPRESSION_KIND_MANUAL")
    await call("audit", "ErasePerson", address=PERSON)
    (made,) = await call(
        "notifier",
        "CreateSubscription",
        definition={"types": ["*"], "http": {"url": "https://hooks.example.com/planted-path"}},
        secret=SECRET,
    )
    subscription = made["subscription"]["id"]
    await call("notifier", "PauseSubscription", id=subscription)

    entries = [one async for one in tenant.client.changes(author=f"service:{account.id}")]
    assert [(one.action.rpartition(".")[2], one.kind, one.outcome) for one in reversed(entries)] == [
        ("SuppressionService/Add", "suppression", "done"),
        ("SuppressionService/Lift", "suppression", "done"),
        ("AuditService/ErasePerson", "recipient", "done"),
        ("NotifierService/CreateSubscription", "subscription", "done"),
        ("NotifierService/PauseSubscription", "subscription", "done"),
    ]
    assert [one.target for one in entries[:2]] == [{"id": subscription}] * 2
    assert {one.client for one in entries} == {None}
    team = [one async for one in town.platform.client.changes(author=f"service:{account.id}")]
    assert {(one.client, one.tenant_id) for one in team} == {("127.0.0.1", tenant.id)}
    text = str(team)
    assert not [one for one in (SECRET, PERSON, "planted", account.token) if one in text]
    assert [one async for one in other.client.changes(author=f"service:{account.id}")] == []
    await town.platform.client.delete_service(account.id)
