"""Asking a provider: what messages cost that are known already, and how soon is known what no callback told."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import httpx
from backhaul_client import AsyncAdminClient, AsyncTenantClient
from backhaul_client.reconciliationmodels import RunReport
from backhaul_common.names import CALLBACKS_STREAM, NORMALIZER_CONSUMER, channel_key
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi
from backhaul_testing.apis.twilio_scenario import TwilioScenario
from backhaul_testing.posts import Post
from backhaul_testing.wire import Wire
from generators import LoadError
from installation import Installation
from normalizing import GROUP
from report import Report

_KNOWN, _TRUTH = "reconcile-known", "reconcile-truth"
_CHANNEL = "Twilio"
_ENDED = {"delivered": 0.9, "undelivered": 0.1}
_CONNECTIONS = 16
_MAX_CYCLES = 5
_SPAN_S = 120
"""For how long messages have been sent. What differs from when its callback came by five minutes is no known time."""
_LOOK_S = 0.05
_PATIENCE_S = 180.0


@dataclass(frozen=True)
class _Asked:
    """A tenant, with the API key ``key``, and a channel of ``account``."""

    tenant: str
    key: str
    account: TwilioAccount
    client: AsyncTenantClient


async def measure(site: Installation, report: Report, *, rounds: int, known: int, lost: int) -> None:
    """``reconcile_…`` with ``known`` messages of which all is known, and ``truth_…`` with ``lost`` of which not all
    is."""
    with TwilioApi() as api:
        await site.stop("reconciler")
        # Twilio's address leads to the simulator, which runs in a thread of the bench.
        origins = {"https://api.twilio.com": api.url}
        site.stack.service("reconciler").env["BACKHAUL_RECONCILER_ORIGINS"] = json.dumps(origins)
        await site.ensure("gateway", "normalizer", "reconciler")
        try:
            await _measure_known(site, report, api, rounds=rounds, messages=known)
            await _measure_truth(site, report, api, rounds=rounds, messages=lost)
        finally:
            await site.stop("reconciler")
    await site.stop("normalizer")
    await site.purge_callbacks()
    await site.forget()


async def _measure_known(site: Installation, report: Report, api: TwilioApi, *, rounds: int, messages: int) -> None:
    asked = await _opened(site, api, _KNOWN)
    scenario = TwilioScenario(asked.account, f"{site.stack.gateway_url}/api/postevents?channelLabel={_CHANNEL}")
    begin = api.clock.now() - timedelta(seconds=_SPAN_S)
    scenario.texts(messages, outcomes=_ENDED, begin=begin, within_s=_SPAN_S / 2)
    posts = [post for post, _ in scenario.posts(scenario.callbacks)]
    stored = site.traffic.stored(asked.tenant, await site.registration(asked.tenant), _CHANNEL, posts, GROUP)
    await site.prefill(asked.tenant, [(channel_key(_CHANNEL), one) for one in stored])
    await _processed(site)
    per_core, clock, normalizer_us, floor_us, costs = [], [], [], [], []
    for round_ in range(rounds + 1):
        site.say(f"{messages:,} messages that are known, round {round_} of {rounds}")
        before = site.meter.read()
        done = await _run(asked)
        after = site.meter.read()
        if not round_:
            # What a process does for the first time is not what it costs, and times that are too far off are mended.
            await _processed(site)
            continue
        if (done.counts.seen, done.counts.known) != (messages, messages):
            raise LoadError(f"All of {messages} messages were to be found known: {done.counts}")
        used = after.per_1000(before, messages)
        costs.append(used)
        per_core.append(1000 / used["reconciler"])
        normalizer_us.append(used["normalizer"] * 1000)
        clock.append(messages / (after.at - before.at))
        floor_us.append(await _read_us(api, asked.account, messages))
    note = "pages of 1,000 over HTTP, each message compared with what is stored; CPU of the reconciler"
    report.add("reconcile_messages_per_s", per_core, "messages / CPU s", aim="≥ 5,000", note=note)
    ratios = [1e6 / one / floor for one, floor in zip(per_core, floor_us, strict=True)]
    report.add(
        "reconcile_vs_floor", ratios, "ratio of CPU", note="over a loop that reads the same pages with httpx and json"
    )
    report.add("reconcile_floor_us", floor_us, "us / message", note="that floor")
    report.add("reconcile_normalizer_us", normalizer_us, "us / message", note="CPU of the normalizer, which compares")
    report.add("reconcile_messages_s", clock, "messages/s", note="by the clock, one channel")
    report.cost("reconciling what is known", "messages", costs)


async def _measure_truth(site: Installation, report: Report, api: TwilioApi, *, rounds: int, messages: int) -> None:
    cycles, left, requests = [], [], []
    for round_ in range(rounds):
        site.say(f"{messages:,} messages, of whose callbacks 5 % are lost, round {round_ + 1} of {rounds}")
        asked = await _opened(site, api, f"{_TRUTH}-{round_}")
        scenario = await _happened(site, asked, messages, seed=round_)
        took, differing, first = await _until_true(site, asked)
        cycles.append(float(took))
        left.append(float(differing))
        requests.append(first.counts.requests / max(1, len({one.message_id for one in scenario.withheld})) * 1000)
    lost = "5 % of callbacks lost, 30 % doubled, all in any order; senders told what they sent"
    report.add("truth_cycles", cycles, "runs", aim="≤ 1", note=f"until every state is the provider's; {lost}")
    report.add("truth_differences", left, "messages", aim="≤ 0", note="whose state is another one after that")
    report.add(
        "reconcile_requests_per_1000_open",
        requests,
        "requests",
        note=f"of the first run there, for 1,000 messages of {messages:,} of which a callback was lost",
    )


async def _opened(site: Installation, api: TwilioApi, tenant: str) -> _Asked:
    """A new tenant, whose channel's provider is asked, and has been asked for the first time."""
    key = await site.register(tenant)
    account = api.account()
    async with AsyncAdminClient(site.stack.gateway_url, site.stack.admin_token) as platform:
        await platform.put_channel(
            tenant,
            _CHANNEL,
            secrets=[account.auth_token],
            # By itself it is asked once only: what is measured are runs that the bench asks for.
            settings={"reconcile": {"every_minutes": 1440}},
            pull_credentials={"account_sid": account.sid, "auth_token": account.auth_token},
        )
    asked = _Asked(tenant, key, account, AsyncTenantClient(site.stack.gateway_url, key, timeout_s=_PATIENCE_S))
    async with asyncio.timeout(_PATIENCE_S):
        # Another process tells no event, so it is asked, this often.
        while not [one async for one in asked.client.reconciliation.reports() if one.state == "done"]:  # noqa: ASYNC110  # as above
            await asyncio.sleep(_LOOK_S)
    return asked


async def _happened(site: Installation, asked: _Asked, messages: int, *, seed: int) -> TwilioScenario:
    """Messages were sent, as their sender has told, and callbacks about them posted, but for those that are lost."""
    address = f"{site.stack.gateway_url}/api/postevents?channelLabel={_CHANNEL}"
    scenario = TwilioScenario(asked.account, address, withheld=0.05, doubled=0.3, shuffled=True, seed=seed)
    begin = asked.account.api.clock.now() - timedelta(seconds=_SPAN_S)
    texts = scenario.texts(messages, begin=begin, within_s=_SPAN_S / 2)
    await asked.client.report_sends(
        {"channel": _CHANNEL, "message_id": text.sid, "recipient": text.to, "sent_at": text.created} for text in texts
    )
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Wire()) for _ in range(_CONNECTIONS)]
        posted = await scenario.post(*(partial(_once, asked.key, wire) for wire in wires))
    if posted.lost:
        raise LoadError(f"{posted.lost} callbacks were not answered 200.")
    await _processed(site)
    return scenario


async def _once(key: str, wire: Wire, post: Post) -> int | str:
    return await wire.once(post.with_header("X-Api-Key", key))


async def _until_true(site: Installation, asked: _Asked) -> tuple[int, int, RunReport]:
    """How many runs it took until all states are the provider's, how many are not after the last, and the first."""
    runs: list[RunReport] = []
    differing = 1
    while differing and len(runs) < _MAX_CYCLES:
        runs.append(await _run(asked))
        await _processed(site)
        ours = {one.message_id: one.state async for one in asked.client.messages(page_size=500)}
        theirs = asked.account.states()
        differing = sum(ours.get(sid) != state for sid, state in theirs.items()) + len(ours.keys() - theirs.keys())
    return len(runs), differing, runs[0]


async def _run(asked: _Asked) -> RunReport:
    """A run from its begin to its end."""
    done = [one async for one in asked.client.reconciliation.run(_CHANNEL)][-1]
    if done.state != "done":
        raise LoadError(f"A run ended before its end: {done}")
    return done


async def _processed(site: Installation) -> None:
    """Return when the normalizer has done all that CALLBACKS holds."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            info = await site.js.consumer_info(CALLBACKS_STREAM, NORMALIZER_CONSUMER)
            if not info.num_pending and not info.num_ack_pending:
                return
            await asyncio.sleep(_LOOK_S)


async def _read_us(api: TwilioApi, account: TwilioAccount, messages: int) -> float:
    """CPU microseconds a message of a loop that reads the same pages, and their rows, and does nothing else."""
    day = api.clock.now() - timedelta(days=1)
    path = f"/2010-04-01/Accounts/{account.sid}/Messages.json?DateSent%3E={day:%Y-%m-%d}&PageSize=1000"
    seen = 0
    async with httpx.AsyncClient(base_url=api.url, auth=(account.sid, account.auth_token), trust_env=False) as http:
        began = time.thread_time()  # The simulator answers in another thread.
        while path:
            page = json.loads((await http.get(path)).content)
            seen += len(page["messages"])
            path = page["next_page_uri"]
        used = time.thread_time() - began
    if seen != messages:
        raise LoadError(f"{messages} messages were to be listed, and {seen} were.")
    return used / messages * 1e6
