"""Stacks that tests break one after another, some of them with two copies of a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

DEAD_TRANSACTION_S = 3
"""See ``own_stack``."""

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from faults.copies import Pair
    from faults.filed import Filing


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


@pytest.fixture(scope="session")
def one_of_each(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """It runs, with a mongod of its own, and gives soon to another what a dead normalizer had in hand."""
    from kept_stacks import kept

    env = {"normalizer": {"BACKHAUL_NORMALIZER_ACK_WAIT_S": "3"}}
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
