"""What the demo does, step by step, and what it gets to see. Nothing is printed and nothing is judged here."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import httpx
from backhaul_client import AsyncAdminClient, AsyncTenantClient
from backhaul_client.models import Communication, DeadLetterSummary, ErrorCount, Event, Message
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.posts import Post, send
from backhaul_testing.rcs import RcsMessage
from backhaul_testing.receiver import Receiver
from backhaul_testing.sendgrid import OAuthClient, SendGridSimulator, bearing
from backhaul_testing.twilio import TwilioSimulator
from backhaul_testing.wire import encoded

from backhaul_local.demo_asking import Account, Attempt, burst, if_there, poll, refused
from backhaul_local.demo_audit import SETTINGS, Audited, audit
from backhaul_local.demo_channels import OTHER_COMMUNICATION, ChannelStory, channel_stories
from backhaul_local.demo_communication import REGISTERED, Completed, complete
from backhaul_local.demo_consent import Asked, ask
from backhaul_local.demo_line import NOTHING_SAID, Said, read_by_line
from backhaul_local.demo_people import LABEL, Erased, erase
from backhaul_local.demo_reconciliation import LABEL as ASKED
from backhaul_local.demo_reconciliation import Opened, Reconciled, open_channels, reconcile
from backhaul_local.demo_script import (
    BURST_DUPLICATES,
    BURST_MESSAGES,
    BURST_STATUSES,
    COMMUNICATION,
    MESSAGES,
    PARAMETERS,
    PROBES,
    UNREADABLE,
    Due,
    sendgrid_batch,
)
from backhaul_local.demo_told import NEWS, Subscribed, Told, read_told, subscribe
from backhaul_local.stack import ObjectStoreAccess


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What became of the genuine traffic. ``messages`` pairs what was due with what the API has; ``by_line`` is what
    the command line prints of it."""

    statuses: Sequence[int]
    messages: Sequence[tuple[Due, Message | None]]
    communication: Communication | None
    events: Sequence[Event]
    dead_letters: Sequence[DeadLetterSummary]
    by_line: tuple[Said, Said, Said]


@dataclass(frozen=True, kw_only=True)
class OtherChannels:
    """What became of the stories of all other providers. ``messages`` pairs each story with what the API has;
    ``replies`` are those over RCS, ``communication`` counts what the stories belong to, ``previewed`` is what a
    callback would have become, ``errors`` counts each code by channel, and ``counted`` is how many of the messages the
    statistics count, by channel."""

    statuses: Sequence[int]
    messages: Sequence[tuple[ChannelStory, Message | None]]
    replies: Sequence[Event]
    communication: Communication | None
    previewed: Sequence[str]
    errors: Mapping[str, int]
    counted: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What was refused, and what can be seen of it afterwards. ``counted`` is by channel, as the status API counts."""

    attempts: Sequence[Attempt]
    counted: Mapping[str, int]
    tenants: Sequence[str]
    globex_messages: int
    communication: Communication | None


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The burst. ``latencies_s``: from a request's first byte to its answer's last; ``counted_s``: from the last answer
    to the right counts; ``readable_s``: from a POST to its state."""

    seconds: float
    statuses: Sequence[int]
    latencies_s: Sequence[float]
    counted_s: float
    readable_s: Sequence[float]
    probes_delivered: int
    communication: Communication | None


class Story:
    """The steps, to be taken in the order in which they are written."""

    def __init__(
        self,
        base_url: str,
        http: httpx.AsyncClient,
        platform: AsyncAdminClient,
        bucket: ObjectStoreAccess,
        api: TwilioApi,
        receiver: Receiver,
    ) -> None:
        """``bucket`` is where audit files lie; ``api`` is asked as Twilio's; ``receiver`` is Acme's own application."""
        self._receiver = receiver
        self._base_url = base_url
        self._api = api
        self._http = http
        self._platform = platform
        self._bucket = bucket

    async def set_up(self) -> tuple[Account, Account]:
        """Acme and Globex; each has a Twilio channel with an auth token of its own, Acme a SendGrid channel too, which
        asks for a signature and an access token, and has its events filed."""
        acme, globex = await asyncio.gather(self._account("Acme"), self._account("Globex"))
        await self._open(acme, "Twilio", acme.twilio.auth_token)
        await self._open(acme, "SendGrid", acme.sendgrid.public_key, acme.oauth.secret, settings=SETTINGS)
        await self._open(globex, "Twilio", globex.twilio.auth_token)
        return acme, globex

    async def deliver(self, acme: Account) -> Delivered:
        """Post the genuine traffic, one callback after the other, and wait until all of it can be read."""
        # Twilio can send no header of one's choice: the tenant's id and key are user and password of the URL.
        address = self._address(PARAMETERS, user=f"{acme.tenant.id}:{acme.tenant.api_key}@")
        texts = [
            _text(acme, address, due.id, status, f"+1500555001{number}")
            for number, due in enumerate(MESSAGES)
            for status in due.posts
        ]
        posts = [*texts, acme.twilio.form(address, UNREADABLE), await self._batch(acme)]
        answers = [await send(self._http, post) for post in posts]

        async def read() -> Delivered:
            found = [await if_there(acme.client.message(due.channel, due.id)) for due in MESSAGES]
            return Delivered(
                by_line=NOTHING_SAID,
                statuses=[answer.status_code for answer in answers],
                messages=list(zip(MESSAGES, found, strict=True)),
                communication=await if_there(acme.client.communication(COMMUNICATION)),
                events=[event async for event in acme.client.events()],
                dead_letters=[letter async for letter in acme.client.dead_letters()],
            )

        def complete(seen: Delivered) -> bool:
            counts = [message.event_count if message else 0 for _, message in seen.messages]
            return counts == [len(due.kinds) for due in MESSAGES] and bool(seen.dead_letters)

        found = await poll(read, complete)
        return replace(found, by_line=await read_by_line(self._base_url, acme))

    async def open_channels(self, acme: Account) -> Opened:
        """Channels of another account of Twilio's, which Backhaul may ask what became of messages. It begins by
        itself, while the demo goes on."""
        address = self._address("", acme, channel=ASKED)
        return await open_channels(self._http, address, self._platform, self._api.account(), acme)

    async def subscribe(self, acme: Account) -> Subscribed:
        """Acme's application wants to be told. It is called again while the demo goes on."""
        address = self._address(f"communicationId={NEWS}", acme)
        return await subscribe(self._http, acme, self._receiver, address)

    async def tell_of_other_channels(self, acme: Account) -> OtherChannels:
        """One story for each other provider, over the address that Backhaul shows for the channel."""
        stories = channel_stories(acme.twilio)
        answers = []
        for story in stories:
            if story.due.channel != "Twilio":
                await self._platform.put_channel(acme.tenant.id, story.label, **story.channel)
            address = self._address(f"communicationId={OTHER_COMMUNICATION}", acme, channel=quote(story.label))
            answers += [await send(self._http, post) for post in story.posts(address)]
        # Nothing is kept of what is only looked at.
        address = self._address("", acme, channel="RCS")
        looked_at = RcsMessage(address=address, reference="order-4712").pressed("OPENURL", "Track it", "track")
        preview = await acme.client.preview("RCS", body=looked_at.body)

        async def read() -> OtherChannels:
            found = [await if_there(acme.client.message(story.label, story.due.id)) for story in stories]
            flagged = [reply async for reply in acme.client.replies(flagged=True)]
            # Somebody looks at what is only likely an opt-out, and decides.
            for reply in flagged:
                await acme.client.accept_reply(reply.id)
            replies = [reply async for reply in acme.client.replies(channel="RCS")]
            counts = await acme.client.errors()
            of: dict[str, Any] = {"per": "day", "communication": OTHER_COMMUNICATION}
            statistics = await acme.client.stats(group_by=("channel",), **of)
            return OtherChannels(
                statuses=[answer.status_code for answer in answers],
                messages=list(zip(stories, found, strict=True)),
                replies=replies,
                communication=await if_there(acme.client.communication(OTHER_COMMUNICATION)),
                previewed=[part.event.kind if part.event else "nothing" for part in preview.parts],
                errors={_error(one): one.count for one in counts.errors},
                counted={str(row.channel): row.messages for row in statistics.rows},
            )

        def complete(seen: OtherChannels) -> bool:
            counts = [message.event_count if message else 0 for _, message in seen.messages]
            return counts == [len(story.due.kinds) for story in stories] and bool(seen.replies)

        return await poll(read, complete)

    async def ask_before_sending(self, acme: Account, globex: Account) -> Asked:
        """May this person be contacted? Before a STOP, after it, and after a START."""
        return await ask(self._http, self._address("", acme), acme, globex)

    async def try_to_cheat(self, acme: Account, globex: Account) -> Refused:
        """Everything here must be refused, and must leave no trace."""
        text, address = MESSAGES[0], self._address(PARAMETERS)
        genuine = _text(acme, address, text.id, "failed").with_header("X-Api-Key", acme.tenant.api_key)
        elses = _text(globex, address, text.id, "failed").with_header("X-Api-Key", acme.tenant.api_key)
        unknown_key = acme.tenant.api_key[:-1] + ("0" if acme.tenant.api_key[-1] != "0" else "1")
        batch = await self._batch(acme)
        forged = {
            "Twilio callback changed after signing": replace(genuine, body=genuine.body.replace(b"failed", b"sent")),
            "Twilio callback without a signature": genuine.without_header("X-Twilio-Signature"),
            "Twilio callback signed by another account": elses,
            "SendGrid batch with one byte changed": replace(batch, body=batch.body.replace(b"ada@", b"eve@", 1)),
            "SendGrid batch, signed, without an access token": batch.without_header("Authorization"),
            "Acme's signed callback with Globex's key": genuine.with_header("X-Api-Key", globex.tenant.api_key),
            "Acme's signed callback with no known key": genuine.with_header("X-Api-Key", unknown_key),
        }
        attempts = [
            await self._refusal(what, "401 unauthenticated" if "no known key" in what else "403 forbidden", post)
            for what, post in forged.items()
        ]
        attempts += [
            await refused("Globex reads Acme's message", "404 not_found", globex.client.message("Twilio", text.id)),
            await refused(
                "Globex reads Acme's communication", "404 not_found", globex.client.communication(COMMUNICATION)
            ),
            await refused(
                "A third tenant wants the queue path ACME-Prod",
                "409 conflict",
                self._platform.create_tenant("initech", name="Initech", queue_path="ACME-Prod"),
            ),
        ]
        counted = {
            f"{account.tenant.name} {label}": (await account.client.channel_status(label)).parts.verification.refused
            for account, label in ((acme, "Twilio"), (acme, "SendGrid"), (globex, "Twilio"))
        }
        return Refused(
            attempts=attempts,
            counted=counted,
            tenants=[tenant.id async for tenant in self._platform.tenants()],
            globex_messages=len([message async for message in globex.client.messages()]),
            communication=await if_there(acme.client.communication(COMMUNICATION)),
        )

    async def read_the_files(self, acme: Account, globex: Account) -> Audited:
        """Acme's mails once more, as files; one of them is changed in the bucket, and put back."""
        return await audit(self._bucket, acme, globex)

    async def erase_a_person(self, acme: Account) -> Erased:
        """A channel whose files are encrypted per person, read, and read again when one person is erased."""
        return await erase(self._http, self._address("", acme, channel=LABEL), self._platform, self._bucket, acme)

    async def complete_a_batch(self, acme: Account) -> Completed:
        """A sending that is registered, with ten people: told before, while and after their messages arrive."""
        return await complete(
            self._http,
            acme,
            twilio=self._address(f"communicationId={REGISTERED}", acme),
            sendgrid=self._address("", acme, channel="SendGrid"),
            token=await self._token(acme),
        )

    async def look_at_what_was_told(self, acme: Account, subscribed: Subscribed) -> Told:
        """What Acme's application has heard by now, and what it hears when it is resumed."""
        return await read_told(self._http, acme, self._receiver, subscribed)

    async def ask_the_provider(self, acme: Account, opened: Opened) -> Reconciled:
        """What Twilio told by no callback."""
        return await reconcile(self._http, acme, opened)

    async def load(self, globex: Account) -> Loaded:
        """A burst at Globex: shuffled, with duplicates; then callbacks one by one, each read back."""
        address = self._address("communicationId=burst", globex)
        numbers = range(BURST_MESSAGES)
        posts = [globex.twilio.status(address, f"SM{n:032x}", status) for n in numbers for status in BURST_STATUSES]
        requests = [encoded(post) for post in (*posts, *posts[:BURST_DUPLICATES])]
        random.Random(1).shuffle(requests)  # noqa: S311  # far from their order and the same each time; no secret.
        began = time.perf_counter()
        answers = await burst(self._base_url, requests)
        answered = time.perf_counter()

        async def count() -> Communication | None:
            return await if_there(globex.client.communication("burst"))

        def counted(seen: Communication | None) -> bool:
            return seen is not None and sum(seen.events.values()) == len(posts)

        await poll(count, counted)
        counted_s = time.perf_counter() - answered
        probes = [await self._probe(globex, f"MM{n:032x}") for n in range(PROBES)]
        return Loaded(
            seconds=answered - began,
            statuses=[status for status, _ in answers],
            latencies_s=[seconds for _, seconds in answers],
            counted_s=counted_s,
            readable_s=[seconds for seconds, _ in probes],
            probes_delivered=sum(delivered for _, delivered in probes),
            # Asked once more: the probes came behind the whole burst, so by now every duplicate has been seen too.
            communication=await count(),
        )

    async def _probe(self, globex: Account, sid: str) -> tuple[float, bool]:
        """Seconds from the POST to the state being readable, and whether it became so."""
        post = globex.twilio.status(self._address("communicationId=probes", globex), sid, "delivered")
        began = time.perf_counter()
        await send(self._http, post)
        message = await poll(
            lambda: if_there(globex.client.message("Twilio", sid)),
            lambda message: message is not None and message.state == "delivered",
        )
        return time.perf_counter() - began, message is not None and message.state == "delivered"

    async def _account(self, name: str) -> Account:
        tenant = await self._platform.create_tenant(
            name.lower(),
            name=name,
            queue_path=f"{name.lower()}-prod",
            # The demo asks for states as fast as it can, to tell when they are there.
            limits={"reads_per_second": 2000, "read_burst": 2000},
        )
        client = AsyncTenantClient(self._base_url, tenant.api_key, http=self._http)
        return Account(
            tenant=tenant,
            client=client,
            twilio=TwilioSimulator(),
            sendgrid=SendGridSimulator(),
            oauth=OAuthClient(),
        )

    async def _open(
        self,
        account: Account,
        label: str,
        *secrets: str | Mapping[str, str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """A channel that refuses everything that ``secrets`` do not prove authentic."""
        await self._platform.put_channel(
            account.tenant.id, label, secrets=secrets, settings=settings, verification="enforce"
        )

    async def _refusal(self, what: str, due: str, post: Post) -> Attempt:
        answer = await send(self._http, post)
        problem = answer.json() if answer.headers.get("content-type") == "application/problem+json" else {}
        got = f"{answer.status_code} {problem.get('code', '')}".rstrip()
        return Attempt(what=what, due=due, got=got, why=problem.get("detail", ""))

    def _address(self, query: str, by: Account | None = None, *, channel: str = "Twilio", user: str = "") -> str:
        """Where a provider posts to; ``by`` an ingest token in the path, or whatever credential is in the request."""
        start, path = self._base_url.replace("://", f"://{user}"), f"/in/{by.tenant.ingest_token}" if by else ""
        return f"{start}{path}/api/postevents?channelLabel={channel}&{query}".rstrip("&")

    async def _batch(self, acme: Account) -> Post:
        # SendGrid sends no credential of the tenant's: the path carries the ingest token.
        post = acme.sendgrid.signed(self._address("", acme, channel="SendGrid"), sendgrid_batch())
        return bearing(post, await self._token(acme))

    async def _token(self, acme: Account) -> str:
        """An access token, as SendGrid fetches it."""
        return await acme.oauth.token(self._http, f"{self._base_url}/in/{acme.tenant.ingest_token}/oauth/token")


def _error(one: ErrorCount) -> str:
    """Channel, code and class; some codes do not tell their class alone."""
    return f"{one.channel} {one.error_code}" + (f" ({one.error_class})" if one.error_class else "")


def _text(account: Account, address: str, sid: str, status: str, person: str = "+15005550010") -> Post:
    """A callback of Twilio's: of a reply, or of a status, whose error is that of a landline."""
    if status == "received":
        return account.twilio.inbound(address, sid, "STOP", sender=person)
    error = {"ErrorCode": "30006", "ErrorMessage": "Landline or unreachable carrier"} if status == "failed" else {}
    return account.twilio.status(address, sid, status, to=person, **error)
