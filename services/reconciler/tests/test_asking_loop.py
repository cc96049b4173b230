"""Copies of the whole service: they find what is due, share it, and go on where another one ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from backhaul_common.lifecycle import cancel, keep_running
from backhaul_reconciler import app
from backhaul_reconciler.settings import ReconcilerSettings
from backhaul_testing.waiting import until
from provider_api import ORIGIN, Answer, Request

if TYPE_CHECKING:
    from asking_rig import Rig

MINUTE_US = 60_000_000


def send(rig: Rig, number: int) -> set[str]:
    ids = {f"M{place:04}" for place in range(number)}
    for message_id in ids:
        rig.api.send(message_id, "delivered", rig.now_us() - 5 * MINUTE_US)
    return ids


async def all_told(rig: Rig, number: int) -> bool:
    await rig.normalizer.process()
    return len(rig.normalizer.backfilled) >= number and all(run["state"] == "done" for run in await rig.runs())


async def test_two_copies_ask_an_account_once(asking: Rig) -> None:
    for tenant, account in (("acme", "A1"), ("globex", "A2")):
        await asking.register(tenant, account=account)
    send(asking, 25)
    copies = [asking.copy(name) for name in ("one", "two")]
    loops = [asyncio.create_task(keep_running("asking", copy.asking.run)) for copy in copies]
    try:
        await until("all to be told", lambda: all_told(asking, 25))
        runs = await asking.runs()
        assert sorted((run["tenant"], run["state"]) for run in runs) == [("acme", "done"), ("globex", "done")]
    finally:
        for loop in loops:
            await cancel(loop)
    # Whoever stops gives back what it held.
    owners = await asking.database["reconciled_accounts"].distinct("owner")
    assert owners == [""]


@pytest.mark.parametrize("at", ["take", "give_back"])
async def test_who_stops_while_it_takes_or_gives_back_an_account_holds_none(
    asking: Rig, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    await asking.register()
    copy = asking.copy()
    inner, reached = getattr(copy.accounts, at), asyncio.Event()

    async def slow(*args: Any) -> None:
        if at == "take":
            await inner(*args)
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(copy.accounts, at, slow)
    loop = asyncio.create_task(copy.asking.run())
    await reached.wait()
    await cancel(loop)
    assert await asking.database["reconciled_accounts"].distinct("owner") == [""]


async def test_an_account_is_given_back_in_the_middle_of_a_page_and_taken_up_there(asking: Rig) -> None:
    await asking.register()
    send(asking, 25)
    reached = asyncio.Event()

    async def hang(request: Request, _: asyncio.StreamWriter) -> Answer | None:
        if request.params.get("page") == "10":
            reached.set()
            await asking.api.hang()
        return None

    asking.api.misbehave = hang
    first = asyncio.create_task(asking.copy("first").asking.run())
    await reached.wait()
    await cancel(first)
    asking.api.misbehave = None
    second = asyncio.create_task(asking.copy("second").asking.run())
    try:
        await until("all to be told", lambda: all_told(asking, 25))
    finally:
        await cancel(second)
    assert set(asking.normalizer.backfilled.values()) == {1}
    assert [one.params["page"] for one in asking.api.asked("/messages")][:3] == ["", "10", "10"]


async def test_a_copy_whose_account_was_taken_stops_asking(asking: Rig) -> None:
    await asking.register()
    send(asking, 25)
    reached = asyncio.Event()

    async def hang(request: Request, _: asyncio.StreamWriter) -> Answer | None:
        if request.params.get("page") == "10":
            reached.set()
            await asking.api.hang()
        return None

    asking.api.misbehave = hang
    copy = asking.copy("slow")
    copy.asking._renew_s = 0.05  # it hears of it soon
    slow = asyncio.create_task(copy.asking.run())
    try:
        await reached.wait()
        accounts = asking.database["reconciled_accounts"]
        await accounts.update_one({}, {"$set": {"owner": "quick"}, "$inc": {"epoch": 1}})

        async def given_up() -> bool:
            return not copy.asking._held  # what it is asking

        await until("the account to be given up", given_up)
    finally:
        await cancel(slow)
    row = await asking.database["reconciled_accounts"].find_one({})
    assert row is not None
    assert (row["owner"], row["epoch"]) == ("quick", 2), "not given back by whoever had lost it"


async def test_the_service_asks_and_answers(
    asking: Rig, mongo_server: Any, mongo_database: str, nats_url: str, monkeypatch: Any
) -> None:
    """The composition root, with the tests' adapter in place of Twilio's."""
    from asking_rig import KEY

    monkeypatch.setattr(app, "load_adapters", lambda: asking.adapters)
    await asking.register()
    ids = send(asking, 25)
    values: dict[str, Any] = {
        "mongo_uri": mongo_server.uri,
        "mongo_database": mongo_database,
        "nats_url": nats_url,
        "internal_token": "0123456789abcdef" * 2,
        "secret_keys": KEY,
        "reconciler_grpc_listen": "127.0.0.1:0",
        "reconciler_normalizer_target": asking.normalizer_target,
        "reconciler_origins": {ORIGIN: asking.api.url},
    }
    stop = asyncio.Event()
    running = asyncio.create_task(app.run(ReconcilerSettings(_env_file=None, **values), stop))
    try:
        await until("all to be told", lambda: all_told(asking, 25), within_s=30)
    finally:
        stop.set()
        await running
    assert {message_id for _, message_id, _ in asking.normalizer.backfilled} == ids
