"""Audit files, fetched and verified: how far it is, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import typer
from backhaul_client.auditmodels import AuditFinding, AuditVerification
from backhaul_digests.copies import KeyFile
from msgspec.structs import replace

from backhaul_cli import connecting
from backhaul_cli.auditcopies import CHAINS, NO_DIGEST, check, fetch, keys_of, whole
from backhaul_cli.failing import Code, explained
from backhaul_cli.output import Column, Output, encoded, facts, table, words
from backhaul_cli.texts import command


def fetched(folder: Path, from_: datetime | None, to: datetime | None, chain: str | None, profile: str) -> None:
    """Fetches what was signed in a span of time into ``folder``, and says how much that is."""
    out = Output(as_json=False)
    folder.mkdir(parents=True, exist_ok=True)
    with connecting.tenant(profile) as backhaul:
        keys = {"keys": backhaul.audit_keys()}
        chains = CHAINS if chain is None else (chain,)
        done = fetch(backhaul, folder, from_=from_, to=to, chains=chains, told=out.progress)
    out.progress("")
    whole(folder / "keys.json", [encoded(keys).encode()])
    out.thing(
        done,
        lambda: [
            facts(
                ("digests", done.digests),
                ("files", done.files),
                ("bytes", done.bytes),
                ("not signed yet", done.unsigned or None),
                *((f"head of {head.chain}", head.hash) for head in done.heads),
            )
        ],
    )
    for name in done.missing:
        out.note(f"{name} is not there to be fetched whole.")
    span = {"from_": from_ and from_.isoformat(), "to": to and to.isoformat()}
    out.note(f"Now: {command('audits verify', folder, **span, chain=chain, profile=profile)}")
    if done.missing:
        raise typer.Exit(Code.NO)


def copies(
    folder: Path,
    keys: Path | None,
    from_: datetime | None,
    to: datetime | None,
    chain: str | None,
    heads: list[str],
    profile: str,
    out: Output,
) -> None:
    """Checks copies, by ``keys`` or by what the installation says that they are."""
    if keys is not None:
        known = KeyFile.read(keys)
    else:
        with connecting.tenant(profile) as backhaul:
            known = keys_of(backhaul.audit_keys())

    def work(told: Callable[[AuditVerification], None]) -> None:
        chains = CHAINS if chain is None else (chain,)
        check(folder, known, from_=from_, to=to, chains=chains, heads=heads, told=told)

    _found(work, out)


def stored(
    from_: datetime | None, to: datetime | None, chain: str | None, heads: list[str], profile: str, out: Output
) -> None:
    """Has the installation check what lies in the object storage."""

    def work(told: Callable[[AuditVerification], None]) -> None:
        with connecting.tenant(profile) as backhaul:
            for one in backhaul.verify_audits(from_=from_, to=to, chain=chain or "", heads=heads):
                told(one)

    _found(work, out)


def _found(work: Callable[[Callable[[AuditVerification], None]], None], out: Output) -> None:
    """Says what ``work`` finds, and ends as that is."""
    findings: list[AuditFinding] = []
    last: AuditVerification | None = None

    def told(one: AuditVerification) -> None:
        nonlocal last
        last = one
        findings.extend(one.findings)
        out.progress(f"{one.valid_digests} of {one.digests} digests, {one.valid_files} of {one.files} files")

    try:
        work(told)
    except (Exception, KeyboardInterrupt) as exc:
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
    if not (last.digests or findings):
        # No proof of anything, however right it sounds that none of none was changed.
        out.note(f"There is no digest of that time: nothing was verified. {NO_DIGEST}")
        raise typer.Exit(Code.NOT_FOUND)


def _verified(out: Output, last: AuditVerification, findings: list[AuditFinding]) -> None:
    """What was found up to ``last``: one document, or what is wrong before the numbers."""
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
