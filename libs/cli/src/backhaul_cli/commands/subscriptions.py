"""``backhaul subscriptions``: what the tenant's own application is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from backhaul_cli import connecting, subscribing
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.options import LIMIT, All, AsJson, Limit, ProfileName, Yes, bound, confirmed, page
from backhaul_cli.output import Column, Output, facts, words
from backhaul_cli.subscriptionviews import say, where

if TYPE_CHECKING:
    from backhaul_client import TenantClient
    from backhaul_client.notificationmodels import Subscription

app = typer.Typer(no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The subscription's id.")]


@app.command("list")
def list_(limit: Limit = LIMIT, every: All = False, profile: ProfileName = "", json: AsJson = False) -> None:
    """List subscriptions, oldest first.

    Example: backhaul subscriptions list --json
    """
    with connecting.tenant(profile) as backhaul:
        Output(as_json=json).rows(
            backhaul.subscriptions.list(page_size=page(limit, every)),
            [
                Column("subscription", lambda one: one.id, folds=True),
                Column("name", lambda one: one.name, folds=True),
                Column("types", lambda one: one.types, folds=True),
                Column("state", lambda one: one.state),
                Column("waiting", lambda one: one.standing.waiting, right=True),
                Column("where", where, folds=True),
            ],
            of="subscriptions",
            limit=bound(limit, every),
        )


@app.command()
def show(subscription: Id, profile: ProfileName = "", json: AsJson = False) -> None:
    """Show one subscription, and how it goes.

    Example: backhaul subscriptions show 0f3c --json > subscription.json
    """
    with connecting.tenant(profile) as backhaul:
        say(backhaul.subscriptions.get(subscription), json)


File = Annotated[
    str,
    typer.Option(
        "--file", metavar="FILE", help="All of it, as show --json writes it; - is standard input. Options go over it."
    ),
]
OwnSecret = Annotated[
    bool, typer.Option("--secret", help="Ask for the secret that signs (whsec_…), or read it; else one is made.")
]


@app.command()
@subscribing.with_flags
def add(
    file: File = "", with_secret: OwnSecret = False, profile: ProfileName = "", json: AsJson = False, **given: Any
) -> None:
    """Make a subscription. The secret that verifies its calls is shown this once. No option takes a secret: each is
    asked for, read, or in BACKHAUL_ENDPOINT_SECRET and BACKHAUL_SIGNING_SECRET.

    Example: backhaul subscriptions add --type 'message.*' --url https://example.com/told --basic backhaul
    """
    definition = subscribing.defined(subscribing.read(file) if file else {}, given, read_before=file == "-")
    definition.pop("revision", None)
    signs = (
        subscribing.secret_of("Secret (whsec_…)", subscribing.SIGNING_SECRET, read_before=file == "-")
        if with_secret
        else ""
    )
    with connecting.tenant(profile) as backhaul:
        made = backhaul.subscriptions.create(**definition, secret=signs)
    say(made, json)


@app.command()
@subscribing.with_flags
def change(subscription: Id, file: File = "", profile: ProfileName = "", json: AsJson = False, **given: Any) -> None:
    """Change what is said of a subscription: what is left out stays, and so do credentials while scheme, host and port
    do. A list takes the place of the one before; an empty text takes away. With --file all of it is replaced, unless
    somebody has changed it since its revision. What waits is told by the new definition.

    Example: backhaul subscriptions change 0f3c --rate 20 --channel Twilio
    """
    if not file and all(value is None for value in given.values()):
        raise FailedError("There is nothing to change.", "Say an option, such as --rate 20, or --file.")
    with connecting.tenant(profile) as backhaul:
        document = subscribing.read(file) if file else {}
        there = _there(backhaul, subscription)
        base = document if file else {name: there[name] for name in (*subscribing.FIELDS, "revision")}
        definition = subscribing.defined(base, given, read_before=file == "-")
        changed = backhaul.subscriptions.replace(subscription, **definition)
    say(changed, json)


def _there(backhaul: TenantClient, subscription: str) -> dict[str, Any]:
    """What is to be replaced. FailedError where it has a setting that is not known here, which would go with it."""
    import msgspec
    from backhaul_client.models import decoded
    from backhaul_client.notificationmodels import Subscription

    there = backhaul.subscriptions.document(subscription)
    known = msgspec.to_builtins(decoded(msgspec.json.encode(there), Subscription))
    if unknown := subscribing.unknown(there, known):
        raise FailedError(
            f"This command line is older than that Backhaul: it does not know {unknown}, and would take it away.",
            "Update the command line.",
            code=Code.REFUSED,
        )
    return there


@app.command()
def remove(subscription: Id, yes: Yes = False, profile: ProfileName = "", json: AsJson = False) -> None:
    """Delete a subscription, with what waits for it and its history. It cannot be taken back.

    Example: backhaul subscriptions remove 0f3c --yes
    """
    with connecting.tenant(profile) as backhaul:
        found = _asked(
            backhaul, subscription, "Delete {name}? {waiting} are never sent, and its history goes.", yes=yes
        )
        backhaul.subscriptions.delete(subscription)
    standing = found.standing
    Output(as_json=json).thing(
        {"id": found.id, "name": found.name, "waiting": standing.waiting, "held": standing.held},
        lambda: [words(f"{_called(found)} is deleted, with {_waiting(found)}.")],
    )


@app.command()
def pause(subscription: Id, yes: Yes = False, profile: ProfileName = "", json: AsJson = False) -> None:
    """Send nothing more; what happens meanwhile waits.

    Example: backhaul subscriptions pause 0f3c --yes
    """
    with connecting.tenant(profile) as backhaul:
        _asked(backhaul, subscription, "Pause {name}? Nothing more is sent: {waiting} stay, and what comes.", yes=yes)
        say(backhaul.subscriptions.pause(subscription), json)


@app.command()
def resume(
    subscription: Id,
    rate: Annotated[
        int, typer.Option("--rate", min=0, metavar="N", help="Send what waits at so many calls a second.")
    ] = 0,
    yes: Yes = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Send what waits, and go on; also where Backhaul paused or disabled it.

    Example: backhaul subscriptions resume 0f3c --rate 50
    """
    at = f"at {rate} a second" if rate else "as fast as it takes them"
    with connecting.tenant(profile) as backhaul:
        _asked(backhaul, subscription, f"Resume {{name}}? {{waiting}} are sent, {at}.", yes=yes)
        say(backhaul.subscriptions.resume(subscription, rate_per_s=rate), json)


@app.command("rotate-secret")
def rotate_secret(
    subscription: Id,
    kind: Annotated[
        Literal["hmac", "ed25519"], typer.Option("--kind", help="A secret of both sides, or a pair of keys.")
    ] = "hmac",
    grace: Annotated[
        int | None, typer.Option("--grace", min=0, metavar="SECONDS", help="The one before is good for so long.")
    ] = None,
    with_secret: OwnSecret = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Sign with a new secret, which is shown this once; with the one before, too, until its grace is over: a day.

    Example: backhaul subscriptions rotate-secret 0f3c --grace 3600
    """
    signs = (
        subscribing.secret_of("Secret (whsec_…)", subscribing.SIGNING_SECRET, read_before=False) if with_secret else ""
    )
    with connecting.tenant(profile) as backhaul:
        say(backhaul.subscriptions.rotate_secret(subscription, kind=kind, grace_s=grace, secret=signs), json)


def _asked(backhaul: TenantClient, subscription: str, question: str, *, yes: bool) -> Subscription:
    """The subscription that is to be changed, where somebody has said yes to that."""
    found = backhaul.subscriptions.get(subscription)
    asks = question.format(name=_called(found), waiting=_waiting(found))
    if yes:
        Output(as_json=True).note(asks.partition("? ")[2])
    else:
        confirmed(asks, yes=False)
    return found


def _called(found: Subscription) -> str:
    return f"{found.id} ({found.name})" if found.name else found.id


def _waiting(found: Subscription) -> str:
    waiting, held = found.standing.waiting, found.standing.held
    said = f"{waiting} waiting {'delivery' if waiting == 1 else 'deliveries'}"
    return f"{said} and {held} held" if held else said


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
