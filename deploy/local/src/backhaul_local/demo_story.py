"""What the demo does, step by step, and what it gets to see. Nothing is printed and nothing is judged here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backhaul_local.demo_api import Answer, Api, Tenant, poll
from backhaul_local.demo_burst import BurstResult, burst, shuffled
from backhaul_local.demo_traffic import ExpectedMessage, Post, SendGridWebhook, Traffic, TwilioAccount

BURST_MESSAGES = 600
BURST_STATUSES = ("queued", "sent", "delivered")
BURST_DUPLICATES = 200
BURST_CONNECTIONS = 16
PROBES = 20
BURST_COMMUNICATION = "burst"
PROBE_COMMUNICATION = "probes"

_DEADLINE_S = 15.0
_INGEST = "/api/postevents"


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who takes part: two tenants, and the provider accounts behind their channels."""

    acme: Tenant
    globex: Tenant
    acme_twilio: TwilioAccount
    globex_twilio: TwilioAccount
    acme_sendgrid: SendGridWebhook


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What became of the genuine traffic. ``messages`` pairs what was due with what the API says."""

    answers: Sequence[Answer]
    messages: Sequence[tuple[ExpectedMessage, Answer]]
    communication: Answer
    events: Sequence[Mapping[str, Any]]
    dead_letters: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Something that must be refused, with the status and the problem's code that are due."""

    what: str
    status: int
    code: str
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What was refused, and what can be seen of it afterwards. ``counted`` is by channel, as the status API counts."""

    attempts: Sequence[Attempt]
    counted: Mapping[str, int]
    tenant_ids: Sequence[str]
    globex_messages: int
    communication: Answer


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The burst. ``counted_s``: from its last answer to the right counts; ``readable_s``: from a POST to its state."""

    result: BurstResult
    counted_s: float
    readable_s: Sequence[float]
    probes_delivered: int
    communication: Answer


class Story:
    """The steps, to be taken in the order in which they are written."""

    def __init__(self, api: Api, base_url: str, traffic: Traffic) -> None:
        self._api = api
        self._base_url = base_url
        self._traffic = traffic

    async def set_up(self) -> Cast:
        """Two tenants; each has a Twilio channel with an auth token of its own, Acme a SendGrid channel too."""
        acme, globex = await asyncio.gather(
            self._api.new_tenant("acme", "Acme", "acme-prod"), self._api.new_tenant("globex", "Globex", "globex-prod")
        )
        cast = Cast(
            acme=acme,
            globex=globex,
            acme_twilio=TwilioAccount.new(),
            globex_twilio=TwilioAccount.new(),
            acme_sendgrid=SendGridWebhook(),
        )
        await self._api.open_channel(acme, "Twilio", "twilio", cast.acme_twilio.auth_token)
        await self._api.open_channel(acme, "SendGrid", "sendgrid", cast.acme_sendgrid.verification_key)
        await self._api.open_channel(globex, "Twilio", "twilio", cast.globex_twilio.auth_token)
        return cast

    async def deliver(self, cast: Cast) -> Delivered:
        """Post the genuine traffic, one callback after the other, and wait until all of it can be read."""
        api, acme, traffic = self._api, cast.acme, self._traffic
        answers = []
        for body in [*traffic.twilio_bodies, traffic.unreadable]:
            # Twilio can send no header of one's choice: the tenant's id and key are user and password of the URL.
            post = cast.acme_twilio.post(self._base_url, f"{_INGEST}?{traffic.twilio_query}", body)
            answers.append(await api.post(post, basic=(acme.id, acme.api_key)))
        answers.append(await api.post(self._batch(cast)))

        async def read() -> Delivered:
            found = [await api.message(acme, due.channel, due.message_id) for due in traffic.messages]
            return Delivered(
                answers=answers,
                messages=list(zip(traffic.messages, found, strict=True)),
                communication=await api.communication(acme, traffic.communication_id),
                events=await api.listed(acme, "events"),
                dead_letters=await api.listed(acme, "dead-letters"),
            )

        def complete(seen: Delivered) -> bool:
            counts = [answer.body.get("event_count") for _, answer in seen.messages]
            return counts == [len(due.timeline) for due in traffic.messages] and bool(seen.dead_letters)

        return await poll(read, complete, seconds=_DEADLINE_S)

    async def try_to_cheat(self, cast: Cast) -> Refused:
        """Everything here must be refused, and must leave no trace."""
        api, acme, globex, traffic = self._api, cast.acme, cast.globex, self._traffic
        path = f"{_INGEST}?{traffic.twilio_query}"
        message_id = traffic.messages[0].message_id
        failed = next(body for body in traffic.twilio_bodies if "=failed&" in body)
        genuine = cast.acme_twilio.post(self._base_url, path, failed)
        unsigned = replace(genuine, headers={k: v for k, v in genuine.headers.items() if "Signature" not in k})
        batch = self._batch(cast)
        attempts: list[Attempt] = []

        def note(what: str, status: int, code: str, answer: Answer) -> None:
            attempts.append(Attempt(what=what, status=status, code=code, answer=answer))

        note(
            "Twilio callback changed after signing",
            403,
            "forbidden",
            await api.post(replace(genuine, body=genuine.body.replace(b"failed", b"sent")), api_key=acme.api_key),
        )
        note("Twilio callback without a signature", 403, "forbidden", await api.post(unsigned, api_key=acme.api_key))
        note(
            "Twilio callback signed by another account",
            403,
            "forbidden",
            await api.post(cast.globex_twilio.post(self._base_url, path, failed), api_key=acme.api_key),
        )
        note(
            "SendGrid batch with one byte changed",
            403,
            "forbidden",
            await api.post(replace(batch, body=batch.body.replace(b"ada@", b"eve@", 1))),
        )
        note(
            "Acme's signed callback with Globex's key",
            403,
            "forbidden",
            await api.post(genuine, api_key=globex.api_key),
        )
        note(
            "Acme's signed callback with no known key",
            401,
            "unauthenticated",
            await api.post(genuine, api_key=acme.api_key[:-1] + ("0" if acme.api_key[-1] != "0" else "1")),
        )
        note("Globex reads Acme's message", 404, "not_found", await api.message(globex, "Twilio", message_id))
        note(
            "Globex reads Acme's communication",
            404,
            "not_found",
            await api.communication(globex, traffic.communication_id),
        )
        note(
            "A third tenant wants the queue path ACME-Prod",
            409,
            "conflict",
            await api.register("initech", "Initech", "ACME-Prod"),
        )
        return Refused(
            attempts=attempts,
            counted={
                "Acme Twilio": await api.refused(acme, "Twilio"),
                "Acme SendGrid": await api.refused(acme, "SendGrid"),
                "Globex Twilio": await api.refused(globex, "Twilio"),
            },
            tenant_ids=await api.tenant_ids(),
            globex_messages=len(await api.listed(globex, "messages")),
            communication=await api.communication(acme, traffic.communication_id),
        )

    async def load(self, cast: Cast) -> Loaded:
        """A burst at Globex: shuffled, with duplicates; then callbacks one by one, each read back."""
        api, globex = self._api, cast.globex
        posts = [
            self._status(cast, BURST_COMMUNICATION, f"SM{number:032x}", status)
            for number in range(BURST_MESSAGES)
            for status in BURST_STATUSES
        ]
        result = await burst(
            self._base_url, globex.api_key, shuffled([*posts, *posts[:BURST_DUPLICATES]]), connections=BURST_CONNECTIONS
        )
        began = time.perf_counter()

        async def count() -> Answer:
            return await api.communication(globex, BURST_COMMUNICATION)

        def counted(answer: Answer) -> bool:
            fulfilment: Mapping[str, int] = answer.body.get("fulfilment", {})
            events: Mapping[str, int] = answer.body.get("events", {})
            return fulfilment.get("Delivered") == BURST_MESSAGES and sum(events.values()) == len(posts)

        await poll(count, counted, seconds=_DEADLINE_S)
        counted_s = time.perf_counter() - began
        readable_s = []
        delivered = 0
        for number in range(PROBES):
            seconds, ended = await self._probe(cast, f"MM{number:032x}")
            readable_s.append(seconds)
            delivered += ended
        return Loaded(
            result=result,
            counted_s=counted_s,
            readable_s=readable_s,
            probes_delivered=delivered,
            # Asked once more: the probes came behind the whole burst, so by now every duplicate has been seen too.
            communication=await count(),
        )

    async def _probe(self, cast: Cast, sid: str) -> tuple[float, bool]:
        """Seconds from the POST to the state being readable, and whether it became so."""
        post = self._status(cast, PROBE_COMMUNICATION, sid, "delivered")
        began = time.perf_counter()
        await self._api.post(post, api_key=cast.globex.api_key)
        answer = await poll(
            lambda: self._api.message(cast.globex, "Twilio", sid),
            lambda answer: answer.body.get("state") == "delivered",
            seconds=_DEADLINE_S,
        )
        return time.perf_counter() - began, answer.body.get("state") == "delivered"

    def _status(self, cast: Cast, communication_id: str, sid: str, status: str) -> Post:
        path = f"{_INGEST}?channelLabel=Twilio&communicationId={communication_id}"
        body = self._traffic.burst_body.replace("{sid}", sid).replace("{status}", status)
        return cast.globex_twilio.post(self._base_url, path, body)

    def _batch(self, cast: Cast) -> Post:
        # SendGrid may send no credential at all: the path carries the ingest token.
        path = f"/in/{cast.acme.ingest_token}{_INGEST}?channelLabel=SendGrid"
        return cast.acme_sendgrid.post(path, self._traffic.sendgrid_batch)
