"""Tenants never meet: one tenant's credentials against everything that belongs to another."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from backhaul_client import CheckItem, DestinationIn, MemberIn, NotFoundError
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from simulators.people import Tenant, Town

Json = dict[str, Any]


async def _belongings(tenant: Tenant) -> Json:
    """Rows of every kind: the ids that somebody who guesses exactly would ask for."""
    sid, reply, mail = new_sid(), new_sid(), new_message_id()
    address = tenant.address("Twilio", communicationId=f"offer-of-{tenant.id}")
    posts = [
        tenant.twilio.status(address, sid, "sent", to="+15005550042"),
        tenant.twilio.status(address, sid, "failed", to="+15005550042", ErrorCode="30003"),
        tenant.sendgrid.batch(tenant.address("SendGrid"), [tenant.sendgrid.event(mail, "delivered")]),
        tenant.sendgrid.signed(tenant.address("SendGrid"), b"[broken"),
        tenant.twilio.inbound(tenant.address("Twilio"), reply, "please cancel my appointment", sender="+15005550042"),
    ]
    for post in posts:
        assert (await tenant.send(post)).status_code == 200
    await tenant.message_with("twilio", sid, 2)
    await tenant.message_with("sendgrid", mail, 1)

    async def dead() -> str | None:
        found = await tenant.dead_letters()
        return found[0].id if found else None

    async def flagged() -> str | None:
        found = [row async for row in tenant.client.replies(flagged=True)]
        return found[0].id if found else None

    communication, batch = f"offer-of-{tenant.id}", f"batch-of-{tenant.id}"
    await tenant.client.communications.put(communication)
    await tenant.client.batches.put(communication, batch)
    destination: DestinationIn = {"channel": "Twilio", "recipient": f"+1500555{len(sid):04}"}
    member: MemberIn = {"member_key": f"member-of-{tenant.id}", "destinations": [destination]}
    assert (await tenant.client.batches.add_members(batch, [member])).added == 1
    return {
        "batch": batch,
        "sid": sid,
        "wrote": reply,
        "mail": mail,
        "communication": communication,
        "dead_letter": await until("the dead letter", dead),
        "reply": await until("the reply", flagged),
    }


async def test_no_route_of_v1_gives_or_changes_anothers_row(town: Town) -> None:
    mallory, victim = await town.platform.register(), await town.platform.register()
    own, theirs = await _belongings(mallory), await _belongings(victim)
    paths = {
        "/v1/messages/{channel}/{message_id}": [
            f"/v1/messages/twilio/{theirs['sid']}",
            f"/v1/messages/sendgrid/{quote(theirs['mail'], safe='')}",
        ],
        "/v1/communications/{communication_id}": [f"/v1/communications/{theirs['communication']}"],
        "/v1/dead-letters/{dead_letter_id}": [f"/v1/dead-letters/{theirs['dead_letter']}"],
        "/v1/batches/{batch_id}": [
            f"/v1/batches/{theirs['batch']}",
            f"/v1/batches/{theirs['batch']}?includemembers=true",
            f"/v1/batches/{theirs['batch']}?includemembers=true&limit=1",
        ],
    }
    previews = "/v1/channels/{label}/preview"
    changes = {
        "/v1/dead-letters/{dead_letter_id}/replay": f"/v1/dead-letters/{theirs['dead_letter']}/replay",
        "/v1/dead-letters/{dead_letter_id}/discard": f"/v1/dead-letters/{theirs['dead_letter']}/discard",
        "/v1/replies/{reply_id}/accept": f"/v1/replies/{theirs['reply']}/accept",
        "/v1/replies/{reply_id}/dismiss": f"/v1/replies/{theirs['reply']}/dismiss",
    }
    lists = {
        "/v1/messages": [
            {"recipient": "+15005550042"}, {"communication": theirs["communication"]}, {"error_code": "30003"}, {},
        ],
        "/v1/events": [
            {"message_id": theirs["sid"], "channel": "twilio"}, {"communication": theirs["communication"]}, {},
        ],
        "/v1/dead-letters": [{"channel": "sendgrid"}, {}],
        "/v1/replies": [{"flagged": "true"}, {"communication": theirs["communication"]}, {}],
        "/v1/communications": [{"registered": "true"}, {}],
        "/v1/batches": [{"communication": theirs["communication"]}, {"status": "open"}, {}],
    }  # fmt: skip
    replays = {
        *(f"/v1/dead-letters/{action}" for action in ("replay", "discard")),
        *(f"/v1/replays{path}" for path in ("", "/{replay_id}", "/{replay_id}/cancel")),
    }
    sums = "/v1/stats"
    counts = {"/v1/errors": [{"error_code": "30003"}, {"channel": "twilio"}, {}]}
    suppressed = {
        f"/v1/suppressions{path}"
        for path in (
            "", "/address", "/changes", "/lift", "/reactivate", "/check", "/check-batch", "/import", "/export",
        )
    }  # fmt: skip
    # That no files of one tenant are another's is tried in test_audit_files.py, where there are some.
    audits = {
        f"/v1/audits{path}"
        for path in (
            "", "/head", "/proof", "/verify", "/digests", "/digests/{chain}/{number}", "/{file_id}", "/{file_id}/link",
            "/{file_id}/content", "/erasures", "/recount",
        )
    }  # fmt: skip
    # That no reports of one tenant are another's is tried in the reconciler's own tests, where there are some.
    reconciled = {
        f"/v1/reconciliation/{path}"
        for path in ("channels", "reports", "reports/{report_id}", "differences", "days/{day}", "runs")
    }
    # That no subscription and no delivery of one tenant is another's is tried in the notifier's own tests.
    notified = {
        "/v1/event-types",
        "/v1/deliveries",
        "/v1/deliveries/{delivery_id}",
        "/v1/deliveries/{delivery_id}/redeliver",
        "/v1/subscriptions",
        "/v1/subscriptions/{subscription_id}",
        *(
            f"/v1/subscriptions/{{subscription_id}}/{action}"
            for action in ("pause", "resume", "rotate-secret", "test", "redeliver")
        ),
    }
    told = {
        "/v1/sends",
        "/v1/communications/{communication_id}/batches/{batch_id}",
        *(f"/v1/communications/{{communication_id}}/{action}" for action in ("disable", "enable")),
        *(f"/v1/batches/{{batch_id}}/{action}" for action in ("members", "close")),
    }
    # That nobody is erased from another's data is tried in the services' own tests.
    people = "/v1/recipients/{address}"
    # That nobody manages what is another's is tried in the gateway's own tests.
    managed = {"/v1/keys", "/v1/keys/{key_id}", "/v1/channels", "/v1/channels/{label}"}
    # A route that is added later must be added here as well.
    document = (await town.http.get(f"{mallory.base_url}/openapi.json")).json()
    known = {
        path.replace(":path", "")
        for path in (
            *paths,
            *changes,
            *lists,
            *counts,
            *suppressed,
            *audits,
            *reconciled,
            *replays,
            *notified,
            *told,
            *managed,
            previews,
            sums,
            people,
            # One does not end, and all are the caller's own: what they tell of whom is tried in the gateway's tests.
            "/v1/events/stream",
            "/v1/whoami",
            "/v1/overview",
            "/v1/changes",
        )
    }
    assert {path for path in document["paths"] if path.startswith("/v1")} == known

    hidden = [
        theirs["sid"],
        theirs["wrote"],
        theirs["mail"],
        theirs["communication"],
        theirs["batch"],
        theirs["dead_letter"],
        theirs["reply"],
        victim.id,
    ]
    for path in [path for group in paths.values() for path in group]:
        assert (await victim.get(path)).status_code == 200, path  # It is there, for its owner.
        refused = await mallory.get(path)
        assert refused.status_code == 404, path
        assert victim.id not in refused.text or victim.id in path
    for path in changes.values():
        assert (await mallory.post(path)).status_code == 404, path
    assert (await victim.client.dead_letter(theirs["dead_letter"])).state == "open"
    for path, all_filters in lists.items():
        for filters in all_filters:
            assert (await victim.read(path, **filters))[path[4:].replace("-", "_")], (path, filters)
            shown = json.dumps(await mallory.read(path, **filters))
            assert not [text for text in hidden if text in shown], (path, filters)
        # Whoever holds a cursor of another's list sees the own rows behind it, or nothing.
        cursor = (await victim.read(path, limit=1))["next_cursor"]
        if cursor:
            answer = await mallory.get(path, cursor=cursor)
            assert not [text for text in hidden if text in answer.text], path
    for path, all_filters in counts.items():
        for filters in all_filters:
            # One failure each: what is counted of another would be a second.
            for tenant in (mallory, victim):
                (count,) = (await tenant.read(path, **filters))[path[4:]]
                assert (count["error_code"], count["count"]) == ("30003", 1), (path, filters)
    groups = {"group_by": "communication,channel"}
    counted = {row["communication_id"] for row in (await victim.read(sums, **groups))["rows"]}
    assert counted - {None} == {theirs["communication"]}
    shown = json.dumps(await mallory.read(sums, **groups))
    assert not [text for text in hidden if text in shown]
    assert (await mallory.read(sums, communication=theirs["communication"]))["rows"] == []
    # A preview is of an own channel, and judged by its own secrets, whoever's address it names.
    await town.platform.client.put_channel(victim.id, "Theirs", provider="twilio", secrets=["theirs"])
    with pytest.raises(NotFoundError):
        await mallory.client.preview("Theirs", body="")
    for tenant, result in ((mallory, "refused"), (victim, "verified")):
        post = victim.twilio.status(victim.address("Twilio"), theirs["sid"], "read")
        found = await tenant.client.preview("Twilio", body=post.body, headers=dict(post.headers), url=post.url)
        assert found.verification.result == result
        assert victim.id not in str(found)
    assert (await victim.client.message("twilio", theirs["sid"])).state == "failed"
    await _who_is_suppressed_at_one_is_nobody_at_another(mallory, victim)
    await _what_one_registers_is_nobody_elses(mallory, victim, theirs["communication"], theirs["batch"])
    await _how_it_stands_with_one_is_nobody_elses(mallory, victim)
    await _what_one_replays_is_nobody_elses(mallory, victim)
    # Parameters that name a tenant are no way in.
    for name in ("tenant", "tenant_id", "tenantId"):
        answer = await mallory.get("/v1/events", **{name: victim.id})
        assert answer.status_code == 422
        shown = answer.text
        assert not [text for text in hidden if text in shown.replace(victim.id, "", 1) and text != victim.id], name
    assert {row.message_id for row in await mallory.messages()} == {own["sid"], own["mail"], own["wrote"]}


async def _who_is_suppressed_at_one_is_nobody_at_another(mallory: Tenant, victim: Tenant) -> None:
    theirs = "+15005550099"
    await victim.client.suppress(theirs, "manual", note="a secret")
    own, other = mallory.client, victim.client
    assert (await own.check(theirs)).allowed
    assert [one.allowed for one in (await own.check_batch([CheckItem(theirs)])).results] == [True]
    record = await own.suppression_record(theirs)
    assert (record.suppressions, record.history) == ((), ())
    assert [row.address async for row in own.suppressions(standing="any")] == []
    assert (await own.suppression_changes(0)).changes == ()
    assert theirs not in b"".join([piece async for piece in own.export_suppressions()]).decode()
    for refused in (own.lift_suppression(theirs, "manual"), own.reactivate(theirs)):
        with pytest.raises(NotFoundError):
            await refused
    # What is said of the same number by another is another's.
    assert (await own.suppress(theirs, "manual")).changed
    assert (await own.import_suppressions(f"address\n{theirs}\n".encode())).refused == 0
    assert (await own.lift_suppression(theirs, "manual")).changed
    assert (await own.check(theirs)).allowed
    assert not (await other.check(theirs)).allowed
    (change,) = (await other.suppression_changes(0)).changes
    assert (change.position, change.fact.note) == (1, "a secret")
    assert (await own.suppression_record(theirs)).history[0].fact.note == ""


async def _how_it_stands_with_one_is_nobody_elses(mallory: Tenant, victim: Tenant) -> None:
    own, other = mallory.client.reconciliation, victim.client.reconciliation

    async def known() -> bool:
        return "theirs" in {channel.channel for channel in await other.channels()}

    # "Theirs" is a channel of the victim's alone.
    await until("the reconciler knows the channel", known)
    assert "theirs" not in {channel.channel for channel in await own.channels()}
    for refused in (own.begin("Theirs"), own.day("Theirs", "2026-11-25"), own.report("0" * 32)):
        with pytest.raises(NotFoundError):
            await refused
    for rows in (own.reports(channel="Theirs"), own.differences(channel="Theirs")):
        assert [row async for row in rows] == []


async def _what_one_replays_is_nobody_elses(mallory: Tenant, victim: Tenant) -> None:
    own, other = mallory.client.replays, victim.client.replays
    theirs = await other.discard_dead_letters(reason="Nobody's")
    assert [one.id async for one in own.list()] == []
    for refused in (own.get(theirs.id), own.cancel(theirs.id)):
        with pytest.raises(NotFoundError):
            await refused
    # "Theirs" is a channel of the victim's alone.
    with pytest.raises(NotFoundError):
        await own.begin("Theirs", from_=datetime.fromisoformat("2026-11-01T00:00:00Z"))
    found = await own.discard_dead_letters(from_=datetime.fromisoformat("2026-11-01T00:00:00Z"))

    async def over() -> bool:
        return (await own.get(found.id)).state == "done"

    await until("the replay is over", over)
    assert {row.state for row in await victim.dead_letters()} == {"open"}


async def _what_one_registers_is_nobody_elses(mallory: Tenant, victim: Tenant, communication: str, batch: str) -> None:
    own, other = mallory.client, victim.client
    before = await other.communications.get(communication), [one async for one in other.batches.members(batch)]
    member: MemberIn = {"member_key": "mallory", "destinations": [{"channel": "Twilio", "recipient": "+15005550042"}]}
    for refused in (
        own.communications.disable(communication, reason="x"),
        own.communications.enable(communication),
        own.batches.put(communication, batch, label="x"),
        own.batches.add_members(batch, [member]),
        own.batches.close(batch),
    ):
        with pytest.raises(NotFoundError):
            await refused
    # Of the same ids each has its own.
    await own.communications.put(communication, name="Mallory's")
    await own.batches.put(communication, batch)
    assert (await own.batches.add_members(batch, [member])).added == 1
    assert (await own.batches.close(batch)).status == "closed"
    await own.communications.disable(communication, reason="x")
    mine = await own.communications.get(communication)
    assert (mine.messages, mine.batches[0].progress.members) == (0, 1)
    assert [one.member_key async for one in own.batches.members(batch)] == ["mallory"]
    after = await other.communications.get(communication), [one async for one in other.batches.members(batch)]
    assert after == before


async def test_callbacks_stay_with_the_credentials_tenant_whatever_they_say(town: Town) -> None:
    mallory, victim = await town.platform.register(), await town.platform.register()
    removed = await town.platform.call("DELETE", f"/{mallory.id}/channels/SendGrid")
    assert removed.status_code == 204
    only_victims = mallory.sendgrid.batch(
        mallory.address("SendGrid"), [mallory.sendgrid.event(new_message_id(), "delivered")]
    )
    # A channel that only the other tenant has does not exist for this one.
    assert (await mallory.send(only_victims)).status_code == 404

    sid = new_sid()
    # Signed with the victim's secret, sent with the own credential: not authentic for any channel of the sender.
    stolen = victim.twilio.status(mallory.address("Twilio"), sid, "sent")
    assert (await mallory.send(stolen)).status_code == 403
    # Signed with the own secret, sent with the victim's ingest token: not authentic for the victim.
    planted = mallory.twilio.status(victim.address("Twilio"), sid, "sent")
    assert (await mallory.send(planted)).status_code == 403
    # Everything in the request names the victim, but the credential does not.
    address = mallory.address("Twilio", tenant=victim.id, tenant_id=victim.id, queue_path=victim.queue_path)
    named = mallory.twilio.status(address, sid, "sent", TenantId=victim.id).with_header("X-Tenant-Id", victim.id)
    assert (await mallory.send(named)).status_code == 200

    assert (await mallory.message_with("twilio", sid, 1)).event_count == 1
    assert await victim.message("twilio", sid) is None
    assert await victim.events() == []


async def test_one_message_id_at_two_tenants_is_two_messages(town: Town) -> None:
    first, second = await town.platform.register(), await town.platform.register()
    sid = new_sid()
    for tenant, words in ((first, ("sent", "delivered")), (second, ("sent",))):
        for word in words:
            address = tenant.address("Twilio", communicationId="same")
            assert (await tenant.send(tenant.twilio.status(address, sid, word))).status_code == 200
    assert (await first.message_with("twilio", sid, 2)).state == "delivered"
    assert (await second.message_with("twilio", sid, 1)).state == "sent"
    assert (await first.client.communication("same")).events == {"sent": 1, "delivered": 1}
    assert (await second.client.communication("same")).events == {"sent": 1}


@pytest.mark.parametrize("credential", ["api key", "ingest token", "none", "admin token"])
async def test_a_credential_opens_only_what_it_is_for(town: Town, installation: Any, credential: str) -> None:
    tenant = await town.platform.register()
    value = {
        "api key": tenant.api_key,
        "ingest token": tenant.ingest_token,
        "none": "",
        "admin token": installation.admin_token,
    }[credential]
    headers = {"Authorization": f"Bearer {value}"} if value else {}

    async def status(method: str, path: str) -> int:
        return (await town.http.request(method, tenant.base_url + path, headers=headers)).status_code

    read = 200 if credential == "api key" else 401
    administer = 200 if credential == "admin token" else 401
    assert await status("GET", "/v1/messages") == read
    assert await status("GET", "/api/status?channelLabel=Twilio") == read
    assert await status("GET", f"/admin/v1/tenants/{tenant.id}") == administer
    assert await status("GET", "/admin/v1/tenants") == administer
    assert await status("POST", "/admin/v1/tenants") == (422 if credential == "admin token" else 401)
    assert await status("DELETE", f"/admin/v1/tenants/{tenant.id}/channels/x") == (
        404 if credential == "admin token" else 401
    )
    # An API key is no ingest token, nor the other way round.
    as_token = replace(tenant, ingest_token=value or "x")
    answer = await tenant.send(tenant.twilio.status(as_token.address("Twilio"), new_sid(), "sent"))
    assert answer.status_code == (200 if credential == "ingest token" else 401)
