"""``backhaul listen``: events as calls to a program on this machine, as a subscription would make them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.commands.messages import Kind
from backhaul_cli.failing import Code
from backhaul_cli.options import AsJson, Channel, ErrorCode, OfCommunication, ProfileName, Recipient, secret
from backhaul_cli.output import Output
from backhaul_cli.texts import command

if TYPE_CHECKING:
    from backhaul_client.following import Followed

    from backhaul_cli.forwarding import Caller

Shown = Literal["interactive", "compact", "quiet"]


@dataclass
class Listening:
    """What is listened to, and how far it is. ``say`` is for what is not part of the answer."""

    output: Output
    say: Callable[[str], None]
    last: str
    events: Iterator[Followed] = field(init=False)
    caller: Caller = field(init=False)


def listen(
    url: Annotated[str, typer.Argument(metavar="URL", help="What to call, such as http://127.0.0.1:9000/backhaul.")],
    channel: Channel = "",
    kind: Kind = "",
    recipient: Recipient = "",
    communication: OfCommunication = "",
    error_code: ErrorCode = "",
    after: Annotated[
        str, typer.Option("--after", metavar="ID", help="Go on behind this id of the stream; 0 is the oldest kept.")
    ] = "",
    shown: Annotated[
        Shown | None,
        typer.Option("--output", help="A screen with keys, as at a terminal; a line for each call; or errors alone."),
    ] = None,
    with_secret: Annotated[
        bool, typer.Option("--secret", help="Ask for the secret that signs (whsec_…), or read it; else one is made.")
    ] = False,
    anywhere: Annotated[
        bool, typer.Option("--anywhere", help="Call an address that is of no private network, too.")
    ] = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Call a program on this machine with events as they are published, until Ctrl-C: signed, and with the body that a
    subscription sends as its payload full. Each is called once; r calls the chosen one again. Connections that end
    are made anew, as by tail. Notices, and types that are views of events (reply.received, message.delivery_problem),
    are in no stream of the API: a subscription alone is told them.

    Example: backhaul listen http://127.0.0.1:9000/backhaul --kind failed
    """
    from backhaul_cli import forwarding

    output = Output(as_json=json)
    how = shown or ("interactive" if _at_a_terminal() and not json else "compact")
    if how == "interactive" and (json or not _at_a_terminal()):
        raise typer.BadParameter("--output interactive needs a terminal, and goes without --json.")
    leads_to = forwarding.check_address(url, anywhere=anywhere)
    text = secret("Secret (whsec_…)") if with_secret else forwarding.new_secret()
    key = forwarding.key_of(text)
    if not with_secret:
        output.note(f"Calls are signed with the secret {text}")
    if not forwarding.listens(url, leads_to):
        output.note(f"Nothing listens at {url} yet: calls fail until something does.")
    listening = Listening(output, output.note, after)
    with (
        connecting.tenant(profile, waiting=lambda: listening.say(connecting.WAITING)) as backhaul,
        forwarding.Caller(url, key, anywhere=anywhere) as listening.caller,
    ):
        listening.events = backhaul.follow_events(
            channel=channel,
            kind=kind,
            recipient=recipient,
            communication=communication,
            error_code=error_code,
            after=after,
        )
        try:
            if how == "interactive":
                from backhaul_cli.listening import interactively

                interactively(listening, f"{url}  {text if not with_secret else ''}".rstrip())
            else:
                output.note("Listening; Ctrl-C ends it.")
                _one_by_one(listening, quiet=how == "quiet")
        except KeyboardInterrupt:
            raise typer.Exit(Code.DONE) from None
        finally:
            if listening.last:
                again = command(
                    "listen",
                    url,
                    channel=channel,
                    kind=kind,
                    recipient=recipient,
                    communication=communication,
                    error_code=error_code,
                    after=listening.last,
                    output=shown,
                    secret=with_secret,
                    anywhere=anywhere,
                    profile=profile,
                )
                output.note(f"Go on from here: {again}")


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _one_by_one(listening: Listening, *, quiet: bool) -> None:
    from backhaul_cli.forwarding import told
    from backhaul_cli.watching import Row, line

    output = listening.output
    for followed in listening.events:
        if followed.missed:
            output.note(followed.missed)
        if followed.event is None:
            listening.last = followed.id
            continue
        one = told(followed.event)
        answer = listening.caller.call(one)
        listening.last = followed.id
        if output.as_json:
            import msgspec

            output.thing(
                {
                    "stream_id": followed.id,
                    "webhook_id": one.webhook_id,
                    "status": answer.status or None,
                    "error": answer.error or None,
                    "duration_ms": round(answer.ms, 1),
                    "body": msgspec.json.decode(one.body),
                },
                list,
            )
        elif not (quiet and answer.taken):
            output.line(line(Row(one, 1, answer)) + (f"  {answer.error}" if answer.error else ""))
        if output.unread:
            return
