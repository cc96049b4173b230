"""The asynchronous client of suppression."""

from __future__ import annotations

from backhaul_client.suppression.changes import Changes
from backhaul_client.suppression.checks import Checks
from backhaul_client.suppression.lists import Lists
from backhaul_client.suppression.reads import Reads
from backhaul_client.suppression.watching import Watching


class SuppressionClient(Checks, Changes, Reads, Lists, Watching):
    """``async with SuppressionClient("suppression:50052", token=token) as suppression``. It belongs to the event loop
    in which it is made, and to the process."""
