"""An account that goes from copy to copy is asked within its budget, and no slower than one copy would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backhaul_channels.pull import Budget
from backhaul_reconciler.ledger import MINUTE_S
from provider_api import Messages

if TYPE_CHECKING:
    from asking_rig import Copy, Rig
    from backhaul_reconciler.accounts import Held
    from backhaul_reconciler.ledger import Ledger


class Paced(Messages):
    """Six requests a minute."""

    budgets = {"api": Budget(per_minute=6)}  # noqa: RUF012  # a value of the class


def ask_often(ledger: Ledger, held: Held, number: int) -> None:
    """``number`` requests, all of which the budget must allow at once."""
    for _ in range(number):
        assert ledger.wait_s(held.loop_time()) == 0
        ledger.begin()
        ledger.end(held.loop_time())


async def take(copy: Copy) -> tuple[Held, Ledger]:
    """The account, and what it still allows."""
    held = await copy.accounts.take("twilio/A1")
    assert held is not None
    return held, copy.asking.ledgers(held)["api"]


async def test_whoever_takes_an_account_from_a_dead_copy_takes_its_minute_for_spent(asking: Rig) -> None:
    asking.ask(Paced())
    await asking.register()
    copy, other = asking.copy(), asking.copy("other")
    await copy.channels.sync()
    held, ledger = await take(copy)
    ask_often(ledger, held, 1)
    await asking.dead()
    taken, after = await take(other)
    assert MINUTE_S - 2 < after.wait_s(taken.loop_time()) <= MINUTE_S


async def test_copies_that_hand_an_account_to_each_other_use_its_budget_as_one_would(asking: Rig) -> None:
    asking.ask(Paced())
    await asking.register()
    copies = asking.copy(), asking.copy("other"), asking.copy("third")
    await copies[0].channels.sync()
    for number, copy in zip((3, 0, 2, 1), (*copies, copies[0]), strict=True):
        held, ledger = await take(copy)
        ask_often(ledger, held, number)
        await copy.asking._give_back(held, {"api": ledger})
    held, ledger = await take(copies[2])
    assert MINUTE_S - 10 < ledger.wait_s(held.loop_time()) <= MINUTE_S
    # What the one was told to do less of, the next one does less of.
    ledger.later(held.loop_time(), None)
    ledger.later(held.loop_time(), None)
    await copies[2].asking._give_back(held, {"api": ledger})
    held, again = await take(copies[1])
    assert again.left(held.loop_time())["failures"] == 2
