"""Who must not be contacted: looked up, listed, recorded, lifted, imported and exported; and what people wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from backhaul_client.models import Event
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

PERSON = "+14155550123"
HOSTILE = "stop <img src=x>"
LINES = 2_500


def _verdicts(visitor: Visitor) -> list[str]:
    return [row[1] for row in visitor.rows("May they be contacted?")]


async def _wrote(tenant: Tenant, *texts: str) -> list[Event]:
    await tenant.receive(*(tenant.reply(PERSON, text) for text in texts))

    async def there() -> list[Event] | None:
        found = [row async for row in tenant.client.replies()]
        return found if len(found) == len(texts) else None

    return await until("the replies", there, within_s=60)


async def test_a_person_is_looked_up_suppressed_and_may_be_contacted_again(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    await visitor.follow("Suppressions")
    await visitor.submit("/suppressions", address=PERSON)
    assert _verdicts(visitor) == ["ok Yes, they may."] * 2
    await visitor.follow("Suppress this address…")
    # What the API refuses comes back with its words, and with what was typed.
    said: dict[str, Any] = {"kind": "stop", "note": "He said so.", "evidence.reference": "form 4711"}
    await visitor.submit("/add", **said)
    assert visitor.status == 422
    assert "evidence.at" in visitor.main
    assert "He said so." in visitor.main
    said = {"evidence.source": "web", "evidence.at": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
    await visitor.submit("/add", **said)
    assert visitor.status == 200, visitor.main
    assert "It is recorded" in visitor.main
    assert _verdicts(visitor) == ["suppressed No, they may not."] * 2
    [row] = visitor.rows("Why, and since when")
    assert row[:3] == ["stop", "suppressed", "all"]
    [change] = visitor.rows("History")
    assert "form 4711" in change[7]

    # A stop is lifted with evidence alone; the rule is the API's.
    await visitor.follow("Lift…")
    await visitor.submit("/lift")
    assert visitor.status == 409
    assert "stop_by_recipient" in visitor.main
    said |= {"evidence.at": datetime.now(UTC).isoformat(), "evidence.reference": "form 4712"}
    await visitor.submit("/lift", **said)
    assert "It is lifted." in visitor.main
    assert _verdicts(visitor) == ["ok Yes, they may."] * 2
    assert len(visitor.rows("History")) == 2

    # One of the same name elsewhere is another person, and an address that says nothing is refused in words.
    assert (await other.client.suppression_record(PERSON)).suppressions == ()
    await visitor.go(f"/console/t/{tenant.id}/suppressions?address=0151+1234567")
    assert visitor.status == 422
    assert "0151 1234567" in str(visitor.page)


async def test_an_address_that_bounced_works_again(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await tenant.client.suppress("anna@example.com", "hard_bounce")
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/suppressions?kind=hard_bounce")
    await visitor.follow("anna@example.com")
    await visitor.follow("Works again…")
    await visitor.submit("/reactivate", note="She wrote from there.")
    assert "It is lifted." in visitor.main
    assert [row[1] for row in visitor.rows("Why, and since when")] == ["lifted"]


async def test_a_list_is_imported_and_exported_as_it_comes(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/suppressions/import")
    numbers = [f"+1415555{n:04}" for n in range(LINES)]
    listed = "address,note\n" + "".join(f"{number},by letter\n" for number in numbers) + "0151 1234567,<b>here</b>\n"
    await visitor.submit("/import", files={"file": ("list.csv", listed.encode())}, kind="stop")
    assert visitor.status == 200, visitor.main
    assert f"Lines {LINES + 1:,} Added {LINES:,} Unchanged 0 Refused 1" in visitor.main
    [refused] = visitor.rows("Lines that were refused")
    assert refused[0:3] == [str(LINES + 2), "0151 1234567", "address"]
    # The same again changes nothing.
    await visitor.follow("Import another one")
    lines = "".join(f'{{"address": "{number}"}}\n' for number in numbers[:3]) + '{"address": 7}\n'
    await visitor.submit("/import", files={"file": ("list.JSONL", lines.encode())}, kind="stop")
    assert "Lines 4 Added 0 Unchanged 3 Refused 1" in visitor.main
    assert len(visitor.rows("Lines that were refused")) == 1
    file = await visitor.download(f"/console/t/{tenant.id}/suppressions/export?kind=stop")
    assert file.headers["content-disposition"] == f'attachment; filename="suppressions-{tenant.id}.csv"'
    exported = file.text.splitlines()
    assert len(exported) == LINES + 1
    assert {line.partition(",")[0] for line in exported[1:]} == set(numbers)
    # A list of fifty, and the way to the others.
    await visitor.go(f"/console/t/{tenant.id}/suppressions?kind=stop")
    first = {row[0] for row in visitor.rows("Suppressions")}
    await visitor.follow("Older")
    assert len(first) == len(visitor.rows("Suppressions")) == 50
    assert not first & {row[0] for row in visitor.rows("Suppressions")}


async def test_what_is_no_list_is_refused_in_words(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    path = f"/console/t/{tenant.id}/suppressions/import"
    for name, content, words in (
        ("list.csv", b"address,kinde\n+14155550123,stop\n", "kinde"),
        ("list.csv", b"", "address"),
        ("", b"", "Choose a list"),
    ):
        await visitor.go(path)
        await visitor.submit("/import", files={"file": (name, content)}, scope_kind="group", scope_id="news")
        assert visitor.status == 422, visitor.main
        assert words in visitor.main
    # Without the token in its address nothing is taken, whatever stands in the body.
    await visitor.go(path)
    token = visitor.page.find("input", attrs={"name": "form_token"})
    assert token is not None
    answer = await visitor.post(
        path, data={"form_token": str(token["value"])}, files={"file": ("a.csv", f"address\n{PERSON}\n".encode())}
    )
    assert answer.status_code == 403
    for body, kind in ((b"--x\r\n\r\nbroken", "multipart/form-data; boundary=x"), (b"{}", "application/json")):
        answer = await visitor.post(f"{path}?form_token={token['value']}", content=body, headers={"content-type": kind})
        assert answer.status_code == 422
        assert "did not come whole" in answer.text
    assert (await visitor.post(f"{path}?form_token=na%C3%AFve", content=b"x")).status_code == 403
    # Of one that ends in the middle of a number the whole lines are taken, and nothing else.
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    answer = await visitor.post(
        f"{path}?form_token={token['value']}",
        content=head + b"address\n+1415555",
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 422
    assert "The body is not whole." in answer.text
    assert [row async for row in tenant.client.suppressions()] == []


async def test_flagged_replies_come_first_and_are_decided_about(town: Town, visitor: Visitor) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await _wrote(tenant, HOSTILE, "please cancel", "thank you")
    await visitor.sign_in(tenant.api_key)
    await visitor.follow("Replies")
    assert visitor.page.find("img") is None
    assert {row[0] for row in visitor.rows("To decide about")} == {HOSTILE, "please cancel"}
    assert len(visitor.rows("Replies")) == 3
    cancel = next(row for row in visitor.page.select("tbody tr") if "please cancel" in row.get_text())
    form = cancel.find("form", action=lambda action: bool(action) and action.endswith("/accept"))
    assert form is not None
    await visitor.submit(str(form["action"]))
    assert "taken for an opt-out" in visitor.main
    assert [row[0] for row in visitor.rows("To decide about")] == [HOSTILE]

    async def suppressed() -> bool:
        return not (await tenant.client.check(PERSON)).allowed

    await until("the opt-out", suppressed, within_s=60)
    await visitor.follow("To decide about")
    await visitor.follow("Dismiss…")
    assert "the person is contacted as before" in visitor.main
    assert len([one async for one in tenant.client.replies(flagged=True)]) == 1
    await visitor.submit("/dismiss")
    assert "no opt-out" in visitor.main
    assert visitor.url.partition("?")[2].startswith("view=flagged")
    assert "Nobody wrote anything that fits." in visitor.main
    # What was dismissed by mistake is still accepted, on the page that was asked for.
    people = (await visitor.go(f"/console/t/{tenant.id}/replies")).select("td a:has(bdi)")
    assert len(people) == 3
    assert all("family=phone" in str(link["href"]) for link in people)
    asked = "channel=twilio&recipient=%2B14155550123&from=2h"
    await visitor.go(f"/console/t/{tenant.id}/replies?{asked}")
    dismissed = next(row for row in visitor.page.select("tbody tr") if HOSTILE in row.get_text())
    (form,) = dismissed.find_all("form")
    await visitor.submit(str(form["action"]))
    assert "taken for an opt-out" in visitor.main
    assert set(asked.split("&")) <= set(visitor.url.partition("?")[2].split("&"))
    assert [row[1] for row in visitor.rows("Replies") if row[0] == HOSTILE] == ["accepted"]
    await visitor.sign_in(other.api_key)
    await visitor.go(f"/console/t/{other.id}/replies")
    assert "Nobody wrote anything that fits." in visitor.main


async def test_the_export_is_of_what_the_list_shows_or_is_not_offered(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await visitor.sign_in(tenant.api_key)
    here = f"/console/t/{tenant.id}/suppressions"
    await visitor.go(f"{here}?kind=stop&standing=any")
    (link,) = visitor.page.select("main a[download]")
    assert str(link["href"]).endswith("?kind=stop&standing=any")
    for more in ("origin=tenant", "scope_kind=group&scope_id=news", "from=2h", "to=2026-01-01"):
        await visitor.go(f"{here}?kind=stop&{more}")
        assert visitor.status == 200
        assert not visitor.page.select("main a[download]"), more
        assert "takes kind, family and standing alone" in visitor.main


async def test_who_only_reads_changes_nothing(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await tenant.client.suppress(PERSON, "manual")
    await _wrote(tenant, "please stop")
    key = await tenant.client.add_key(scopes=["read"])
    await visitor.sign_in(key.key)
    root = f"/console/t/{tenant.id}"
    for path in ("/suppressions", f"/suppressions?address=%2B{PERSON[1:]}", "/replies"):
        await visitor.go(root + path)
        assert visitor.status == 200
        assert not visitor.page.select('main form[method="post"]'), path
        assert "…" not in visitor.main, f"{path} leads to what is refused"
    assert "lacks the scope check" in (await visitor.go(f"{root}/suppressions?address=%2B{PERSON[1:]}")).get_text()
    await visitor.go(f"{root}/suppressions/lift")
    await visitor.submit("/lift", address=PERSON)
    assert visitor.status == 403
    await visitor.go(f"{root}/suppressions/import")
    await visitor.submit("/import", files={"file": ("a.csv", b"address\n+14155550199\n")})
    assert visitor.status == 403
    assert [row.address async for row in tenant.client.suppressions()] == [PERSON]


async def test_the_operator_suppresses_for_legal_reasons(town: Town, visitor: Visitor, admin_token: str) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    await tenant.client.suppress("+14155550199", "manual")
    await visitor.sign_in(admin_token)
    path = f"/console/admin/tenants/{tenant.id}/suppressions"
    await visitor.go(path)
    await visitor.follow("Suppress an address…")
    await visitor.submit("/add", address=PERSON, note="court order 7")
    assert [row[:3] for row in visitor.rows("Suppressions")] == [[PERSON, "legal", "suppressed"]]
    assert "+14155550199" not in visitor.main
    await visitor.go(path)
    # Of every kind, unless one is asked for.
    assert {row[0] for row in visitor.rows("Suppressions")} == {PERSON, "+14155550199"}
    await visitor.submit("/suppressions", kind="manual")
    assert [row[0] for row in visitor.rows("Suppressions")] == ["+14155550199"]
    await visitor.go(f"/console/admin/tenants/{other.id}/suppressions")
    assert PERSON not in visitor.main
    # Its tenant is told the rule, and the operator lifts it.
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/suppressions/lift")
    await visitor.submit("/lift", address=PERSON, kind="stop")
    assert visitor.status == 409
    await visitor.go(path)
    await visitor.follow("Lift…")
    await visitor.submit("/lift")
    assert "It is lifted." in visitor.main
    assert [row async for row in tenant.client.suppressions(kind="legal")] == []


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_with_them(
    town: Town, opened: Open, admin_token: str, tmp_path: Path
) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    await tenant.client.suppress(PERSON, "stop", source="web", note=HOSTILE)
    await tenant.client.suppress("anna@example.com", "hard_bounce")
    await _wrote(tenant, HOSTILE, "please cancel", "hello")
    root = f"/console/t/{tenant.id}"
    paths = [
        "/suppressions",
        f"/suppressions?address=%2B{PERSON[1:]}",
        "/suppressions/add",
        "/suppressions/lift",
        "/suppressions/reactivate",
        "/suppressions/import",
        "/replies",
    ]
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(tenant.api_key)
        await browser.walk(*(root + path for path in paths))
    await browser.page.get_by_role("button", name="Accept as opt-out").first.press("Enter")
    await browser.page.get_by_text("taken for an opt-out").wait_for()
    # It is said once, and a page that is loaded again says nothing.
    assert "said=" not in browser.page.url
    await browser.page.reload()
    assert await browser.page.get_by_text("taken for an opt-out").count() == 0
    # A list is sent by a script, which shows how far it is, and then what the page would have been.
    file = tmp_path / "list.csv"
    file.write_text("address\n" + "".join(f"+1415555{n:04}\n" for n in range(LINES)) + "nobody\n")
    await browser.go(f"{root}/suppressions/import")
    await browser.page.evaluate("window.here = true")
    await browser.page.get_by_label("File").set_input_files(file)
    await browser.page.get_by_role("button", name="Import").press("Enter")
    await browser.page.get_by_role("heading", name="Lines that were refused").wait_for(timeout=60_000)
    assert await browser.page.evaluate("window.here"), "the page was loaded anew: the script did not send it"
    assert await browser.page.get_by_text(f"{LINES:,}", exact=True).count() == 1
    await browser.accessible()
    await browser.sign_in(admin_token)
    await browser.go(f"/console/admin/tenants/{tenant.id}/suppressions")
    await browser.accessible()
