"""Communications, their batches and members, as the console shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from backhaul_testing.twilio import new_sid
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.communications import MemberIn
    from simulators.people import Tenant, Town
    from simulators.visiting import Open, Visitor

HOSTILE = 'a/b?c#d e\n\u202e"><script>alert(1)</script>&../x'
ANNA, BERT = "+15005550010", "+15005550011"


async def sent_to_two(tenant: Tenant, communication: str, batch: str) -> str:
    """A communication with a closed batch of two, of which one was reached, and of the other the message failed, whose
    id is answered."""
    await tenant.client.communications.put(
        communication, name=HOSTILE, mode="live", channel="Twilio", environments={"live": {"shop": HOSTILE}}
    )
    await tenant.client.batches.put(communication, batch, label=HOSTILE)
    reached, failed = new_sid(), new_sid()
    await tenant.client.batches.add_members(
        batch,
        [
            {
                "member_key": "anna",
                "attributes": {"<b>name": HOSTILE},
                "destinations": [{"recipient": ANNA, "message_id": reached}],
            },
            {"member_key": "bert", "destinations": [{"recipient": BERT, "message_id": failed}]},
        ],
    )
    await tenant.client.batches.close(batch)
    address = tenant.address("Twilio")
    await tenant.receive(
        tenant.twilio.status(address, reached, "delivered", to=ANNA),
        tenant.twilio.status(address, failed, "failed", to=BERT, ErrorCode="30006"),
    )

    async def processed() -> bool:
        return bool((await tenant.client.batches.get(batch)).progress.processed == 2)

    await until("both messages", processed, within_s=60)
    return failed


def path_of(tenant: Tenant, communication: str, below: str = "communications") -> str:
    return f"/console/t/{tenant.id}/{below}/{quote(communication, safe='')}"


async def test_a_communication_and_its_batch_are_shown_with_what_became_of_everybody(
    town: Town, visitor: Visitor
) -> None:
    tenant, other = await town.platform.register(), await town.platform.register()
    failed = await sent_to_two(tenant, HOSTILE, "b" + HOSTILE)
    await tenant.client.communications.put("quiet", mode="test")
    await visitor.sign_in(tenant.api_key)
    await visitor.go(f"/console/t/{tenant.id}/communications")
    told = " ".join(HOSTILE.split())
    assert [row[0] for row in visitor.rows("Communications")] == ["quiet", f"{told} {told}"]
    assert visitor.rows("Communications")[1][1:5] == ["complete", "live", "twilio", "1 of 1"]
    await visitor.go(f"/console/t/{tenant.id}/communications?mode=test&status=active&registered=yes&from=2026-01-01")
    assert [row[0] for row in visitor.rows("Communications")] == ["quiet"]
    await visitor.go(f"/console/t/{tenant.id}/communications?to=2026-01-01")
    assert visitor.rows("Communications") == [["No communication like this."]]

    await visitor.go(path_of(tenant, HOSTILE))
    assert visitor.status == 200, visitor.text
    assert ["Delivered", "1"] in [row[:2] for row in visitor.rows("Fulfilment")]
    assert ["30006", "twilio", "1"] in visitor.rows("Errors")
    (batch,) = visitor.rows("Batches")
    assert batch[1:5] == ["complete", "2", "2 of 2", "2 of 2"]
    assert visitor.page.find("script", string=lambda text: text is not None and "alert" in text) is None
    (link,) = visitor.page.select(f'a[href="{path_of(tenant, "b" + HOSTILE, "batches")}"]')
    await visitor.go(str(link["href"]))
    assert visitor.status == 200, visitor.text
    members = visitor.rows("Members")
    assert sorted(row[0] for row in members) == ["anna", "bert"]
    (bert,) = [row for row in members if row[0] == "bert"]
    assert bert[1:5] == ["twilio", BERT, "Failed", failed]
    assert bert[5].startswith("30006 ")

    # Of another tenant there is no such thing.
    await visitor.sign_in(other.api_key)
    for path in (path_of(other, HOSTILE), path_of(other, "b" + HOSTILE, "batches")):
        await visitor.go(path)
        assert visitor.status == 404, path
    assert visitor.page.find(string=lambda text: text is not None and ANNA in text) is None


async def test_members_and_batches_come_page_by_page(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await tenant.client.communications.put("sale", channel="Twilio")
    for number in range(51):
        await tenant.client.batches.put("sale", f"batch-{number}")
    members: list[MemberIn] = [
        {"member_key": f"m{number}", "destinations": [{"recipient": ANNA}]} for number in range(51)
    ]
    await tenant.client.batches.add_members("batch-0", members)
    await visitor.sign_in(tenant.api_key)
    for path, label in ((path_of(tenant, "sale"), "Batches"), (path_of(tenant, "batch-0", "batches"), "Members")):
        await visitor.go(path)
        first = [row[0] for row in visitor.rows(label)]
        await visitor.follow("Older")
        rest = [row[0] for row in visitor.rows(label)]
        assert (len(first), len(rest)) == (50, 1)
        assert len({*first, *rest}) == 51


async def test_it_is_disabled_and_enabled_behind_a_page_that_asks(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await tenant.client.communications.put(HOSTILE, channel="Twilio")
    await visitor.sign_in(tenant.api_key)
    await visitor.go(path_of(tenant, HOSTILE))
    await visitor.follow("Disable…")
    assert "Subscriptions that hold for it 0" in visitor.main
    assert (await tenant.client.communications.get(HOSTILE)).status == "active"
    form = "/communications/" + quote(HOSTILE, safe="")

    await visitor.submit(form, reason=" ")
    assert visitor.status in (400, 422), visitor.text
    assert visitor.page.find("input", attrs={"aria-invalid": "true"})
    assert (await tenant.client.communications.get(HOSTILE)).status == "active"

    await visitor.submit(form, reason=HOSTILE)
    assert "Saved." in visitor.main
    assert visitor.rows("Disabled and enabled")[0][1] == "disabled"
    assert (await tenant.client.communications.get(HOSTILE)).status == "disabled"
    await visitor.follow("Enable…")
    await visitor.submit(form)
    assert (await tenant.client.communications.get(HOSTILE)).status == "active"
    assert [switched.disabled for switched in (await tenant.client.communications.get(HOSTILE)).switched] == [
        False,
        True,
    ]


async def test_a_key_that_only_reads_can_switch_nothing(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    await tenant.client.communications.put("sale", channel="Twilio")
    reading = await tenant.client.add_key(scopes=["read"])
    await visitor.sign_in(reading.key)
    await visitor.go(path_of(tenant, "sale"))
    assert "Disable" not in visitor.main
    # Whoever makes the page's address by hand sees the form, which the API refuses.
    await visitor.go(path_of(tenant, "sale") + "?ask=disable")
    await visitor.submit("/communications/sale", reason="why not")
    assert visitor.status == 403
    assert (await tenant.client.communications.get("sale")).status == "active"


@pytest.mark.browser
async def test_a_browser_finds_nothing_wrong_with_communications(town: Town, opened: Open) -> None:
    from simulators.visiting import LOOKS

    tenant = await town.platform.register()
    await sent_to_two(tenant, HOSTILE, "b" + HOSTILE)
    for context in LOOKS:
        browser = await opened(**context)
        await browser.sign_in(tenant.api_key)
        for path in (
            f"/console/t/{tenant.id}/communications",
            path_of(tenant, HOSTILE),
            path_of(tenant, HOSTILE) + "?ask=disable",
            path_of(tenant, "b" + HOSTILE, "batches"),
        ):
            await browser.go(path)
            await browser.accessible()
            await browser.fits()
    await browser.go(path_of(tenant, HOSTILE) + "?ask=disable")
    await browser.page.get_by_label("Why").fill("Wrong shop.")
    await browser.page.get_by_label("Why").press("Enter")
    await browser.page.get_by_text("Saved.").wait_for()
    assert (await tenant.client.communications.get(HOSTILE)).status == "disabled"
