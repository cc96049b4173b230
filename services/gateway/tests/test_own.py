"""What a tenant manages of its own, by a key: never more than that key has, and never another tenant's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from backhaul_common.tenants import SCOPES
from gateway_rig import Running

END = (datetime.now(UTC) + timedelta(days=7)).replace(microsecond=0)
BUCKET = {"endpoint": "http://169.254.169.254", "bucket": "anybodys", "credentials": "instance_role"}


class Own:
    """A tenant's own routes, by one of its keys."""

    def __init__(self, gateway: Running, key: str) -> None:
        self.gateway = gateway
        self.key = key
        self.id = key.split("_")[1]

    async def __call__(self, method: str, path: str, status: int, **body: Any) -> Any:
        answer = await self.asked(method, path, body or None)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def asked(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self.gateway.client.request(method, f"/v1/{path}", headers={"X-Api-Key": self.key}, json=body)

    async def made(self, **body: Any) -> Own:
        return Own(self.gateway, (await self("POST", "keys", 201, **body))["key"])


async def test_a_key_gives_no_more_than_it_has(gateway: Running) -> None:
    first = Own(gateway, (await gateway.tenant()).api_key)
    maker = await first.made(scopes=["manage", "read"], expires_at=END.isoformat())
    # Left out, it is the same; less is less.
    made = await maker("POST", "keys", 201)
    assert (made["scopes"], datetime.fromisoformat(made["expires_at"])) == (["read", "manage"], END)
    sooner = END - timedelta(days=1)
    made = await maker("POST", "keys", 201, scopes=["read"], expires_at=sooner.isoformat())
    assert (made["scopes"], datetime.fromisoformat(made["expires_at"])) == (["read"], sooner)
    for field, said, body in (
        ("Authorization", "ingest and send", {"scopes": ["ingest", "read", "send"]}),
        ("Authorization", "ingest", {"kind": "ingest"}),
        ("expires_at", "expires", {"scopes": ["read"], "expires_at": (END + timedelta(seconds=1)).isoformat()}),
    ):
        refused = gateway.problem(await maker.asked("POST", "keys", body), 403, field)
        assert said in refused["detail"]
    # A token does not expire, so that a key that does makes none.
    brings = await first.made(scopes=["manage", "ingest"], expires_at=END.isoformat())
    gateway.problem(await brings.asked("POST", "keys", {"kind": "ingest"}), 403, "kind")
    # What a newer version may call all is not given by a key of this one.
    assert (await first("POST", "keys", 201))["scopes"] == [*SCOPES]
    stored = gateway.tenants.find_one({"_id": "acme"})["credentials"]
    assert [one["scopes"] for one in stored][:2] == [None, None]
    assert stored[-1]["scopes"] == [*SCOPES]
    # The texts are in the answers that made them, and nowhere else.
    listed = await gateway.client.get("/v1/keys", headers={"X-Api-Key": maker.key})
    assert len(listed.json()["keys"]) == len(stored)
    assert made["key"].split("_")[2] not in listed.text
    assert "digest" not in listed.text


async def test_the_last_key_that_manages_stays_and_the_platform_team_is_never_locked_out(gateway: Running) -> None:
    first = Own(gateway, (await gateway.tenant()).api_key)
    reader = await first.made(scopes=["read"])
    gateway.problem(await first.asked("DELETE", f"keys/{first.id}"), 409, "key_id")
    # One that has expired manages nothing.
    expiring = await first.made(scopes=["manage"], expires_at=END.isoformat())
    past = {"credentials.$.expires_at": datetime.now(UTC) - timedelta(seconds=1)}
    gateway.tenants.update_one({"credentials.id": expiring.id}, {"$set": past, "$inc": {"revision": 1}})
    gateway.problem(await first.asked("DELETE", f"keys/{first.id}"), 409, "key_id")
    await first("DELETE", f"keys/{reader.id}", 204)
    gateway.problem(await reader.asked("GET", "channels"), 401)
    second = await first.made(scopes=["manage"])
    await second("DELETE", f"keys/{first.id}", 204)
    gateway.problem(await first.asked("GET", "keys"), 401)
    # Twenty keys are the tenant's own doing, and the platform team deletes any of them.
    while len((await second("GET", "keys", 200))["keys"]) < 20:
        await second.made()
    gateway.problem(await second.asked("POST", "keys"), 409)
    answer = await gateway.client.delete(f"/admin/v1/tenants/acme/keys/{second.id}", headers=gateway.admin)
    assert answer.status_code == 204
    answer = await gateway.client.post(
        "/admin/v1/tenants/acme/keys", headers=gateway.admin, json={"scopes": ["manage"]}
    )
    assert answer.status_code == 201


async def test_nobody_manages_what_is_anothers(gateway: Running) -> None:
    mallory, victim = [Own(gateway, (await gateway.tenant(name)).api_key) for name in ("mallory", "victim")]
    await victim("PUT", "channels/Twilio", 201, secrets=["a-secret-of-theirs"])
    gateway.problem(await mallory.asked("DELETE", f"keys/{victim.id}"), 404, "key_id")
    assert (await mallory("GET", "channels", 200))["channels"] == []
    for method in ("GET", "DELETE"):
        gateway.problem(await mallory.asked(method, "channels/Twilio"), 404, "label")
    await mallory("PUT", "channels/Twilio", 201, verification="off")
    shown = await victim.asked("GET", "channels/twilio")
    assert (shown.json()["verification"], shown.json()["secret_count"]) == ("enforce", 1)
    assert "a-secret-of-theirs" not in shown.text


async def test_a_key_of_a_registration_that_is_gone_changes_nothing_of_the_next(gateway: Running) -> None:
    """As if the tenant had been registered anew while the request was under way."""
    first = Own(gateway, (await gateway.tenant()).api_key)
    gateway.tenants.update_one({"_id": "acme"}, {"$pull": {"credentials": {"id": first.id}}})
    for method, path, body in (
        ("GET", "keys", None),
        ("GET", "channels", None),
        ("POST", "keys", {}),
        ("PUT", "channels/Twilio", {"secrets": ["0123456789abcdef"]}),
    ):
        gateway.problem(await first.asked(method, path, body), 401)
    stored = gateway.tenants.find_one({"_id": "acme"})
    assert (len(stored["credentials"]), stored["channels"], stored["revision"]) == (1, {}, 1)


async def test_a_tenants_channels_are_its_own_but_for_their_buckets(gateway: Running) -> None:
    own = Own(gateway, (await gateway.tenant()).api_key)
    body = {"secrets": [gateway.secret], "settings": {"audit": {"enabled": True}}}
    assert (await own("PUT", "channels/Twilio", 201, **body))["settings"] == body["settings"]
    await own("PUT", "channels/Twilio", 200, verification="observe")
    found = await own("GET", "channels/twilio", 200)
    assert (found["secret_count"], found["verification"]) == (1, "observe")
    # What the audit service has itself would open it.
    bucket = {"settings": {"audit": {"enabled": True, "bucket": BUCKET}}}
    gateway.problem(await own.asked("PUT", "channels/Twilio", bucket), 403, "settings.audit.bucket")
    gateway.problem(await own.asked("PUT", "channels/RCS", bucket), 403, "settings.audit.bucket")
    keys = {"audit_credentials": {"access_key": "a", "secret_key": "b"}}
    gateway.problem(await own.asked("PUT", "channels/Twilio", keys), 403, "audit_credentials")
    # One that the platform team gave stays, whatever else changes.
    await gateway.channel("acme", "Twilio", **bucket)
    given = (await own("GET", "channels/Twilio", 200))["settings"]
    await own("PUT", "channels/Twilio", 200, settings={"audit": {**given["audit"], "gzip": True}})
    moved = {"audit": {**given["audit"], "bucket": {**BUCKET, "bucket": "another"}}}
    gateway.problem(await own.asked("PUT", "channels/Twilio", {"settings": moved}), 403, "settings.audit.bucket")
    await own("PUT", "channels/Twilio", 200, settings={})
    await own("DELETE", "channels/Twilio", 204)
    gateway.problem(await own.asked("GET", "channels/Twilio"), 404, "label")
