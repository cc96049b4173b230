"""``backhaul audits``: files of events, and whether they are still what was signed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code, explained
from backhaul_cli.options import LIMIT, All, AsJson, Channel, From, Limit, ProfileName, To, bound, page
from backhaul_cli.output import Column, Output, facts, table, words
from backhaul_cli.texts import age

if TYPE_CHECKING:
    from backhaul_client.auditmodels import AuditFinding, AuditVerification

app = typer.Typer(no_args_is_help=True)

Chain = Annotated[str, typer.Option("--chain", metavar="CHAIN", help="events or backfill alone.")]


@app.command("list")
def list_(
    channel: Channel = "",
    chain: Chain = "",
    from_: From = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List audit files, the latest first; with --from and --to those with events that arrived then."""
    with connecting.tenant(profile) as backhaul:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            backhaul.audit_files(channel=channel, chain=chain, from_=from_, to=to, page_size=page(limit, every)),
            [
                Column("file", lambda one: one.id),
                Column("channel", lambda one: one.channel),
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
    file: Annotated[str, typer.Argument(metavar="ID", help="The file's id.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="Where to, instead of out.")
    ] = None,
    decrypted: Annotated[
        bool, typer.Option("--decrypted", help="What it holds: inflated, with people's lines readable.")
    ] = False,
    profile: ProfileName = "",
) -> None:
    """Fetch an audit file.

    Example: backhaul audits get 0f3c --decrypted -o day.jsonl
    """
    out = Output(as_json=False)
    with connecting.tenant(profile) as backhaul:
        pieces = backhaul.audit_content(file, decrypted=decrypted)
        if output is None:
            for piece in pieces:
                out.bytes(piece)
            return
        # Under its name it is whole, or not there.
        part = output.with_name(f"{output.name}.part")
        try:
            with part.open("wb") as opened:
                opened.writelines(pieces)
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)


@app.command()
def verify(
    from_: From = None,
    to: To = None,
    chain: Annotated[Literal["events", "backfill"] | None, typer.Option("--chain", help="One chain alone.")] = None,
    head: Annotated[
        list[str] | None, typer.Option("--head", metavar="HASH", help="A digest's hash that you kept; may be repeated.")
    ] = None,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Check every digest and file against the object storage. It ends with 7 where one is not what was signed.

    Example: backhaul audits verify --from 7d
    """
    from backhaul_client import BackhaulError

    out = Output(as_json=json)
    findings: list[AuditFinding] = []
    last: AuditVerification | None = None
    try:
        with connecting.tenant(profile) as backhaul:
            for last in backhaul.verify_audits(from_=from_, to=to, chain=chain or "", heads=head or ()):
                findings += last.findings
                out.progress(
                    f"{last.valid_digests} of {last.digests} digests, {last.valid_files} of {last.files} files"
                )
    except (BackhaulError, KeyboardInterrupt) as exc:
        # What was found stays found, however it ends.
        out.progress("")
        if last is None or all(finding.valid for finding in findings):
            raise
        _verified(out, last, findings)
        if isinstance(exc, KeyboardInterrupt):
            raise
        out.note(explained(exc)[0])
        raise typer.Exit(Code.NO) from None
    out.progress("")
    if last is not None:
        _verified(out, last, findings)
    if last is None or not last.done:
        out.note("It broke off before its end: run it again.")
    if not all(finding.valid for finding in findings):
        raise typer.Exit(Code.NO)
    if last is None or not last.done:
        raise typer.Exit(Code.AGAIN)


def _verified(out: Output, last: AuditVerification, findings: list[AuditFinding]) -> None:
    """What was found up to ``last``: one document, or what is wrong before the numbers."""
    from msgspec.structs import replace

    wrong = [finding for finding in findings if not finding.valid]
    out.thing(
        replace(last, findings=tuple(findings)),
        lambda: [
            *([table(wrong, _WRONG), words("")] if wrong else []),
            facts(
                ("digests", f"{last.valid_digests} of {last.digests} are what was signed"),
                ("files", f"{last.valid_files} of {last.files} are what was signed"),
                ("from", last.found_from),
                ("to", last.found_to),
                ("checked", None if last.done else "not to the end"),
            ),
        ],
    )


_WRONG: list[Column[AuditFinding]] = [
    Column("subject", lambda one: one.subject),
    Column("name", lambda one: one.name, folds=True),
    Column("problem", lambda one: one.problem),
    Column("detail", lambda one: one.detail, folds=True),
]


@app.command()
def prove(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's id.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Say in which files an event lies, and which digests sign them."""
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
