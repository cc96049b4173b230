"""What cannot be read: listed with its reason, replayed, discarded."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from backhaul_client import FailedPreconditionError, NotFoundError
from backhaul_client.models import Pair
from backhaul_testing.sendgrid import new_message_id
from backhaul_testing.waiting import until

if TYPE_CHECKING:
    from backhaul_client.models import DeadLetterSummary, Message
    from simulators.people import Tenant, Town


async def _letters(tenant: Tenant, count: int) -> list[DeadLetterSummary]:
    async def probe() -> list[DeadLetterSummary] | None:
        found = await tenant.dead_letters()
        return found if len(found) >= count else None

    return await until(f"{count} dead letters", probe)


async def test_one_bad_event_is_a_dead_letter_and_the_others_are_stored(town: Town) -> None:
    tenant = await town.platform.register()
    good = new_message_id()
    mail = tenant.sendgrid
    bad = mail.event(new_message_id(), "delivered")
    del bad["timestamp"]
    post = mail.batch(tenant.address("SendGrid"), [mail.event(good, "processed"), bad, mail.event(good, "delivered")])
    assert (await tenant.send(post)).status_code == 200

    message = await tenant.message_with("sendgrid", good, 2)
    assert message.state == "delivered"
    [letter] = await _letters(tenant, 1)
    assert (letter.channel, letter.provider, letter.state) == ("sendgrid", "sendgrid", "open")
    assert "timestamp" in letter.reason

    whole = await tenant.client.dead_letter(letter.id)
    assert whole.callback is not None
    # The part that was refused, alone, and the request that brought it, without its credential.
    assert bad["sg_message_id"] in whole.callback.body_text
    assert good not in whole.callback.body_text
    assert tenant.ingest_token not in str(whole)
    assert Pair("user-agent", "SendGrid Event API") in whole.callback.headers


async def test_a_replay_that_fails_again_opens_it_again_and_a_discard_closes_it(town: Town) -> None:
    tenant = await town.platform.register()
    post = tenant.sendgrid.signed(tenant.address("SendGrid"), b'[{"event": "delivered"')
    assert (await tenant.send(post)).status_code == 200
    [letter] = await _letters(tenant, 1)
    assert letter.occurrences == 1
    await tenant.client.replay_dead_letter(letter.id)

    async def refused_again() -> bool:
        found = await tenant.client.dead_letter(letter.id)
        return found.state == "open" and found.occurrences == 2

    await until("the replay to fail as well", refused_again)
    assert (await tenant.client.discard_dead_letter(letter.id)).state == "discarded"
    for change in (tenant.client.discard_dead_letter, tenant.client.replay_dead_letter):
        with pytest.raises(FailedPreconditionError):
            await change(letter.id)
    assert [row.id for row in await tenant.dead_letters(state="discarded")] == [letter.id]
    assert await tenant.dead_letters(state="open") == []
    with pytest.raises(NotFoundError):
        await tenant.client.replay_dead_letter("0" * 32)


async def test_a_replay_after_the_cause_is_gone_brings_the_event(town: Town) -> None:
    tenant = await town.platform.register()
    mail, message_id = tenant.sendgrid, new_message_id()
    # The channel takes the message's id from an argument that is too long to be one.
    too_long = {"message_id_from": ["own_id", "sg_message_id"]}
    await town.platform.client.put_channel(tenant.id, "SendGrid", settings=too_long)
    event = mail.event(message_id, "delivered", own_id="x" * 600)
    post = mail.batch(tenant.address("SendGrid"), [event])

    # The other service hears of the settings by a message of its own.
    async def heard() -> bool:
        preview = await tenant.client.preview("SendGrid", body=post.body, headers=dict(post.headers), url=post.url)
        return any(part.dead_letter for part in preview.parts)

    await until("the settings that make a dead letter of it", heard)
    assert (await tenant.send(post)).status_code == 200
    [letter] = await _letters(tenant, 1)
    assert "own_id" in letter.reason
    assert await tenant.message("sendgrid", message_id) is None

    await town.platform.client.put_channel(tenant.id, "SendGrid", settings={"message_id_from": ["sg_message_id"]})

    # The other service hears of the change by a message of its own: replay until it has.
    async def replayed() -> Message | None:
        with suppress(FailedPreconditionError):
            await tenant.client.replay_dead_letter(letter.id)
        return await tenant.message("sendgrid", message_id)

    message = await until("the replayed event", replayed, pause_s=0.2)
    assert message.state == "delivered"
    assert [row.source for row in message.timeline] == ["replay"]

    async def closed() -> bool:
        return (await tenant.client.dead_letter(letter.id)).state == "replayed"

    await until("the dead letter to stay closed", closed)


async def test_dead_letters_are_paged_without_gaps(town: Town) -> None:
    tenant = await town.platform.register()
    for number in range(9):
        post = tenant.sendgrid.signed(tenant.address("SendGrid"), b'{"number": %d' % number)
        assert (await tenant.send(post)).status_code == 200
    await _letters(tenant, 9)
    pages = await tenant.dead_letters(page_size=2, channel="SendGrid")
    assert len({row.id for row in pages}) == len(pages) == 9
    assert await tenant.dead_letters(channel="twilio") == []
