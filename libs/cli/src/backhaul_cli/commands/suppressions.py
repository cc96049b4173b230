"""``backhaul suppressions``: who must not be contacted, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code
from backhaul_cli.options import LIMIT, All, AsJson, From, Limit, ProfileName, To, bound, moment, page
from backhaul_cli.output import Column, Output, facts, section, words
from backhaul_cli.texts import age

if TYPE_CHECKING:
    from backhaul_client.suppressionmodels import Suppression, SuppressionOutcome, SuppressionScope
    from backhaul_client.suppressions import EvidenceIn

app = typer.Typer(no_args_is_help=True)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="A number or an e-mail address.")]
Family = Annotated[str, typer.Option("--family", metavar="FAMILY", help="phone, email, voice or whatsapp alone.")]
Standing = Annotated[str, typer.Option("--standing", metavar="WORD", help="lifted, or any; without, those that hold.")]
ScopeKind = Annotated[
    str,
    typer.Option("--scope", metavar="KIND", help="Of one sender, messaging_service or group alone; without, of all."),
]
ScopeId = Annotated[str, typer.Option("--scope-id", metavar="ID", help="Which one.")]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="What is kept of why.")]


@app.command()
def check(
    address: Address,
    family: Family = "",
    purpose: Annotated[
        str, typer.Option("--purpose", metavar="PURPOSE", help="Such as marketing or transactional.")
    ] = "",
    sender: Annotated[str | None, typer.Option("--sender", metavar="SENDER", help="From whom it would come.")] = None,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Say whether a person may be contacted. It ends with 0 where they may, and with 7 where they may not.

    Example: backhaul suppressions check +15005550010 --purpose transactional
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.check(address, family=family, purpose=purpose, sender=sender)
    Output(as_json=json).thing(
        found,
        lambda: [
            words(found.verdict, "green" if found.allowed else "red"),
            *section(
                found.blocking,
                [
                    Column("kind", lambda one: one.kind),
                    Column("scope", lambda one: _scope(one.scope), folds=True),
                    Column("since", lambda one: one.since),
                    Column("suppression", lambda one: one.suppression_id, folds=True),
                ],
            ),
        ],
    )
    if not found.allowed:
        raise typer.Exit(Code.NO)


@app.command()
def show(address: Address, family: Family = "", profile: ProfileName = "", json: AsJson = False) -> None:
    """Show all that is known of an address, what was lifted too.

    Example: backhaul suppressions show +15005550010
    """
    from msgspec.structs import replace

    with connecting.tenant(profile) as backhaul:
        found = backhaul.suppression_record(address, family=family)
        while found.next_cursor:
            page = backhaul.suppression_record(address, family=family, cursor=found.next_cursor)
            found = replace(found, history=found.history + page.history, next_cursor=page.next_cursor)
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(("address", found.address), ("family", found.family)),
            *section(
                found.suppressions,
                [
                    Column("kind", lambda one: one.kind),
                    Column("scope", lambda one: _scope(one.scope), folds=True),
                    Column("active", lambda one: one.active),
                    Column("since", lambda one: one.since),
                    Column("source", lambda one: one.source),
                ],
            ),
            *section(
                found.history,
                [
                    Column("at", lambda one: one.at),
                    Column("kind", lambda one: one.suppression.kind),
                    Column("what", lambda one: "lifted" if one.fact.lifts else "suppressed"),
                    Column("said", lambda one: one.fact.word or one.fact.note, folds=True),
                    Column("by", lambda one: one.fact.author or one.fact.source, folds=True),
                ],
            ),
        ],
    )


@app.command("list")
def list_(
    family: Family = "",
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Of this kind alone, such as stop.")] = "",
    standing: Standing = "",
    from_: From = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List who is suppressed, the latest change first.

    Example: backhaul suppressions list --family phone
    """
    with connecting.tenant(profile) as backhaul:
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            backhaul.suppressions(
                family=family, kind=kind, standing=standing, from_=from_, to=to, page_size=page(limit, every)
            ),
            [
                Column("address", lambda one: one.address, folds=True),
                Column("kind", lambda one: one.kind),
                Column("scope", lambda one: _scope(one.scope), folds=True),
                Column("active", lambda one: one.active),
                Column("source", lambda one: one.source),
                Column("age", lambda one: age(one.recorded_at, now), right=True),
            ],
            of="suppressions",
            limit=bound(limit, every),
        )


@app.command()
def add(
    address: Address,
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Such as stop, complaint or manual.")] = "manual",
    family: Family = "",
    scope: ScopeKind = "",
    scope_id: ScopeId = "",
    source: Annotated[
        str, typer.Option("--source", metavar="SOURCE", help="By which way it was heard of, such as agent.")
    ] = "",
    note: Note = "",
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Record that a person must not be contacted.

    Example: backhaul suppressions add +15005550010 --kind stop --source agent --note "By telephone."
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.suppress(
            address, kind, family=family, scope_kind=scope, scope_id=scope_id, source=source, note=note
        )
    _say(found, json)


@app.command()
def lift(
    address: Address,
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Which kind is lifted.")] = "manual",
    family: Family = "",
    scope: ScopeKind = "",
    scope_id: ScopeId = "",
    evidence_source: Annotated[
        str, typer.Option("--evidence-source", metavar="SOURCE", help="By which way the person consented.")
    ] = "",
    evidence: Annotated[
        str, typer.Option("--evidence", metavar="REFERENCE", help="Where you find that they consented.")
    ] = "",
    evidence_at: Annotated[
        datetime | None, typer.Option("--evidence-at", parser=moment, metavar="TIME", help="When they did.")
    ] = None,
    note: Note = "",
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Lift what you may lift; where you may not, it names the rule.

    Example: backhaul suppressions lift +15005550010 --kind stop --evidence-source web --evidence-at 2d
    """
    proof: EvidenceIn | None = None
    if evidence_source or evidence or evidence_at is not None:
        if evidence_at is None:
            raise typer.BadParameter("Evidence needs its time: --evidence-at TIME.")
        proof = {"source": evidence_source, "reference": evidence, "at": evidence_at}
    with connecting.tenant(profile) as backhaul:
        found = backhaul.lift_suppression(
            address, kind, family=family, scope_kind=scope, scope_id=scope_id, note=note, evidence=proof
        )
    _say(found, json)


def _scope(scope: SuppressionScope) -> str:
    return " ".join(filter(None, (scope.kind, scope.id)))


def _say(found: SuppressionOutcome, json: bool) -> None:
    row: Suppression = found.suppression
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("address", row.address),
                ("kind", row.kind),
                ("scope", _scope(row.scope)),
                ("active", row.active),
                ("changed", found.changed),
                ("blocks", row.blocks),
            )
        ],
    )
