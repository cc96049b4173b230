"""Client credentials: tokens from real servers through the real door, and servers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

import pytest
from backhaul_notifier.calling.oauth import TIMEOUT_S
from backhaul_notifier.schedules import STANDARD, Outcome, Policy
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from calling_rig import WEBHOOK_ID, Opening, Rig, calling, delivery, http, subscription
from door_rig import Behaviour, Call, Endpoint, endpoint

SECRET = "cl1ent-secret&+"


class Issuer:
    """A token's server, by its behaviour: each token is another one."""

    def __init__(self) -> None:
        self.issued = 0
        self.more: dict[str, object] = {"token_type": "bearer", "expires_in": 3600}
        self.only_body = False

    async def __call__(self, call: Call) -> None:
        if self.only_body and "authorization" in call.headers:
            await call.answer(b'{"error": "invalid_client"}', 401)
            return
        self.issued += 1
        body = {"access_token": f"token-{self.issued}", **self.more}
        await call.answer(json.dumps(body).encode(), more="Content-Type: application/json\r\n")


async def answered(call: Call) -> None:
    await call.answer()


def credentials(url: str) -> Opening:
    told = pb.OAuthCredentials(token_url=url, client_id="our client", client_secret=SECRET, scope="hooks", audience="x")
    return Opening(credentials=pb.Credentials(oauth=told))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def both(
    issuer: Behaviour, behaviour: Behaviour = answered, clock: Clock | None = None
) -> AsyncIterator[tuple[Rig, Endpoint, Endpoint]]:
    async with (
        endpoint(issuer) as tokens,
        endpoint(behaviour) as there,
        calling(credentials(tokens.url("/token")), clock=clock) as rig,
    ):
        yield rig, tokens, there


async def call(rig: Rig, there: Endpoint, policy: Policy = STANDARD) -> Outcome:
    made = await rig.caller.call(subscription(http(there.url()), policy=policy), [delivery()], WEBHOOK_ID)
    assert SECRET not in made.text
    assert "token-" not in made.text
    return made.outcome


async def test_a_token_is_fetched_shown_and_kept_until_it_expires() -> None:
    clock = Clock()
    async with both(Issuer(), clock=clock) as (rig, tokens, there):
        assert await call(rig, there) == Outcome(200)
        clock.now += 3500
        await call(rig, there)
        # It has to arrive while it is good.
        clock.now += 71
        await call(rig, there)
    first, _ = tokens.calls
    assert parse_qs(first.body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["hooks"],
        "audience": ["x"],
    }
    assert base64.b64decode(first.headers["authorization"].removeprefix("Basic ")).decode() == (
        "our+client:cl1ent-secret%26%2B"
    )
    assert [one.headers["authorization"] for one in there.calls] == [
        "Bearer token-1",
        "Bearer token-1",
        "Bearer token-2",
    ]


async def test_a_server_that_takes_the_secret_in_the_body_only_is_asked_so_from_then_on() -> None:
    issuer, clock = Issuer(), Clock()
    issuer.only_body = True
    async with both(issuer, clock=clock) as (rig, tokens, there):
        await call(rig, there)
        clock.now += 3600
        assert await call(rig, there) == Outcome(200)
    assert ["authorization" in one.headers for one in tokens.calls] == [True, False, False]
    assert parse_qs(tokens.calls[1].body.decode())["client_secret"] == [SECRET]


async def test_calls_at_once_fetch_one_token() -> None:
    held = asyncio.Event()
    issuer = Issuer()

    async def slow(call: Call) -> None:
        await held.wait()
        await issuer(call)

    async with both(slow) as (rig, tokens, there):
        running = [asyncio.create_task(call(rig, there)) for _ in range(8)]
        while not tokens.calls:
            await asyncio.sleep(0)
        running[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await running[0]
        held.set()
        assert await asyncio.gather(*running[1:]) == [Outcome(200)] * 7
        assert issuer.issued == 1


async def test_a_token_that_is_refused_is_fetched_anew_once() -> None:
    async def only_the_second(call: Call) -> None:
        good = call.headers["authorization"] == "Bearer token-2"
        await call.answer(status=200 if good else 401)

    clock = Clock()
    async with both(Issuer(), only_the_second, clock) as (rig, tokens, there):
        # The first one is fresh, so that another would fare no better.
        assert await call(rig, there) == Outcome(401)
        clock.now += 1
        assert await call(rig, there) == Outcome(200)
        clock.now += 1
        assert await call(rig, there) == Outcome(200)
    assert len(tokens.calls) == 2
    assert len(there.calls) == 4
    assert len({one.headers["webhook-id"] for one in there.calls}) == 1


async def test_who_is_refused_with_a_new_token_too_is_refused() -> None:
    async def refusing(call: Call) -> None:
        await call.answer(status=401)

    clock = Clock()
    async with both(Issuer(), refusing, clock) as (rig, tokens, there):
        await call(rig, there)
        clock.now += 1
        assert await call(rig, there) == Outcome(401)
    assert len(tokens.calls) == 2
    assert len(there.calls) == 3


async def test_an_answer_that_repeats_the_token_is_kept_without() -> None:
    async def echoing(call: Call) -> None:
        await call.answer(call.head.encode())

    async with both(Issuer(), echoing) as (rig, _, there):
        made = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
    assert "webhook-id" in made.answer
    assert "token-1" not in made.answer


@pytest.mark.parametrize(
    ("answer", "status", "error", "words"),
    [
        (b"<html>", 200, "token_invalid", "nothing that holds an access_token"),
        (b"", 200, "token_invalid", "nothing that holds an access_token"),
        (b"\xff\xfe" * 100, 200, "token_invalid", "nothing that holds an access_token"),
        (b'["access_token"]', 200, "token_invalid", "nothing that holds an access_token"),
        (b'{"access_token": 7}', 200, "token_invalid", "nothing that holds an access_token"),
        (b'{"access_token": ""}', 200, "token_invalid", "nothing that holds an access_token"),
        (b'{"access_token": "a\\r\\nX-Evil: 1"}', 200, "token_invalid", "nothing that holds an access_token"),
        (b'{"access_token": "' + b"a" * 40_000 + b'"}', 200, "token_invalid", "nothing that holds an access_token"),
        (b'{"access_token": "a", "token_type": "mac"}', 200, "token_invalid", "no bearer token"),
        (b'{"error": "invalid_client"}', 401, "token_refused", "its server answered 401 (invalid_client)"),
        (b'{"error": "a\\u0000b"}', 403, "token_refused", "its server answered 403."),
        (b"oops", 500, "token_refused", "its server answered 500."),
    ],
)
async def test_servers_that_give_no_token(answer: bytes, status: int, error: str, words: str) -> None:
    async def answering(call: Call) -> None:
        await call.answer(answer, status)

    async with both(answering) as (rig, tokens, there):
        made = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
    assert made.outcome == Outcome(error=error)
    assert not made.outcome.ours
    assert words in made.text
    assert made.request == f"POST {there.url()}"
    assert tokens.calls
    assert there.calls == []


async def test_a_token_of_many_kilobytes_is_taken_whole() -> None:
    async def large(call: Call) -> None:
        await call.answer(json.dumps({"access_token": "a" * 7000}).encode())

    async with both(large) as (rig, _, there):
        assert await call(rig, there) == Outcome(200)
    assert there.calls[0].headers["authorization"] == f"Bearer {'a' * 7000}"


@pytest.mark.parametrize(
    ("expires_in", "good"), [("3600", True), (None, True), (0, False), (-5, False), ("soon", True)]
)
async def test_what_a_server_says_of_the_time(expires_in: object, good: bool) -> None:
    issuer, clock = Issuer(), Clock()
    issuer.more = {"expires_in": expires_in}
    async with both(issuer, clock=clock) as (rig, tokens, there):
        await call(rig, there)
        clock.now += 200
        await call(rig, there)
    assert len(tokens.calls) == (1 if good else 2)


async def test_a_server_that_hangs_costs_the_attempt_its_time_and_no_more() -> None:
    async def hanging(call: Call) -> None:
        await tokens.ended.wait()

    async with both(hanging) as (rig, tokens, there):
        made = await rig.caller.call(
            subscription(http(there.url()), policy=Policy(STANDARD.kind, 1, ())), [delivery()], WEBHOOK_ID
        )
        assert made.outcome == Outcome(error="token_timeout")
        assert made.us < TIMEOUT_S * 1e6 / 2
        # What hangs goes on for those who come, and is not begun anew by each.
        await call(rig, there, Policy(STANDARD.kind, 1, ()))
        assert len(tokens.calls) == 1
        assert there.calls == []


async def test_a_redirect_to_a_private_address_is_not_followed() -> None:
    async with endpoint(Issuer()) as private:

        async def leading(call: Call) -> None:
            await call.answer(b"", 307, f"Location: {private.url()}\r\n")

        async with both(leading) as (rig, _, there):
            assert await call(rig, there) == Outcome(error="token_refused")
        assert private.calls == []
        assert there.calls == []


async def test_a_token_address_goes_through_the_same_door() -> None:
    opening = credentials("http://169.254.169.254/latest/meta-data/iam")
    async with endpoint(answered) as there, calling(opening) as rig:
        made = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
    assert made.outcome == Outcome(error="token_address_refused")
    assert "link-local" in made.text or "metadata" in made.text
    assert there.calls == []


async def test_a_proxy_that_fails_for_the_token_is_ours() -> None:
    opening = credentials("http://127.0.0.1:1/token")
    async with endpoint(answered) as there, calling(opening, notifier_proxy_url="http://127.0.0.1:9") as rig:
        outcome = await call(rig, there)
    assert outcome == Outcome(error="proxy_failed")
    assert outcome.ours
