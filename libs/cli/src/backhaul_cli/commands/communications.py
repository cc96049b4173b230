"""``backhaul communications``: what was sent, and what became of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.importing import imported, lines_of, sent
from backhaul_cli.options import LIMIT, All, AsJson, Channel, Errors, From, Limit, ProfileName, To, bound, page
from backhaul_cli.output import Column, Output, facts, section
from backhaul_cli.texts import age

if TYPE_CHECKING:
    from backhaul_client import TenantClient

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_(
    status: Annotated[str, typer.Option("--status", metavar="STATUS", help="active, complete or disabled alone.")] = "",
    channel: Channel = "",
    registered: Annotated[bool, typer.Option("--registered", help="Only what was registered.")] = False,
    from_: From = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List communications, newest first.

    Example: backhaul communications list --status active --from 7d
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.communications.list(
            status=status, channel=channel, registered=registered, from_=from_, to=to, page_size=page(limit, every)
        )
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            found,
            [
                Column("communication", lambda one: one.id, folds=True),
                Column("name", lambda one: one.registered and one.registered.name, folds=True),
                Column("status", lambda one: one.status),
                Column("batches", lambda one: f"{one.batches_complete}/{one.batch_count}", right=True),
                Column("age", lambda one: age(one.created_at, now), right=True),
            ],
            of="communications",
            limit=bound(limit, every),
        )


@app.command()
def show(
    communication: Annotated[str, typer.Argument(metavar="ID", help="Your own id of it.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show what became of one communication: its counts, errors and batches.

    Example: backhaul communications show spring-sale
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.communications.get(communication)
    counts = [(state, count) for state, count in found.fulfilment.items() if count]
    kinds = [(kind, count) for kind, count in found.events.items() if count]
    output = Output(as_json=json)
    output.thing(
        found,
        lambda: [
            facts(
                ("communication", found.id),
                ("name", found.registered and found.registered.name),
                ("status", found.status),
                ("messages", found.messages),
                ("opened by", found.engagement.unique_opened),
                ("clicked by", found.engagement.unique_clicked),
                ("replies", found.replies.all),
                ("of them stop", found.replies.stop),
                ("batches", f"{found.batches_complete} of {found.batch_count} complete"),
                ("since", found.created_at),
                ("last event", found.last_event_at),
            ),
            *section(counts, [Column("state", lambda one: one[0]), Column("messages", lambda one: one[1], right=True)]),
            *section(kinds, [Column("kind", lambda one: one[0]), Column("events", lambda one: one[1], right=True)]),
            *section(
                found.errors,
                [
                    Column("error", lambda one: one.error_code),
                    Column("channel", lambda one: one.channel),
                    Column("messages", lambda one: one.count, right=True),
                ],
            ),
            *section(
                found.batches,
                [
                    Column("batch", lambda one: one.id, folds=True),
                    Column("status", lambda one: one.status),
                    Column("waiting", lambda one: one.progress.waiting, right=True),
                    Column("of", lambda one: one.progress.destinations, right=True),
                ],
            ),
        ],
    )
    if found.more_batches:
        output.note(f"There are more batches: these are the newest {len(found.batches)} of {found.batch_count}.")


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Members, as CSV with a column member_key; one JSON object a line where its name ends in .jsonl; or a "
            "JSON list of objects (.json).",
        ),
    ],
    batch: Annotated[str, typer.Option("--batch", metavar="ID", help="Your own id of the batch that they belong to.")],
    communication: Annotated[
        str,
        typer.Option(
            "--communication", metavar="ID", help="The batch's: where either is not registered yet, it is then."
        ),
    ] = "",
    channel: Annotated[
        str, typer.Option("--channel", metavar="LABEL", help="By which members go whose line names none, then.")
    ] = "",
    close: Annotated[bool, typer.Option("--close", help="Close the batch when all are there.")] = False,
    errors: Errors = None,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Add the members of a file to a batch. The same file again changes nothing, so whatever broke off is repeated. It
    ends with 7 where lines were refused; then the batch stays open.

    Example: backhaul communications import members.csv --batch autumn-1 --communication autumn-sale --channel Twilio
    """
    if channel and not communication:
        raise typer.BadParameter("--channel is of a communication that is registered: name it by --communication.")
    output = Output(as_json=json)
    with file.open("rb") as opened, connecting.tenant(profile) as backhaul:
        if communication:
            _registered(backhaul, communication, batch, channel)
        form: Literal["csv", "jsonl"] = "jsonl" if file.suffix in (".jsonl", ".json") else "csv"
        pieces = lines_of(opened, file) if file.suffix == ".json" else sent(opened, output)
        try:
            found = backhaul.batches.import_members(batch, pieces, format=form)
        finally:
            output.progress("")
        if close and not found.refused:
            backhaul.batches.close(batch)
    imported(found, {"added": found.added, "changed": found.changed}, errors, output)
    if close and found.refused:
        output.note(f"Batch {batch} was not closed: mend the refused lines, and import those.")
    if found.refused:
        raise typer.Exit(Code.NO)


def _registered(backhaul: TenantClient, communication: str, batch: str, channel: str) -> None:
    """Registers what is not. What is there stays as it is: another registration would replace what it says."""
    from backhaul_client import NotFoundError

    try:
        there = backhaul.batches.get(batch)
    except NotFoundError:
        try:
            known = backhaul.communications.get(communication).registered is not None
        except NotFoundError:
            known = False
        if not known:
            backhaul.communications.put(communication, channel=channel)
        backhaul.batches.put(communication, batch)
        return
    if there.communication_id != communication:
        raise FailedError(
            f"Batch {batch} is of communication {there.communication_id}.",
            "Say that one, or another batch.",
            code=Code.REFUSED,
        )
