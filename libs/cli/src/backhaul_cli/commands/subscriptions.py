"""``backhaul subscriptions``: what the tenant's own application is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code
from backhaul_cli.options import LIMIT, All, AsJson, Limit, ProfileName, bound, page
from backhaul_cli.output import Column, Output, facts, words

if TYPE_CHECKING:
    from backhaul_client.notificationmodels import Subscription

app = typer.Typer(no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The subscription's id.")]


@app.command("list")
def list_(limit: Limit = LIMIT, every: All = False, profile: ProfileName = "", json: AsJson = False) -> None:
    """List subscriptions, oldest first."""
    with connecting.tenant(profile) as backhaul:
        Output(as_json=json).rows(
            backhaul.subscriptions.list(page_size=page(limit, every)),
            [
                Column("subscription", lambda one: one.id, folds=True),
                Column("name", lambda one: one.name, folds=True),
                Column("types", lambda one: one.types, folds=True),
                Column("state", lambda one: one.state),
                Column("waiting", lambda one: one.standing.waiting, right=True),
                Column("where", _where, folds=True),
            ],
            of="subscriptions",
            limit=bound(limit, every),
        )


@app.command()
def show(subscription: Id, profile: ProfileName = "", json: AsJson = False) -> None:
    """Show one subscription, and how it goes."""
    with connecting.tenant(profile) as backhaul:
        _say(backhaul.subscriptions.get(subscription), json)


@app.command()
def pause(subscription: Id, profile: ProfileName = "", json: AsJson = False) -> None:
    """Send nothing more; what happens meanwhile waits."""
    with connecting.tenant(profile) as backhaul:
        _say(backhaul.subscriptions.pause(subscription), json)


@app.command()
def resume(
    subscription: Id,
    rate: Annotated[
        int, typer.Option("--rate", min=0, metavar="N", help="Send what waits at so many calls a second.")
    ] = 0,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Send what waits, and go on; also where Backhaul paused or disabled it."""
    with connecting.tenant(profile) as backhaul:
        _say(backhaul.subscriptions.resume(subscription, rate_per_s=rate), json)


@app.command("test")
def send_sample(
    subscription: Id,
    type_: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="A sample of this type, such as message.failed.")
    ] = "",
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Send a sample now, once, and say what was answered. It ends with 7 where that was no success.

    Example: backhaul subscriptions test 0f3c --type message.failed
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.subscriptions.test(subscription, type=type_)
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("answered", found.status or None),
                ("error", found.error),
                ("", found.text),
                ("took", f"{found.duration_ms:.0f} ms"),
                ("called", found.request),
            ),
            *(words(line) for line in found.answer_text.splitlines()),
        ],
    )
    if found.error or not 200 <= found.status < 300:
        raise typer.Exit(Code.NO)


def _where(found: Subscription) -> object:
    return found.http.url if found.http else found.mail and found.mail.addresses


def _say(found: Subscription, json: bool) -> None:
    standing = found.standing
    Output(as_json=json).thing(
        found,
        lambda: [
            facts(
                ("subscription", found.id),
                ("name", found.name),
                ("types", found.types),
                ("where", _where(found)),
                ("state", found.state),
                ("", found.state_text),
                ("ordering", found.ordering),
                ("policy", found.policy.kind),
                ("waiting", standing.waiting),
                ("held", standing.held or None),
                ("failing since", standing.failing_since),
                ("last failure", standing.last_failure),
                ("last success", standing.last_success_at),
                ("rests until", standing.resting_until),
                ("since", found.created_at),
            )
        ],
    )
