"""Stacks that tests break one after another, some of them with two copies of a service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

DEAD_TRANSACTION_S = 3
"""See ``own_stack``."""

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from backhaul_testing.apis.sendgrid import SendGridApi
    from backhaul_testing.apis.twilio import TwilioApi
    from faults.copies import Pair
    from faults.filed import Filing
    from faults.receivers import Notified
    from faults.truth import Asking


@pytest.fixture(scope="session")
def pair_of_copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """It runs, with a mongod of its own."""
    from faults.copies import ENV, two_copies
    from kept_stacks import kept

    with kept(tmp_path_factory.mktemp("pair"), services=two_copies(), env=ENV, with_object_store=False) as stack:
        yield stack


@pytest.fixture
async def pair(pair_of_copies: Stack) -> AsyncIterator[Pair]:
    """Two copies, to be broken. Afterwards everything runs again, for the next one; tenants keep tests apart."""
    from faults.copies import Pair, asked
    from simulators.people import Town

    stack = pair_of_copies
    async with (
        Town(stack.gateway_url, stack.admin_token) as town,
        asked(stack, town.platform) as copies,
    ):
        made = Pair(stack, town, copies)
        try:
            yield made
        finally:
            await made.mend()


@pytest.fixture(scope="session")
def two_that_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """It runs, with two copies of audit, and with a mongod and an object storage of its own."""
    from faults.filed import ENV, two_copies
    from kept_stacks import kept

    with kept(tmp_path_factory.mktemp("filing"), services=two_copies(), env=ENV) as stack:
        yield stack


@pytest.fixture
async def filing(two_that_file: Stack) -> AsyncIterator[Filing]:
    """Two copies of audit, to be broken. Afterwards everything runs again, as above."""
    from faults.copies import mend
    from faults.filed import Filing
    from simulators.people import Town

    async with Town(two_that_file.gateway_url, two_that_file.admin_token) as town:
        try:
            yield Filing(two_that_file, town)
        finally:
            await mend(two_that_file)
        # Otherwise their digests, signed every other second, would soon take all that the machine has.
        await town.platform.let_go()


@pytest.fixture(scope="session")
def one_of_each(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """It runs, with a mongod of its own, and gives soon to another what a dead normalizer had in hand. Its gateway's
    spool is as small as one may be."""
    from kept_stacks import kept

    env = {
        "normalizer": {"BACKHAUL_NORMALIZER_ACK_WAIT_S": "3"},
        "gateway": {"BACKHAUL_GATEWAY_SPOOL_MAX_BYTES": str(16 << 20)},
    }
    with kept(
        tmp_path_factory.mktemp("one-of-each"), service_env=env, with_object_store=False, log_level="info"
    ) as stack:
        yield stack


@pytest.fixture
async def breakable(one_of_each: Stack) -> AsyncIterator[Stack]:
    """One copy of each service, to be broken. Everything is ready, and runs again afterwards, as above."""
    from faults.copies import mend

    assert one_of_each.mongo is not None
    await mend(one_of_each)
    for member in one_of_each.members:
        await member.wait_ready()
    with one_of_each.mongo.transactions_live(DEAD_TRANSACTION_S):
        yield one_of_each
        await mend(one_of_each)


@pytest.fixture(scope="session")
def two_that_fold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """It runs, with two normalizers and a mongod of its own, and gives soon to one what the other has in hand."""
    from faults.copies import folding_twice
    from kept_stacks import kept

    env = {"BACKHAUL_NORMALIZER_ACK_WAIT_S": "3"}
    with kept(tmp_path_factory.mktemp("folding"), services=folding_twice(), env=env, with_object_store=False) as stack:
        yield stack


@pytest.fixture
async def breakable_folding(two_that_fold: Stack) -> AsyncIterator[Stack]:
    """Two normalizers, to be broken. Afterwards everything runs again, as above."""
    from faults.copies import mend

    assert two_that_fold.mongo is not None
    with two_that_fold.mongo.transactions_live(DEAD_TRANSACTION_S):
        yield two_that_fold
        await mend(two_that_fold)


@pytest.fixture(scope="session")
def simulated_twilio() -> Iterator[TwilioApi]:
    """Twilio's API, for all tests that ask it; accounts keep them apart."""
    from backhaul_testing.apis.twilio import TwilioApi

    # So long that something can be killed while it is asked.
    with TwilioApi(seed=1, latency_s=0.1) as api:
        yield api


@pytest.fixture(scope="session")
def simulated_sendgrid() -> Iterator[SendGridApi]:
    """SendGrid's API, likewise; users and keys keep tests apart."""
    from backhaul_testing.apis.sendgrid import SendGridApi

    with SendGridApi(seed=1, latency_s=0.3) as api:
        yield api


@pytest.fixture(scope="session")
def two_that_ask(
    tmp_path_factory: pytest.TempPathFactory, simulated_twilio: TwilioApi, simulated_sendgrid: SendGridApi
) -> Iterator[Stack]:
    """It runs, with two copies of the reconciler, which ask a simulated Twilio and a simulated SendGrid, and with
    servers of its own."""
    from faults.truth import ENV, two_copies
    from kept_stacks import kept

    origins = {"https://api.twilio.com": simulated_twilio.url, **simulated_sendgrid.origins}
    env = {**ENV, "BACKHAUL_RECONCILER_ORIGINS": json.dumps(origins)}
    with kept(tmp_path_factory.mktemp("asking"), services=two_copies(), env=env) as stack:
        yield stack


@pytest.fixture
async def asking(two_that_ask: Stack, simulated_twilio: TwilioApi) -> AsyncIterator[Asking]:
    """Two copies of the reconciler, to be broken. Afterwards everything runs again, as above, and Twilio behaves."""
    from faults.copies import mend
    from faults.truth import Asking
    from simulators.people import Town

    assert two_that_ask.mongo is not None
    with two_that_ask.mongo.transactions_live(DEAD_TRANSACTION_S):
        async with Town(two_that_ask.gateway_url, two_that_ask.admin_token) as town:
            try:
                yield Asking(two_that_ask, town, simulated_twilio)
            finally:
                simulated_twilio.behave()
                await mend(two_that_ask)


@pytest.fixture(scope="session")
def two_that_tell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """It runs, with two copies of the notifier, which call endpoints on loopback, and a mongod of its own."""
    from faults.receivers import ENV, two_copies
    from kept_stacks import kept

    with kept(tmp_path_factory.mktemp("telling"), services=two_copies(), env=ENV, with_object_store=False) as stack:
        yield stack


@pytest.fixture
async def notified(two_that_tell: Stack) -> AsyncIterator[Notified]:
    """Two copies of the notifier, to be broken. Afterwards everything runs again, as above."""
    from faults.copies import mend
    from faults.receivers import Notified, receiving
    from simulators.people import Town

    assert two_that_tell.mongo is not None
    with two_that_tell.mongo.transactions_live(DEAD_TRANSACTION_S):
        async with (
            Town(two_that_tell.gateway_url, two_that_tell.admin_token) as town,
            receiving(two_that_tell) as those,
        ):
            try:
                yield Notified(two_that_tell, town, those)
            finally:
                await mend(two_that_tell)
