"""``backhaul bench``: how long an installation takes from a callback to its event, measured from here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backhaul_cli import connecting, profiles
from backhaul_cli.commands.send import signs_with
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.options import AsJson, ProfileName, Yes, askable, confirmed
from backhaul_cli.output import Column, Output, facts, section, words

if TYPE_CHECKING:
    from backhaul_client.adminmodels import Channel
    from backhaul_samples import Provider

    from backhaul_cli.benching import Plan
    from backhaul_cli.measured import Measured

FROM_HERE = (
    "Measured from this machine: its way to Backhaul and back, what lies between, and whatever else the tenant and the "
    "installation had to do are part of it."
)

_WHY = {
    "429": "It ended where the tenant's limit was reached.",
    "held": "It ended where callbacks over the tenant's rate were held, to be stored later.",
}


def bench(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel's label, such as Twilio.")],
    event: Annotated[
        str, typer.Option("--event", metavar="EVENT", help="Which sample, as backhaul send --list has them.")
    ] = "delivered",
    rate: Annotated[int, typer.Option("--rate", min=1, max=1000, metavar="N", help="So many callbacks a second.")] = 20,
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, metavar="N", help="For so long.")] = 10,
    wait: Annotated[
        int, typer.Option("--wait", min=0, metavar="SECONDS", help="For so long, then, until all is told.")
    ] = 30,
    over_the_limit: Annotated[
        bool, typer.Option("--over-the-limit", help="Also beyond the tenant's rate limit, which real callbacks share.")
    ] = False,
    with_secret: Annotated[
        bool, typer.Option("--secret", help="Ask for the channel's secret that signs samples, or read it.")
    ] = False,
    signing_key: Annotated[
        Path | None,
        typer.Option("--signing-key", metavar="FILE", help="Sign by the private key in this PEM file (SendGrid)."),
    ] = None,
    yes: Yes = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Measure how long it takes from a callback to its answer, and until its event is told by the stream of events:
    signed samples at a rate, each counted from the time at which it was due. They are stored as real ones are. What is
    measured is from here, with all that lies between. It ends with 7 where not all was taken and told.

    Example: backhaul bench Twilio --rate 50 --seconds 30
    """
    from backhaul_cli import sampling
    from backhaul_cli.benching import Plan

    output = Output(as_json=json)
    askable("Measure it?", yes=yes)
    found = profiles.chosen(profile, os.environ)
    with connecting.tenant(profile) as backhaul:
        holder = backhaul.whoami()
        if not found.ingest_token and "ingest" not in holder.scopes:
            raise FailedError(
                f"The key in {found.source} brings no callbacks: it has no scope ingest.",
                "Use a profile whose key has it, or that has an ingest token.",
                code=Code.CREDENTIAL,
            )
        to = backhaul.channel(channel)
        one = _provider(to, event)
        at = sampling.address(found, to)
        secret = sampling.signing(one, signs_with(one, to, with_secret, signing_key), found)

        def post() -> Any:
            return one.post(one.sample(event), at.signed, secret)

        looked_at = sampling.looked_at(backhaul, to, post(), at)
        sampling.check(looked_at, one, to)
        if not any(part.event for part in looked_at.parts):
            raise FailedError(f"A sample {event} becomes no event of {to.label}.", "backhaul send --preview says why.")
    # None where an older gateway does not say.
    limit = holder.limits.requests_per_second if holder.limits else None
    if limit is not None and rate > limit and not over_the_limit:
        raise FailedError(
            f"The tenant's limit is {limit:g} callbacks a second.",
            f"Say a --rate of {max(int(limit), 1)} at most, or --over-the-limit, if real callbacks may be held, too.",
            code=Code.REFUSED,
        )
    plan = Plan(
        rate=rate,
        seconds=seconds,
        channel=to.label,
        at=at,
        post=post,
        wait_s=wait,
        over_the_limit=over_the_limit,
    )
    said = (
        f"{plan.count} signed samples ({one.label} {event}) are posted to the channel {to.label} at {found.url}, "
        f"{rate} a second for {seconds} s. They are stored as real callbacks are, told to subscriptions, and count in "
        "statistics, in the channel's health and in the tenant's limits."
    )
    output.note(said)
    if to.processing == "held":
        output.note("Its processing is held: nothing is told while it is.")
    if limit is None and not over_the_limit:
        output.note("This gateway does not tell the tenant's limit: it ends where one is held or refused for that.")
    confirmed("Measure it?", yes=yes)
    _ended(_measured(plan, profile, output), plan, {"provider": one.name, "event": event}, output)


def _provider(channel: Channel, event: str) -> Provider:
    from backhaul_samples import named

    one = named(channel.provider)
    if one is None:
        raise FailedError(f"There is no sample of {channel.provider!r}.", "backhaul send --list has all.")
    if event not in one.events:
        raise FailedError(f"{one.label} has no sample {event!r}.", f"It has {', '.join(one.events)}: say --event.")
    return one


def _measured(plan: Plan, profile: str, output: Output) -> tuple[Measured, BaseException | None]:
    """What was measured, and what ended it before its end."""
    import asyncio

    from backhaul_cli.benching import Bench

    bench = Bench(plan, connecting.at_once(profile), output.progress)
    try:
        asyncio.run(bench.run())
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001  # raised when it is said what was measured until then
        output.progress("")
        return bench.measured, exc
    return bench.measured, None


def _ended(
    measured_and_end: tuple[Measured, BaseException | None], plan: Plan, of: dict[str, str], output: Output
) -> None:
    """Says what was measured, and ends as that is."""
    from backhaul_cli.measured import percentiles

    measured, ended = measured_and_end
    if ended is not None and not measured.came_due:
        raise ended
    answers = dict(sorted(measured.answers.items()))
    # What comes when all is sent ends nothing.
    ended_by = measured.ended_by if measured.sent < plan.count else ""
    times = {
        "answered": (measured.answered_ms, measured.unanswered_ms),
        "told": (measured.told_ms, measured.untold_ms),
    }
    document = {
        "channel": plan.channel,
        **of,
        "rate": plan.rate,
        "seconds": plan.seconds,
        "sent": measured.sent,
        "never_sent": measured.never_sent,
        "held": measured.held,
        "answers": answers,
        "answered_ms": percentiles(*times["answered"]),
        "told_ms": percentiles(*times["told"]),
        "told": len(measured.told_ms),
        "never_told": len(measured.due),
        "missed": measured.missed,
        "late_ms": round(measured.late_ms, 1),
        "elapsed_s": round(measured.elapsed_s, 3),
        "ended_by": ended_by or None,
        "whole": ended is None and measured.sent == plan.count,
        "measured": FROM_HERE,
    }
    # What never came took so long at least.
    rows = [
        (name, len(came), percentiles(came, never), percentiles([*came, *never]))
        for name, (came, never) in times.items()
    ]
    output.thing(
        document,
        lambda: [
            facts(
                ("channel", plan.channel),
                ("sent", f"{measured.sent} of {plan.count}, {plan.rate} a second"),
                ("never sent", measured.never_sent or None),
                ("answers", answers),
                ("held", measured.held),
                ("never told", len(measured.due)),
                ("late here", f"up to {measured.late_ms:.1f} ms"),
            ),
            *section(
                rows,
                [
                    Column("ms until", lambda row: row[0]),
                    Column("number", lambda row: row[1], right=True),
                    *(
                        Column(part, lambda row, part=part: _ms(row[2][part], row[3][part]), right=True)  # type: ignore[misc]  # as row
                        for part in ("p50", "p90", "p99", "max")
                    ),
                ],
            ),
            words(""),
            words(FROM_HERE),
        ],
    )
    if isinstance(ended, KeyboardInterrupt):
        raise typer.Exit(Code.INTERRUPTED)
    if ended is not None:
        raise ended
    if measured.missed:
        output.note(f"The stream left events out, which count as never told: {measured.missed[-1]}")
    if ended_by:
        output.note(_WHY.get(ended_by, f"It ended where {ended_by} was answered."))
    taken = sum(count for status, count in answers.items() if status.startswith("2"))
    if taken < plan.count or measured.due:
        raise typer.Exit(Code.NO)


def _ms(found: float | None, at_least: float | None) -> str:
    """With its unit where it is a bound, which is no figure to go on with."""
    if found is not None:
        return f"{found:.1f}"
    return "" if at_least is None else f"> {at_least:.1f} ms"
