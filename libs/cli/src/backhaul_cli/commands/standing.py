"""How it stands: one channel part by part, or everything at a glance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code
from backhaul_cli.options import LIMIT, AsJson, ProfileName
from backhaul_cli.output import Column, Output, facts, section

if TYPE_CHECKING:
    from backhaul_client import AdminClient
    from backhaul_client.overviewmodels import Overview, Problem, TenantOverview
    from backhaul_client.statusmodels import Parts
    from rich.console import RenderableType


def status(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="The channel's label, such as Twilio.")],
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show whether a channel works, part by part. It ends with 7 where a part is in error.

    Example: backhaul status Twilio
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.channel_status(label)
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(("channel", found.channel), ("provider", found.provider), ("state", found.state)),
            *section(
                list(_parts(found.parts)),
                [
                    Column("part", lambda one: one[0].replace("_", " ")),
                    Column("state", lambda one: one[1]),
                    Column("detail", lambda one: one[2], folds=True),
                ],
            ),
            *_problems(found.problems),
            *([facts(("not answering", found.away))] if found.away else []),
        ],
    )
    if found.state != "OK":
        raise typer.Exit(Code.NO)


def _parts(parts: Parts) -> Iterator[tuple[str, str, str]]:
    """Each part by its name, its state where it has one, and whatever else it tells, in words."""
    import msgspec

    from backhaul_cli.texts import shown

    for field in msgspec.structs.fields(parts):
        part = getattr(parts, field.name)
        if part is not None:
            told = {
                name: value
                for name in part.__struct_fields__
                if name != "state" and (value := getattr(part, name)) not in (None, (), "")
            }
            detail = told.pop("detail", "")
            said = ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in told.items())
            yield field.name, getattr(part, "state", ""), "; ".join(filter(None, (detail, said)))


def overview(
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="N", help=f"So many tenants at most; else {LIMIT}.")
    ] = None,
    every_tenant: Annotated[
        bool, typer.Option("--tenants", help="All tenants, the worst first, with the platform team's admin token.")
    ] = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show everything at a glance, the worst first. It ends with 7 where something is in error.

    Example: backhaul overview || echo "Something needs somebody."
    """
    output = Output(as_json=json)
    if every_tenant or connecting.is_platform(profile):
        with connecting.platform(profile) as platform:
            everybody = _up_to(limit or LIMIT, platform)
        output.thing(everybody, lambda: _installation(everybody))
        if everybody.next_cursor:
            output.note("There are more tenants: --limit N.")
        bad = bool(everybody.with_errors) or any(one.severity == "error" for one in everybody.installation.problems)
    else:
        if limit is not None:
            raise typer.BadParameter("--limit is of tenants, so it goes with --tenants.")
        with connecting.tenant(profile) as backhaul:
            own = backhaul.overview()
        output.thing(own, lambda: _tenant(own))
        bad = any(problem.severity == "error" for problem in own.problems)
    if bad:
        raise typer.Exit(Code.NO)


def _up_to(limit: int, platform: AdminClient) -> Overview:
    """So many tenants, in one overview, whatever a page holds."""
    from msgspec.structs import replace

    found = platform.overview(page_size=min(limit, 100))
    while found.next_cursor and (left := limit - len(found.worst_first)) > 0:
        page = platform.overview(page_size=min(left, 100), cursor=found.next_cursor)
        found = replace(found, worst_first=found.worst_first + page.worst_first, next_cursor=page.next_cursor)
    return found


def _tenant(own: TenantOverview) -> Iterator[RenderableType]:
    letters, told = own.dead_letters, own.deliveries
    yield facts(
        ("tenant", own.tenant),
        ("name", own.name),
        ("status", own.status),
        (
            "open dead letters",
            f"{letters.open}{' or more' if letters.more else ''}" if letters.open is not None else None,
        ),
        ("deliveries waiting", told.waiting),
        ("deliveries failed", told.failed),
        ("subscriptions failing", told.failing),
        ("callbacks held", own.held or None),
        ("callbacks spooled", own.spooled or None),
        ("not answering", own.away),
    )
    yield from section(
        own.channels,
        [
            Column("channel", lambda one: one.label, folds=True),
            Column("provider", lambda one: one.provider),
            Column("state", lambda one: one.state),
            Column("processing", lambda one: one.processing),
            Column("verification", lambda one: one.verification),
            Column("refused", lambda one: one.refused, right=True),
        ],
    )
    yield from _problems(own.problems)


def _installation(everybody: Overview) -> Iterator[RenderableType]:
    shared = everybody.installation
    yield facts(
        ("tenants", everybody.tenants),
        ("with errors", everybody.with_errors),
        ("with warnings", everybody.with_warnings),
        ("not asked yet", (everybody.tenants - everybody.asked) or None),
        ("callbacks waiting", shared.callbacks_waiting),
    )
    yield from section(
        shared.services,
        [
            Column("service", lambda one: one.name),
            Column("state", lambda one: one.state),
            Column("", lambda one: one.text, folds=True),
        ],
    )
    yield from _problems(shared.problems)
    yield from section(
        everybody.worst_first,
        [
            Column("tenant", lambda one: one.tenant, folds=True),
            Column("status", lambda one: one.status),
            Column("problems", lambda one: len(one.problems), right=True),
            Column("the worst", lambda one: one.problems[0].text if one.problems else "", folds=True),
        ],
    )


def _problems(problems: tuple[Problem, ...]) -> Iterator[RenderableType]:
    yield from section(
        problems,
        [
            Column("severity", lambda one: one.severity),
            Column("channel", lambda one: one.channel),
            Column("what is wrong", lambda one: one.text, folds=True),
            Column("look", lambda one: one.look, folds=True),
        ],
    )
