"""``backhaul audits``: files of events, and whether they are still what was signed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.options import LIMIT, All, AsJson, Channel, From, Limit, ProfileName, To, bound, moment, page
from backhaul_cli.output import Column, Output
from backhaul_cli.texts import age

app = typer.Typer(no_args_is_help=True)

OneChain = Annotated[Literal["events", "backfill"] | None, typer.Option("--chain", help="One chain alone.")]
SignedFrom = Annotated[
    datetime | None,
    typer.Option("--from", parser=moment, metavar="TIME", help="What was signed from then on: 2h, 3d, or ISO 8601."),
]


@app.command("list")
def list_(
    channel: Channel = "",
    chain: OneChain = None,
    from_: From = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List audit files, the latest first; with --from and --to those with events that arrived then.

    Example: backhaul audits list --channel Twilio --from 7d
    """
    with connecting.tenant(profile) as backhaul:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            backhaul.audit_files(channel=channel, chain=chain or "", from_=from_, to=to, page_size=page(limit, every)),
            [
                Column("file", lambda one: one.id),
                Column("channel", lambda one: one.channel, folds=True),
                Column("events", lambda one: one.events, right=True),
                Column("bytes", lambda one: one.bytes, right=True),
                Column("digest", lambda one: one.digest or "", right=True),
                Column("age", lambda one: age(one.sealed_at, now), right=True),
            ],
            of="audit files",
            limit=bound(limit, every),
        )


@app.command()
def get(
    file: Annotated[str, typer.Argument(metavar="ID", help="The file's id.")] = "",
    every: Annotated[
        Path | None,
        typer.Option("--all", metavar="FOLDER", help="Fetch all into a folder, with what verifies them."),
    ] = None,
    from_: SignedFrom = None,
    to: To = None,
    chain: OneChain = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="Where to, instead of out.")
    ] = None,
    decrypted: Annotated[
        bool, typer.Option("--decrypted", help="What it holds: inflated, with people's lines readable.")
    ] = False,
    profile: ProfileName = "",
) -> None:
    """Fetch an audit file, or with --all what was signed in a span of time: the same command again fetches what is not
    there. Keep the hashes that it ends with elsewhere: by them you can tell that digests were taken away.

    Examples: backhaul audits get 0f3c --decrypted -o day.jsonl; backhaul audits get --all copies --from 7d
    """
    if bool(file) == bool(every):
        raise typer.BadParameter("Name a file by its id, or a folder by --all.")
    if every is not None:
        from backhaul_cli.auditverifying import fetched

        if output is not None or decrypted:
            raise typer.BadParameter("--output and --decrypted go with one file: what is verified is as it is stored.")
        fetched(every, from_, to, chain, profile)
        return
    if from_ or to or chain:
        raise typer.BadParameter("--from, --to and --chain go with --all.")
    from backhaul_cli.auditcopies import whole

    out = Output(as_json=False)
    with connecting.tenant(profile) as backhaul:
        pieces = backhaul.audit_content(file, decrypted=decrypted)
        if output is not None:
            whole(output, pieces)
            return
        for piece in pieces:
            out.bytes(piece)


@app.command()
def verify(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Copies of them, instead of the object storage.")
    ] = None,
    from_: SignedFrom = None,
    to: To = None,
    chain: OneChain = None,
    head: Annotated[
        list[str] | None, typer.Option("--head", metavar="HASH", help="A digest's hash that you kept; may be repeated.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            metavar="FILE",
            help="For copies: what /.well-known/backhaul-audit-keys answered; without, Backhaul is asked.",
        ),
    ] = None,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Check every digest and file against the object storage, or copies of them without it. It ends with 7 where one is
    not what was signed, and with 4 where there was none, so that nothing was verified.

    Examples: backhaul audits verify --from 7d; backhaul audits verify copies --keys kept/keys.json --head 0f3c...
    """
    from backhaul_cli.auditverifying import copies, stored

    if wrong := [one for one in head or () if re.fullmatch("[0-9a-fA-F]{64}", one) is None]:
        raise typer.BadParameter(f"A head is 64 hex digits: {wrong[0]!r} is not the whole of one.")
    if folder is not None:
        copies(folder, keys, from_, to, chain, head or [], profile, Output(as_json=json))
        return
    if keys is not None:
        raise typer.BadParameter("--keys goes with a folder of copies.")
    stored(from_, to, chain, head or [], profile, Output(as_json=json))


@app.command()
def prove(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's id.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Say in which files an event lies, and which digests sign them.

    Example: backhaul audits prove 90c7d2bbc861878a288ef4b9724a6338
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.prove_event(event)
    output = Output(as_json=json)
    if json:
        # With the heads, to which the proofs lead.
        output.thing(found, list)
        return
    output.rows(
        found.proofs,
        [
            Column("revision", lambda one: one.revision, right=True),
            Column("file", lambda one: one.file.id, folds=True),
            Column("line", lambda one: one.place, right=True),
            Column("digest", lambda one: one.digest and one.digest.number, right=True),
            Column("hash", lambda one: one.digest and one.digest.hash, folds=True),
        ],
        of="files with this event",
    )
