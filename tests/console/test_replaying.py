"""Dead letters and replays: looked at, tried out, counted, and then done to those that were counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.models import DeadLetterSummary
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\N{RIGHT-TO-LEFT OVERRIDE}"


async def _letters(tenant: Tenant, *bodies: bytes) -> list[DeadLetterSummary]:
    """Dead letters of what SendGrid has sent, the newest first."""
    before = len(await tenant.dead_letters())
    await tenant.receive(*(tenant.sendgrid.signed(tenant.address("SendGrid", note="1"), body) for body in bodies))

    async def filed() -> list[DeadLetterSummary] | None:
        found = await tenant.dead_letters()
        return found if len(found) == before + len(bodies) else None

    return await until("the dead letters", filed, within_s=60)


async def _counted(visitor: Visitor) -> None:
    """Load the page of a replay until it is over, as somebody without JavaScript does."""

    async def over() -> bool:
        await visitor.go(visitor.url)
        going_on: bool = "Load again" in visitor.main
        return not going_on

    await until("the end of the replay", over, within_s=60)
    assert "done" in visitor.main, visitor.main


async def test_one_dead_letter_is_looked_at_tried_out_sent_through_and_discarded(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    body = f'[{{"event": "delivered", "note": {HOSTILE}'.encode()
    [letter] = await _letters(tenant, body)
    await visitor.sign_in(tenant.api_key)
    await visitor.follow("Dead letters")
    assert [row[1] for row in visitor.rows("Dead letters")] == [letter.reason]
    await visitor.follow(letter.id[:8])
    # What a stranger wrote is there as a text.
    assert HOSTILE in visitor.page.get_text()
    assert visitor.page.find("img") is None
    assert all("alert" not in script.get_text() for script in visitor.page.find_all("script"))
    assert tenant.ingest_token not in str(visitor.page)

    # As it came it becomes a dead letter again; with a body that can be read, an event.
    await visitor.submit("/preview")
    assert "With the body as it came" in visitor.main
    [part] = visitor.rows("What would become of each part")
    assert part[0].endswith("dead letter")
    edited = '[{"event": "delivered", "sg_message_id": "m-1", "email": "anna@example.com", "timestamp": 1700000000}]'
    await visitor.submit("/preview", body=edited)
    assert "With the body as it stands below" in visitor.main
    assert [row[0:4] for row in visitor.rows("What would become of each part")] == [
        ["ok event", "delivered", "m-1", "anna@example.com"]
    ]
    assert "refused" in visitor.main, "a body that was edited does not fit its signature"
    await visitor.submit("/preview", headers="no header")
    assert visitor.status == 422
    assert "Name: value" in visitor.main

    # Sent through, it is refused again; discarded, after a page that asks, it stays closed.
    await visitor.go(f"/console/t/{tenant.id}/dead-letters/{letter.id}")
    await visitor.submit("/replay")
    assert visitor.status == 200
    assert "sent through once more" in visitor.main

    async def open_again() -> bool:
        found = await tenant.client.dead_letter(letter.id)
        return found.state == "open" and found.occurrences == 2

    await until("the dead letter to be open again", open_again, within_s=60)
    await visitor.go(f"/console/t/{tenant.id}/dead-letters/{letter.id}/discard")
    assert (await tenant.client.dead_letter(letter.id)).state == "open"
    await visitor.submit("/discard")
    assert (await tenant.client.dead_letter(letter.id)).state == "discarded"
    assert "Send it through" not in visitor.main


async def test_what_is_done_to_many_is_done_to_those_that_were_counted(
    town: Town, visitor: Visitor, admin_token: str
) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    counted = await _letters(tenant, b"[1", b"[2")
    await _letters(other, b"[9")
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/dead-letters?channel=SendGrid")
    await visitor.follow("Send through or discard all that fit…")
    await visitor.submit("/fitting", what="discard")
    await _counted(visitor)
    page = visitor.url
    assert "2 open dead letters fit." in visitor.main
    assert len(await tenant.dead_letters(state="open")) == 2
    # One that comes before somebody decides was not counted.
    late, *_ = await _letters(tenant, b"[3")
    await visitor.submit("/begin")
    await _counted(visitor)
    first = visitor.url
    assert {row.id for row in await tenant.dead_letters(state="discarded")} == {one.id for one in counted}
    assert [row.id for row in await tenant.dead_letters(state="open")] == [late.id]
    # Sent twice, it is done once.
    await visitor.go(page)
    await visitor.submit("/begin")
    assert visitor.url.partition("?")[0] == first.partition("?")[0]
    assert len(await other.dead_letters(state="open")) == 1

    # The platform team does the same for a tenant; a replay is its own tenant's alone.
    await visitor.sign_in(admin_token)
    await visitor.go(f"/console/admin/tenants/{tenant.id}/dead-letters")
    await visitor.submit("/dead-letters", reason="no reason at all", what="replay")
    await _counted(visitor)
    assert "No open dead letter fits" in visitor.main
    await visitor.go(f"/console/admin/tenants/{tenant.id}/dead-letters")
    await visitor.submit("/dead-letters", channel="SendGrid", what="discard")
    await _counted(visitor)
    await visitor.submit("/begin")
    await _counted(visitor)
    assert await tenant.dead_letters(state="open") == []
    replay = visitor.url.partition("?")[0].rpartition("/")[2]
    await visitor.go(f"/console/admin/tenants/{other.id}/replays/{replay}")
    assert visitor.status == 404


async def test_a_replay_is_tried_before_it_is_begun(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    mail = tenant.sendgrid
    await tenant.receive(mail.batch(tenant.address("SendGrid"), [mail.event("m-1", "delivered")]))
    await tenant.message_with("sendgrid", "m-1", 1, within_s=60)
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/replays/new")
    typed: dict[str, Any] = {"channel": "SendGrid", "from": "2026-01-01"}
    for field, value in (("from", "yesterday"), ("rate_per_s", "many")):
        await visitor.submit("/replays/new", **{**typed, field: value})
        assert visitor.status == 422
        assert field in visitor.main
    typed |= {"from": (datetime.now(UTC) - timedelta(hours=1)).isoformat(), "rate_per_s": "100"}
    await visitor.submit("/replays/new", **typed)
    assert visitor.status == 200, visitor.main
    await _counted(visitor)
    assert "1 callbacks were read: 0 events would be new." in visitor.main
    await visitor.submit("/begin")
    await _counted(visitor)
    assert "It has begun." in visitor.main
    [real, dry] = [row async for row in tenant.client.replays.list()]
    assert (real.dry_run, real.span_from, real.span_to, real.rate_per_s) == (
        False,
        dry.span_from,
        dry.span_to,
        dry.rate_per_s,
    )
    await visitor.follow("Replays")
    assert len(visitor.rows("Replays")) == 2


async def test_who_only_reads_changes_nothing_and_another_tenant_sees_nothing(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    [letter] = await _letters(tenant, b"[1")
    dry = await tenant.client.replays.discard_dead_letters(channel="SendGrid", dry_run=True)
    key = await tenant.client.add_key(scopes=["read"])
    await visitor.sign_in(key.key)
    root = f"/console/t/{tenant.id}"
    for path in (f"/dead-letters/{letter.id}", "/dead-letters", "/replays", f"/replays/{dry.id}"):
        await visitor.go(root + path)
        assert visitor.status == 200
        offered = {str(form["action"]).rpartition("/")[2] for form in visitor.page.select('main form[method="post"]')}
        assert offered <= {"preview"}, f"{path} offers {offered}"
    # The forms themselves are refused by the API.
    await visitor.go(f"{root}/dead-letters/{letter.id}/discard")
    await visitor.submit("/discard")
    assert visitor.status == 403
    await visitor.go(f"{root}/dead-letters/fitting")
    await visitor.submit("/fitting", channel="SendGrid")
    assert visitor.status == 403
    assert [row.state for row in await tenant.dead_letters()] == ["open"]
    await visitor.sign_in(other.api_key)
    for path in (f"/dead-letters/{letter.id}", f"/dead-letters/{letter.id}/body", f"/replays/{dry.id}"):
        await visitor.go(f"/console/t/{other.id}{path}")
        assert visitor.status == 404


async def test_a_long_body_is_cut_and_can_be_had_as_a_file(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    body = b'[{"event": "' + b"<b>" * 30_000
    [letter] = await _letters(tenant, body)
    await visitor.sign_in(tenant.api_key)
    page = await visitor.go(f"/console/t/{tenant.id}/dead-letters/{letter.id}")
    assert len(str(page)) < 100_000
    assert "This is its beginning." in visitor.main
    assert page.find("textarea", attrs={"name": "body"}) is None
    await visitor.submit("/preview")
    assert "With the body as it came" in visitor.main
    answer = await visitor.download(f"/console/t/{tenant.id}/dead-letters/{letter.id}/body")
    assert answer.content == body
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_with_them(town: Town, opened: Open, admin_token: str) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    letters = await _letters(tenant, b"[1", b"[2", HOSTILE.encode())
    root = f"/console/t/{tenant.id}"
    paths = [
        "/dead-letters",
        f"/dead-letters/{letters[0].id}",
        f"/dead-letters/{letters[0].id}/discard",
        "/dead-letters/fitting",
        "/replays",
        "/replays/new",
    ]
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(tenant.api_key)
        await browser.walk(*(root + path for path in paths))
    # The page of a count follows it by itself, and what was counted is sent through by the keyboard.
    await browser.go(f"{root}/dead-letters/fitting?channel=SendGrid")
    await browser.page.get_by_role("button", name="Count those that fit").press("Enter")
    begin = browser.page.get_by_role("button", name="Send 3 dead letters through")
    await begin.wait_for(timeout=60_000)
    await browser.accessible()
    await begin.press("Enter")
    await browser.page.get_by_text("It has begun.").wait_for(timeout=60_000)
    await browser.page.get_by_text("done", exact=True).wait_for(timeout=60_000)
    await browser.accessible()
    await browser.sign_in(admin_token)
    await browser.go(f"/console/admin/tenants/{tenant.id}/dead-letters")
    await browser.accessible()
