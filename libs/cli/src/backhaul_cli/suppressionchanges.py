"""Changes of suppressions, as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code
from backhaul_cli.output import Output
from backhaul_cli.texts import command, exact

if TYPE_CHECKING:
    from backhaul_client.suppressionmodels import SuppressionChange

_WAIT_S = 20.0
"""Below the time that an answer may take."""


def watched(after: int | None, family: str, kinds: str, profile: str, output: Output) -> None:
    """Says each change behind the position ``after``, or from now on, once. However it ends, it says where to go on."""
    position = after

    def trying() -> None:
        output.note("Not now: trying again for up to 10 min.")

    with connecting.tenant(profile, waiting=trying) as backhaul:
        try:
            if position is None:
                position = backhaul.suppression_changes(family=family, kinds=kinds).next_position
            output.note("Watching; Ctrl-C ends it.")
            while True:
                found = backhaul.suppression_changes(position, wait=_WAIT_S, family=family, kinds=kinds)
                for change in found.changes:
                    _say(change, output)
                    if output.unread:
                        return
                    position = change.position
                position = found.next_position
        except BaseException as exc:
            if position is not None:
                # With what it asked for: without, it would go on with all kinds, and elsewhere.
                again = command("suppressions watch", after=position, family=family, kind=kinds, profile=profile)
                output.note(f"Go on from here: {again}")
            if isinstance(exc, KeyboardInterrupt):
                raise typer.Exit(Code.DONE) from None
            raise


def _say(change: SuppressionChange, output: Output) -> None:
    if output.as_json:
        output.thing(change, list)
        return
    row, fact = change.suppression, change.fact
    when = exact(change.at)[11:19] if change.at else ""
    scope = " ".join(filter(None, (row.scope.kind, row.scope.id)))
    state = "suppressed" if row.active else "lifted"
    said = f"  {fact.word or fact.note}".rstrip()
    output.line(f"{when}  {state:<10}  {row.address}  {row.kind}  {scope}  {fact.source}{said}  ({change.position})")
