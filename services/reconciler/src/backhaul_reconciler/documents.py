"""How channels, accounts, runs, differences and days are stored. Times are unix time in microseconds.

A copy of the service that holds an *account* at a provider asks it, for all channels that share it, one after another:
so what the account allows is kept without counting anything over several copies. Nothing is lost with a copy: what a
channel was asked for is stored behind every page, after what the page told was acknowledged by CALLBACKS.

Differences and days go with their channel's document, which goes when the channel does, or its pull_credentials: nobody
would settle them any more, and a channel that is made anew under the same key begins anew. Runs stay for their time.

``reconciled_channels``: a channel whose provider has an API, with pull_credentials::

    _id                 ``ChannelOf.id``: registration and the channel's key
    registration, tenant, channel, provider
    account             account_id_of: provider and ``Puller.account``; absent where the credentials do not open
    known_of            the account that ``lists`` and ``closing`` are of
    due_at_us           when it is asked next, by whoever holds the account: of its channels the one that is due longest
    settings_us         the channel's updated_at, by which changed settings and credentials make it due at once
    standing, text      a word of ``Standing``, and for people why it is not "asked"
    asked_at_us         when a run of it last began; absent before
    run                 the id of its last run; absent before
    running             {id, cause, from_us, to_us, dry_run, began_at_us, passed}: the run that is under way, absent
                        where none is; ``passed`` are the parts that it has behind it; of one that somebody asked for
                        also {read, listing, cursor, opening}: the lists that it has behind it, and where it goes on
    called              {id, from_us, to_us, dry_run, asked_at_us}: a run that somebody asked for and that has not begun
    changed_at_us       since when it has been due by its settings
    lists               {listing: {to_us: up to when all that it tells is known, pace: records an hour of the last span,
                                   span: [from_us, to_us], cursor, rows: what is being asked, from where on, and what
                                   it told so far, wait_us: when the provider has the next page, odd: whether what is
                                   at ``cursor`` could not be read}}; absent where nothing is
    never               {listing, or "single messages": {text: what the provider said, at_us: when}}: what it does not
                        offer to the account; absent before, and once the settings change
    open                {age in seconds: created_at_us up to which open messages were asked for at that age}
    opening             {age, from_us, to_us, end_us}: of that age, messages from from_us to to_us are still to be asked
                        for, and then all are up to end_us; absent where none are
    closing             {day, listing, cursor, page, done, wait_us, odd, token, within, asked, owned, counts}: the day
                        that is being compared, absent where none is: after the lists (which are ``done``) our own
                        messages, a page of them from ``token`` on, of which so many ``within`` it and in all were
                        ``asked`` singly, until all are (``owned``)

``reconciled_accounts``::

    _id                 account_id_of
    owner               the copy that holds it; empty where it was given back
    epoch               grows whenever it is taken
    until               when the holder loses it, by MongoDB's clock (a date); 90 days later the document goes, since
                        nobody has asked the account: where it is asked again the epoch begins anew, with budgets of
                        which nothing is spent
    renewals            how often the lease was renewed: writing it fences each transaction; absent before the first
    left                {epoch, at, budgets: {name: ``Ledger.left``}}: what was asked before it was given back last, at
                        which epoch and when, by MongoDB's clock (a date); of no use to whoever finds a later epoch,
                        since a holder has died in between; absent before
    not_before_us       the provider wants to be left alone until then; absent where it does not

``reconciled_runs``, kept for 90 days::

    _id                 a report's id
    registration, tenant, channel, cause, state, text, from_us, to_us, dry_run
    counts              {name: n}, as in the contract's Counts; without zeros
    began_at_us, ended_at_us    the latter absent while it runs
    began_at            began_at_us as a date, for the index that ends them

``reconciled_differences``: they go when both sides are equal again::

    _id                 ``ChannelOf.id`` and the message's id
    registration, channel, message_id, kind ("state", "unknown_to_provider")
    our_state, our_error_code, provider_state, provider_error_code      absent where empty
    first_seen_at_us, last_seen_at_us, run

``reconciled_days``: the account of a day::

    _id                 ``ChannelOf.id`` and the day ("2026-11-25", UTC)
    registration, channel, day, state ("open", "closed", "cannot_be_closed"), text
    provider_messages, equal, backfilled, differing, open, unknown_to_provider
    compared_at_us      0 where it never was: neither does the provider's refusal to be asked change it, nor the numbers
    due_at_us           when an open one is compared again; absent where it is not

``reconciled_seen``: of a day that is being compared, one document a page, deleted with the comparison::

    _id                 ``ChannelOf.id``, the day and the page's number
    registration, channel
    messages            BLAKE2b of 8 bytes of each message's id, one behind another
    differing, open, backfilled     the same of those that are; absent where none are
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

BEFORE_ALL: Final = 0
"""When a channel is due of which somebody waits for the answer."""


def account_id_of(provider: str, account: str) -> str:
    """The id of an account at a provider; ``account`` as ``Puller.account`` has it."""
    return f"{provider}/{account}"


def seen(message_id: str) -> bytes:
    """What is kept of a message that the provider lists."""
    return blake2b(message_id.encode(), digest_size=8).digest()
