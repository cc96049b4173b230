"""What a tenant manages of its own: channels, keys, and what was changed of either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from backhaul_client import AsyncTenantClient
from backhaul_testing.posts import send
from backhaul_testing.twilio import TwilioSimulator, new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

HOSTILE = '"><script>alert(1)</script>'


def at(tenant: Tenant, path: str) -> str:
    return f"/console/t/{tenant.id}{path}"


def shown_once(page: BeautifulSoup) -> list[str]:
    """The texts of a page that shows them once."""
    return [one.get_text() for one in page.select(".once-texts code")]


def scripts(page: BeautifulSoup) -> list[str]:
    return [str(one) for one in page.find_all("script") if not one.get("src")]


async def test_a_channel_is_set_up_observed_and_then_enforced(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    twilio = TwilioSimulator()
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/channels"))
    await visitor.follow("Set up a channel")
    await visitor.follow("Twilio")
    await visitor.submit("/_new", label="Twilio")
    assert (visitor.status, "There is a channel of this label." in visitor.text) == (422, True)
    typed: dict[str, Any] = {"label": "Second Twilio", "secrets[0]": "not-the-token", "settings": "{"}
    await visitor.submit("/_new", **typed)
    assert (visitor.status, "This is no JSON object." in visitor.text) == (422, True)
    assert "not-the-token" not in str(visitor.page)
    # What the API refuses of a field stands beside it, and beside no other.
    wrong = {**typed, "settings": "", "settings.reconcile.messaging_services": "MG1", "settings.audit.enabled": "yes"}
    page = await visitor.submit("/_new", **wrong)
    assert visitor.status == 422
    assert [one["name"] for one in page.select('[aria-invalid="true"]')] == ["settings.reconcile.messaging_services"]
    await visitor.submit("/_new", **{**wrong, "settings.reconcile.messaging_services": ""})
    assert "The channel is there." in visitor.text
    channel = await tenant.client.channel("Second Twilio")
    assert (channel.provider, channel.secret_count, channel.verification) == ("twilio", 1, "observe")
    assert channel.settings == {"audit": {"enabled": True}}

    # The address with a new token is on the answer, and on no other page.
    page = await visitor.submit("/address")
    (address,) = shown_once(page)
    assert "/in/bhi_" in address
    assert visitor.url.endswith("/address")
    await visitor.follow("I have it: go on")
    assert "bhi_" not in str(visitor.page)

    # The secret is wrong, and nothing is lost by it: what would be refused is counted before it is.
    sid = new_sid()
    answer = await send(tenant.http, twilio.status(address, sid, "sent"))
    assert answer.status_code == 200
    await tenant.message_with(channel.key, sid, 1, within_s=60)
    await visitor.follow("Change to enforce…")
    assert "Of these it would have refused 1" in visitor.main
    (event,) = await tenant.events()
    assert event.received_at is not None
    assert f"The oldest of them {event.received_at:%Y-%m-%d %H:%M:%S} UTC" in visitor.main
    await visitor.go(at(tenant, "/channels/Second%20Twilio/edit"))
    right: dict[str, Any] = {"secrets[0]": twilio.auth_token}
    await visitor.submit("/edit", **right)
    assert "Saved." in visitor.text
    assert twilio.auth_token not in str(visitor.page)
    await visitor.follow("Change to enforce…")
    await visitor.submit("/verification")
    assert (await tenant.client.channel("Second Twilio")).verification == "enforce"

    async def enforced() -> bool:
        refused = TwilioSimulator().status(address, new_sid(), "sent")
        return (await send(tenant.http, refused)).status_code == 403

    await until("a bad signature is refused", enforced, within_s=60)

    await visitor.go(at(tenant, "/channels/Second%20Twilio"))
    await visitor.follow("Hold processing…")
    assert (await tenant.client.channel("Second Twilio")).processing == "on"
    await visitor.submit("/processing")
    assert (await tenant.client.channel("Second Twilio")).processing == "held"
    await visitor.submit("/processing")
    assert (await tenant.client.channel("Second Twilio")).processing == "on"
    # Settings that are emptied are the provider's defaults again.
    await visitor.go(at(tenant, "/channels/Second%20Twilio/edit"))
    keys = "settings.communication_keys"
    more: dict[str, Any] = {keys: "campaign\noffer", "settings": '{"audit": {"gzip": true}}'}
    await visitor.submit("/edit", **more)
    assert (await tenant.client.channel("Second Twilio")).settings == {
        "communication_keys": ["campaign", "offer"],
        "audit": {"enabled": True, "gzip": True},
    }
    await visitor.follow("Secrets and settings")
    await visitor.submit("/edit", settings='{"communication_keys": ["other"]}')
    assert visitor.status == 422
    assert "Say it in one of the two places." in visitor.main
    emptied: dict[str, Any] = {keys: "", "settings": "", "settings.audit.enabled": ""}
    await visitor.submit("/edit", **emptied)
    assert (await tenant.client.channel("Second Twilio")).settings == {}
    await visitor.follow("Remove…")
    await visitor.submit("/delete")
    assert [one[0] for one in visitor.rows("Channels")] == ["SendGrid", "Twilio"]


def test_fields_are_of_the_providers_schemas() -> None:
    from backhaul_channels.registry import load_adapters
    from backhaul_console.providers import KNOWN

    adapters = load_adapters()
    assert KNOWN.keys() == adapters.keys()
    for name, adapter in adapters.items():
        of = KNOWN[name]
        assert of.label == next(iter(adapter.labels), "")
        model = adapter.puller.credentials_model if adapter.puller is not None else None
        assert of.credentials.keys() == (model.model_fields.keys() if model is not None else set())
        schema = adapter.settings_model.model_json_schema()
        for one in of.settings:
            found = schema
            for part in one.path.split("."):
                found = found["properties"][part]
                found = schema["$defs"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found
            kinds = {"tick": "boolean", "lines": "array", "choice": "string"}
            assert found["type"] == kinds[one.kind], (name, one.path)
            assert [option for option, _text in one.options if option] == found.get("enum", []), (name, one.path)


async def test_a_preview_shows_what_strangers_wrote_as_text(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/channels/Twilio/preview"))
    post = tenant.twilio.inbound(tenant.address("Twilio"), new_sid(), HOSTILE, sender="+15005550011")
    await visitor.submit("/preview", body=post.body.decode(), headers="X-Twilio-Signature")
    assert (visitor.status, "A line has no colon." in visitor.text) == (422, True)
    page = await visitor.submit("/preview", body=post.body.decode(), headers="X-Twilio-Signature: wrong")
    assert visitor.status == 200, visitor.text
    assert HOSTILE in visitor.main
    assert "refused" in visitor.main
    assert "+15005550011" not in visitor.url
    assert scripts(page) == []
    assert await tenant.events() == []


async def test_keys_are_shown_once_and_revoked_after_a_question(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/keys"))
    before = len(visitor.rows("Keys"))
    await visitor.submit("/keys", expires_at="2100-01-01")
    assert (visitor.status, "Tick what it opens." in visitor.text) == (422, True)
    await visitor.submit("/keys", scopes="read", expires_at="2001-01-01")
    assert visitor.status == 422
    page = await visitor.submit("/keys", scopes="read", expires_at="2100-01-01")
    (text,) = shown_once(page)
    made = AsyncTenantClient(tenant.base_url, text, http=tenant.http)
    holder = await made.whoami()
    assert holder.scopes == ("read",)
    await visitor.follow("I have it: go on")
    assert text not in str(visitor.page)
    assert len(visitor.rows("Keys")) == before + 1
    await visitor.go(at(tenant, f"/keys/{holder.key_id}/revoke"))
    assert (await made.whoami()).key_id == holder.key_id
    await visitor.submit("/revoke")
    assert len(visitor.rows("Keys")) == before
    await visitor.go(at(tenant, f"/keys/{holder.key_id}/revoke"))
    assert "no such thing any more" in visitor.text

    page = await visitor.submit("/keys", kind="ingest")
    assert [one[:4] for one in shown_once(page)] == ["bhi_", *["http"] * (len(shown_once(page)) - 1)]

    await visitor.go(at(tenant, "/changes"))
    assert "POST /v1/keys" in visitor.main
    assert text not in str(visitor.page)


async def test_the_log_of_changes_shows_what_became_another(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await tenant.client.put_channel("Twilio", verification="observe", secrets=["planted"])
    await visitor.sign_in(tenant.api_key)
    await visitor.go(at(tenant, "/changes?action=PUT+/v1/channels/%7Blabel%7D"))
    found = [region for region in visitor.page.select('[role="region"]') if "observe" in region.get_text()]
    rows = [[cell.get_text().strip() for cell in row.find_all(["th", "td"])] for row in found[0].select("tbody tr")]
    assert ["enforce", "observe"] in [row[1:] for row in rows]
    assert "planted" not in str(visitor.page)
    await visitor.go(at(tenant, "/changes?from=soon"))
    assert (visitor.status, "This is no time." in visitor.text) == (422, True)
    page = await visitor.go(at(tenant, "/changes?author=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"))
    assert "Nothing was changed." in visitor.main
    assert scripts(page) == []


async def test_a_key_that_only_reads_changes_nothing(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await other.client.put_channel("Elsewhere", provider="twilio", secrets=["x"])
    reading = await tenant.client.add_key(scopes=["read"])
    await visitor.sign_in(reading.key)
    for path in ("/channels", "/channels/Twilio"):
        page = await visitor.go(at(tenant, path))
        assert visitor.status == 200, visitor.text
        assert page.select("main form") == []
        assert "Elsewhere" not in visitor.text
    await visitor.go(at(tenant, "/channels/Twilio/preview"))
    assert visitor.status == 200
    for path in ("/keys", "/changes"):
        await visitor.go(at(tenant, path))
        assert visitor.status == 403
        assert f"/console/t/{tenant.id}{path}" not in [str(a["href"]) for a in visitor.page.select("nav a[href]")]
    await visitor.go(at(tenant, "/channels/Twilio/verification?to=off"))
    await visitor.submit("/verification")
    assert visitor.status == 403
    assert (await tenant.client.channel("Twilio")).verification == "enforce"
    await visitor.go(at(tenant, "/channels/Elsewhere"))
    assert visitor.status == 404


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_and_adds_a_key(town: Town, opened: Open) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    await tenant.client.put_channel("Twilio", verification="observe")
    key = (await tenant.client.keys())[0].id
    one = "/channels/Twilio"
    paths = [
        "/channels",
        "/channels/_new",
        "/channels/_new?provider=twilio",
        "/channels/_new?provider=rcs",
        one,
        *(f"{one}/{page}" for page in ("edit", "preview", "processing", "delete")),
    ]
    paths += [f"{one}/verification?to=enforce", "/keys", f"/keys/{key}/revoke", "/changes"]
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(tenant.api_key)
        await browser.walk(*(at(tenant, path) for path in paths))
    await browser.go(at(tenant, f"{one}/preview"))
    await browser.page.get_by_label("Body").fill(
        "MessageSid=SM1&MessageStatus=failed&ErrorCode=30006&To=%2B15005550001"
    )
    await browser.page.get_by_role("button", name="Show what it would be").press("Enter")
    await browser.page.get_by_text("What would become of it").wait_for()
    await browser.accessible()
    await browser.go(at(tenant, "/keys"))
    await browser.page.get_by_label("read:").check()
    await browser.page.get_by_role("button", name="Add", exact=True).press("Enter")
    await browser.page.get_by_text("This is shown once").wait_for()
    await browser.accessible()
