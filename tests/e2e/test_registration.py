"""Tenants, their queue paths, keys and channels, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import Counter
from typing import TYPE_CHECKING

from backhaul_testing.twilio import new_sid
from simulators.people import PlatformTeam

if TYPE_CHECKING:
    from simulators.people import Town


def _in_case(text: str, number: int) -> str:
    """``text`` with its letters upper or lower by the bits of ``number``."""
    return "".join(
        character.upper() if number >> position & 1 else character.lower() for position, character in enumerate(text)
    )


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_of_fifty_registrations_of_one_queue_path_exactly_one_wins(platform: PlatformTeam) -> None:
    letters = "".join(secrets.choice("abcdefghijklmnop") for _ in range(12))
    paths = [_in_case(letters, number * 37) for number in range(50)]
    assert len(set(paths)) == 50

    answers = await asyncio.gather(
        *(
            platform.call("POST", "", {"id": f"{letters}-{number}", "name": "One of many", "queue_path": path})
            for number, path in enumerate(paths)
        )
    )

    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 49}
    for answer in answers:
        if answer.status_code == 409:
            problem = answer.json()
            assert answer.headers["content-type"] == "application/problem+json"
            assert [error["field"] for error in problem["errors"]] == ["queue_path"]
            assert "api_key" not in answer.text
    registered = [(await platform.call("GET", f"/{letters}-{number}")).status_code for number in range(50)]
    assert Counter(registered) == {200: 1, 404: 49}


async def test_a_registration_shows_its_secrets_once(town: Town) -> None:
    tenant = await town.platform.register()
    secret = tenant.twilio.auth_token

    shown = [
        (await town.platform.call("GET", f"/{tenant.id}")).text,
        (await town.platform.call("GET", "")).text,
        (await town.platform.call("GET", f"/{tenant.id}/channels")).text,
        (await town.platform.call("GET", f"/{tenant.id}/channels/twilio")).text,
        (await town.platform.call("PATCH", f"/{tenant.id}", {"name": "Another name"})).text,
    ]

    for text in shown:
        assert tenant.id in text or "twilio" in text  # It is the tenant's own, and not an error.
        for hidden in (tenant.api_key, tenant.ingest_token, secret, tenant.api_key.rpartition("_")[2]):
            assert hidden not in text


async def test_keys_rotate_without_a_gap(town: Town) -> None:
    tenant = await town.platform.register()
    before = (await town.platform.call("GET", f"/{tenant.id}")).json()
    old_id = next(key["id"] for key in before["keys"] if key["kind"] == "api")

    async def status_with(key: str) -> int:
        answer = await town.http.get(f"{tenant.base_url}/v1/events", headers={"X-Api-Key": key})
        return answer.status_code

    issued = await town.platform.call("POST", f"/{tenant.id}/keys")
    assert issued.status_code == 201
    new_key = issued.json()["key"]
    assert [await status_with(tenant.api_key), await status_with(new_key)] == [200, 200]

    assert (await town.platform.call("DELETE", f"/{tenant.id}/keys/{old_id}")).status_code == 204
    assert [await status_with(tenant.api_key), await status_with(new_key)] == [401, 200]
    assert (await town.platform.call("DELETE", f"/{tenant.id}/keys/{old_id}")).status_code == 404


async def test_every_way_of_carrying_the_key_is_taken_and_a_wrong_one_refused(town: Town) -> None:
    tenant = await town.platform.register()
    url = f"{tenant.base_url}/v1/events"
    post = tenant.twilio.status(f"{tenant.base_url}/api/PostEvents?channelLabel=tWiLiO", new_sid(), "sent")

    for credential in (
        ("X-Api-Key", tenant.api_key),
        ("Authorization", f"Bearer {tenant.api_key}"),
        ("Authorization", _basic(tenant.id, tenant.api_key)),
    ):
        assert (await town.http.get(url, headers=[credential])).status_code == 200
        posted = await tenant.send(post.with_header(*credential))
        assert posted.status_code == 200, posted.text

    last = "0" if tenant.api_key[-1] != "0" else "1"
    for credential in (
        ("X-Nothing", ""),
        ("X-Api-Key", tenant.api_key[:-1] + last),
        ("Authorization", f"Bearer {tenant.ingest_token}"),
        ("Authorization", _basic("somebody-else", tenant.api_key)),
    ):
        refused = await town.http.get(url, headers=[credential])
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"
        assert (await tenant.send(post.with_header(*credential))).status_code == 401


async def test_a_secret_of_a_channel_rotates_without_a_gap(town: Town) -> None:
    from backhaul_testing.twilio import TwilioSimulator

    tenant = await town.platform.register()
    after = TwilioSimulator()
    channel = f"/{tenant.id}/channels/Twilio"
    address = tenant.address("Twilio")

    async def statuses() -> list[int]:
        posts = [account.status(address, new_sid(), "sent") for account in (tenant.twilio, after)]
        return [(await tenant.send(post)).status_code for post in posts]

    assert await statuses() == [200, 403]
    both = await town.platform.call("PUT", channel, {"secrets": [after.auth_token, tenant.twilio.auth_token]})
    assert (both.status_code, both.json()["secret_count"]) == (200, 2)
    assert await statuses() == [200, 200]
    await town.platform.call("PUT", channel, {"secrets": [after.auth_token]})
    assert await statuses() == [403, 200]
    # A blank secret, and none at all: nothing is authentic any more.
    for secrets_left in ([""], []):
        await town.platform.call("PUT", channel, {"secrets": secrets_left})
        assert await statuses() == [403, 403]
