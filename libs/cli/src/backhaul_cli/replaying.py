"""A replay, waited for: how far it is, and what it found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from backhaul_cli.failing import Code
from backhaul_cli.output import Output, facts, words
from backhaul_cli.texts import command

if TYPE_CHECKING:
    from backhaul_client import TenantClient
    from backhaul_client.replaymodels import Replay
    from rich.console import RenderableType

_ASK_AGAIN_S = 0.5
PATIENCE_S = 600.0
"""For so long nobody need answer what became of it."""
_GOING_ON = ("waiting", "running")


def followed(backhaul: TenantClient, begun: Replay, profile: str, output: Output) -> Replay:
    """``begun``, when it is over, whoever does not answer for minutes meanwhile. It goes on at Backhaul however this
    ends, by Ctrl-C too, and that is said."""
    from backhaul_client import DeadlineExceededError, RateLimitedError, UnavailableError, UnreachableError

    found, since = begun, time.monotonic()
    show, cancel = (command(f"replay {what}", begun.id, profile=profile) for what in ("show", "cancel"))
    where = f"It goes on: {show}, or {cancel}"
    try:
        while found.state in _GOING_ON:
            output.progress(f"{found.state}: {found.percent} % {found.text or ''}".rstrip())
            time.sleep(_ASK_AGAIN_S)
            try:
                found, since = backhaul.replays.get(found.id), time.monotonic()
            except (UnreachableError, UnavailableError, DeadlineExceededError, RateLimitedError):
                if time.monotonic() - since > PATIENCE_S:
                    raise
                output.progress(f"No answer for {time.monotonic() - since:.0f} s; asking again.")
    except KeyboardInterrupt:
        output.progress("")
        output.note(where)
        raise typer.Exit(Code.INTERRUPTED) from None
    except Exception:
        output.progress("")
        output.note(where)
        raise
    output.progress("")
    return found


def ended(found: Replay, output: Output) -> None:
    """Says what became of a replay that was waited for. It is a no where it was not done to its end."""
    output.thing(found, lambda: parts(found))
    if found.state != "done":
        raise typer.Exit(Code.NO)


def parts(found: Replay) -> Iterator[RenderableType]:
    """What is known of a replay."""
    counts = found.counts
    yield facts(
        ("replay", found.id),
        ("of", found.kind.replace("_", " ")),
        ("channel", found.channel),
        ("reason", found.reason),
        ("from", found.span_from),
        ("to", found.span_to),
        ("state", found.state),
        ("", found.text),
        ("dry run", "yes, nothing was changed" if found.dry_run else None),
        ("takes at least", f"{found.takes_s} s" if found.takes_s else None),
        ("stored since", found.stored_since),
        ("callbacks", counts.callbacks),
        ("events", counts.events),
        ("new", counts.new),
        ("completed", counts.completed),
        ("contradicted", counts.contradicted),
        ("unreadable", counts.unreadable),
        ("erased", counts.erased or None),
        ("dead letters" if found.dry_run else "dead letters closed", counts.dead_letters),
        ("refused again, open", counts.refused_again or None),
    )
    for example in found.examples:
        yield words(f"  {example.outcome.replace('_', ' ')} {example.event_kind or ''} {example.id}")
