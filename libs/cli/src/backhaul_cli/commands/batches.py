"""``backhaul communications``, its batches: registered, closed, and how far each is."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from backhaul_cli import connecting
from backhaul_cli.options import LIMIT, All, AsJson, Limit, OfCommunication, ProfileName, ahead, bound, page
from backhaul_cli.output import Column, Output, facts, section
from backhaul_cli.texts import age

if TYPE_CHECKING:
    from backhaul_client.communicationmodels import Batch, Member

Id = Annotated[str, typer.Argument(metavar="ID", help="Your own id of the batch.")]


def batches(
    communication: OfCommunication = "",
    status: Annotated[str, typer.Option("--status", metavar="STATUS", help="open, closed or complete alone.")] = "",
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List batches, newest first, and how far each is.

    Example: backhaul communications batches --communication spring-sale --status open
    """
    with connecting.tenant(profile) as backhaul:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            backhaul.batches.list(communication=communication, status=status, page_size=page(limit, every)),
            [
                Column("batch", lambda one: one.id, folds=True),
                Column("communication", lambda one: one.communication_id, folds=True),
                Column("status", lambda one: one.status),
                Column("members", _members, right=True),
                Column("processed", lambda one: f"{one.progress.processed}/{one.progress.destinations}", right=True),
                Column("done", _share, right=True),
                Column("age", lambda one: age(one.created_at, now), right=True),
            ],
            of="batches",
            limit=bound(limit, every),
        )


def batch(
    batch_id: Id,
    members: Annotated[
        bool, typer.Option("--members", help="List its members instead, with what became of each destination.")
    ] = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show one batch, and how far it is.

    Examples: backhaul communications batch spring-1; backhaul communications batch spring-1 --members --json
    """
    output = Output(as_json=json)
    with connecting.tenant(profile) as backhaul:
        if not members:
            _say(backhaul.batches.get(batch_id), output)
            return
        output.rows(
            backhaul.batches.members(batch_id),
            [
                Column("member", lambda one: one.member_key, folds=True),
                Column("destinations", _destinations, folds=True),
                Column("attributes", lambda one: one.attributes, folds=True),
            ],
            of="members",
        )


def add_batch(
    batch_id: Id,
    communication: Annotated[str, typer.Option("--communication", metavar="ID", help="Of this registered one.")],
    label: Annotated[str | None, typer.Option("--label", metavar="TEXT", help="What you call it.")] = None,
    expected: Annotated[
        int | None,
        typer.Option("--expected", min=1, metavar="N", help="So many members: it closes when they are there."),
    ] = None,
    deadline: Annotated[
        datetime | None,
        typer.Option("--deadline", parser=ahead, metavar="TIME", help="Complete by then: in 12h, or ISO 8601."),
    ] = None,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Register a batch of a communication, or change what is said of it: what is left out stays, and an empty label
    takes away. Its members come by communications import.

    Example: backhaul communications add-batch spring-1 --communication spring-sale --expected 5000
    """
    from backhaul_client import NotFoundError

    with connecting.tenant(profile) as backhaul:
        there = None
        # All of it is put, so that what is left out would be taken away.
        if label is None or expected is None:
            with suppress(NotFoundError):
                there = backhaul.batches.get(batch_id)
        made = backhaul.batches.put(
            communication,
            batch_id,
            label=label if label is not None else there.label if there else "",
            expected_members=expected if expected is not None else there.expected_members if there else None,
            deadline=deadline,
        )
    _say(made, Output(as_json=json))


def close_batch(batch_id: Id, profile: ProfileName = "", json: AsJson = False) -> None:
    """Take no member more: from now on it can be complete. Repeated, it changes nothing.

    Example: backhaul communications close-batch spring-1
    """
    with connecting.tenant(profile) as backhaul:
        closed = backhaul.batches.close(batch_id)
    _say(closed, Output(as_json=json))


def _members(one: Batch) -> str:
    return f"{one.progress.members}" + (f"/{one.expected_members}" if one.expected_members else "")


def _share(one: Batch) -> str:
    """Of its destinations, by the condition that completes it."""
    of, done = one.progress.destinations, getattr(one.progress, one.completes_on, one.progress.processed)
    return f"{done * 100 // of} %" if of else ""


def _destinations(one: Member) -> list[str]:
    return [
        " ".join(
            filter(
                None,
                (
                    to.channel,
                    to.recipient,
                    (to.message.fulfilment_state or to.message.state) if to.message else "Waiting",
                ),
            )
        )
        for to in one.destinations
    ]


def _say(found: Batch, output: Output) -> None:
    progress = found.progress
    states = [("Waiting", progress.waiting), *progress.fulfilment.items()]
    output.thing(
        found,
        lambda: [
            facts(
                ("batch", found.id),
                ("communication", found.communication_id),
                ("label", found.label),
                ("status", found.status),
                ("completed by", found.completed_by),
                ("members", _members(found)),
                ("destinations", progress.destinations),
                ("processed", f"{progress.processed} of {progress.destinations}"),
                ("final", f"{progress.final} of {progress.destinations}"),
                ("completes on", found.completes_on),
                ("done", _share(found)),
                ("deadline", found.deadline),
                ("closed", found.closed_at),
                ("completed", found.completed_at),
                ("since", found.created_at),
            ),
            *section(
                [row for row in states if row[1]],
                [Column("state", lambda one: one[0]), Column("destinations", lambda one: one[1], right=True)],
            ),
        ],
    )
