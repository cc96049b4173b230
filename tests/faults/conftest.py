"""Stacks with two copies of a service. Starting one takes longer than most of what is tried on it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from faults.copies import Pair
    from faults.filed import Filing


@pytest.fixture(scope="session")
def pair_of_copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """It runs, with a mongod of its own."""
    from backhaul_local.stack import Stack, StackConfig
    from faults.copies import ENV, two_copies

    with tempfile.TemporaryDirectory(prefix="backhaul-pair-", ignore_cleanup_errors=True) as folder:
        stack = Stack(
            StackConfig(
                data_dir=Path(folder),
                log_dir=tmp_path_factory.mktemp("pair"),
                services=two_copies(),
                env=ENV,
                with_object_store=False,
                # Six processes at once, on a machine that may have other work.
                start_timeout=90.0,
            )
        )
        try:
            for member in stack.members:
                member.launch()
            for member in stack.members:
                member.wait_ready_blocking()
            yield stack
        finally:
            for member in reversed(stack.members):
                member.stop_blocking()


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
    from backhaul_local.stack import Stack, StackConfig
    from faults.filed import ENV, two_copies

    with tempfile.TemporaryDirectory(prefix="backhaul-filing-", ignore_cleanup_errors=True) as folder:
        stack = Stack(
            StackConfig(
                data_dir=Path(folder),
                log_dir=tmp_path_factory.mktemp("filing"),
                services=two_copies(),
                env=ENV,
                # Eight processes at once, on a machine that may have other work.
                start_timeout=90.0,
            )
        )
        try:
            for member in stack.members:
                member.launch()
            for member in stack.members:
                member.wait_ready_blocking()
            yield stack
        finally:
            for member in reversed(stack.members):
                member.stop_blocking()


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
