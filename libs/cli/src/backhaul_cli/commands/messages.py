"""What became of messages: one of them, lists, events as they come, and counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backhaul_cli import connecting
from backhaul_cli.failing import Code, FailedError
from backhaul_cli.options import (
    LIMIT,
    All,
    AsJson,
    Channel,
    ErrorCode,
    From,
    Limit,
    OfCommunication,
    ProfileName,
    Recipient,
    To,
    bound,
    moment,
    page,
)
from backhaul_cli.output import Column, Output, encoded
from backhaul_cli.texts import age, command, exact

if TYPE_CHECKING:
    from backhaul_client import TenantClient
    from backhaul_client.models import Event, StatsRow

View = Literal["compact", "timeline", "raw"]
GROUPINGS: tuple[Literal["channel", "kind", "fulfilment_state", "communication"], ...] = (
    "channel",
    "kind",
    "fulfilment_state",
    "communication",
)
Kind = Annotated[str, typer.Option("--kind", metavar="KIND", help="Of this kind alone, such as delivered.")]


def message(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="The provider's id, or a reference to it.")],
    channel: Channel = "",
    view: Annotated[
        View | None,
        typer.Option(
            "--view", help="What happened by kind, as without it; each event and each call; or all that is known."
        ),
    ] = None,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Show what became of one message.

    Examples: backhaul message SM0001; backhaul message SM0001 --view timeline; backhaul message SM0001 --json
    """
    if json and view:
        raise typer.BadParameter("--json is the whole message, and has no view: leave --view out.")
    with connecting.tenant(profile) as backhaul:
        found = backhaul.message(channel or _channel_of(backhaul, message_id), message_id)
        if json:
            Output(as_json=True).thing(found, list)
            return
        from backhaul_cli import messageviews

        told = (
            ()
            if view in (None, "compact")
            else tuple(backhaul.deliveries.list(channel=found.channel, message_id=found.message_id, history=True))
        )
        Output(as_json=False).thing(found, lambda: messageviews.VIEWS[view or "compact"](found, told))


def _channel_of(backhaul: TenantClient, message_id: str) -> str:
    """The one channel that knows ``message_id``."""
    some = iter(backhaul.messages(message_id=message_id, page_size=10))
    channels = list(dict.fromkeys(found.channel for found, _ in zip(some, range(10), strict=False)))
    if not channels:
        raise FailedError(f"No message has the id or reference {message_id!r}.", code=Code.NOT_FOUND)
    if len(channels) > 1:
        raise FailedError(f"Messages of {', '.join(channels)} have it.", "Say which: --channel LABEL.")
    return channels[0]


def messages(
    channel: Channel = "",
    state: Annotated[
        str, typer.Option("--state", metavar="STATE", help="In this state alone, such as delivered.")
    ] = "",
    fulfilment_state: Annotated[
        str, typer.Option("--fulfilment", metavar="STATE", help="What counts for a sending, such as Failed.")
    ] = "",
    recipient: Recipient = "",
    communication: OfCommunication = "",
    error_code: ErrorCode = "",
    from_: Annotated[
        datetime | None,
        typer.Option(
            "--from", parser=moment, metavar="TIME", help="By its first callback, from then on: 2h, 3d, or ISO 8601."
        ),
    ] = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List messages, newest first.

    Example: backhaul messages --fulfilment Failed --from 1d
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.messages(
            channel=channel,
            state=state,
            fulfilment_state=fulfilment_state,
            recipient=recipient,
            communication=communication,
            error_code=error_code,
            from_=from_,
            to=to,
            page_size=page(limit, every),
        )
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            found,
            [
                Column("message", lambda one: one.message_id, folds=True),
                Column("channel", lambda one: one.channel),
                Column("state", lambda one: one.state),
                Column("recipient", lambda one: one.recipient, folds=True),
                Column("error", lambda one: one.error_code),
                Column("age", lambda one: age(one.last_event_at, now), right=True),
            ],
            of="messages",
            limit=bound(limit, every),
        )


def events(
    channel: Channel = "",
    kind: Kind = "",
    message_id: Annotated[str, typer.Option("--message", metavar="ID", help="Of this message; needs --channel.")] = "",
    recipient: Recipient = "",
    communication: OfCommunication = "",
    error_code: ErrorCode = "",
    from_: From = None,
    to: To = None,
    limit: Limit = LIMIT,
    every: All = False,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """List events, newest first.

    Example: backhaul events --kind failed --from 2h --json
    """
    with connecting.tenant(profile) as backhaul:
        found = backhaul.events(
            channel=channel,
            kind=kind,
            message_id=message_id,
            recipient=recipient,
            communication=communication,
            error_code=error_code,
            from_=from_,
            to=to,
            page_size=page(limit, every),
        )
        now = datetime.now(UTC)
        Output(as_json=json).rows(
            found,
            [
                Column("event", lambda one: one.kind),
                Column("channel", lambda one: one.channel),
                Column("message", lambda one: one.message_id, folds=True),
                Column("recipient", lambda one: one.recipient, folds=True),
                Column("error", lambda one: one.error_code),
                Column("age", lambda one: age(one.received_at, now), right=True),
            ],
            of="events",
            limit=bound(limit, every),
        )


def tail(
    channel: Channel = "",
    kind: Kind = "",
    recipient: Recipient = "",
    communication: OfCommunication = "",
    error_code: ErrorCode = "",
    after: Annotated[
        str, typer.Option("--after", metavar="ID", help="Go on behind this id of the stream; 0 is the oldest kept.")
    ] = "",
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Follow events as they are published, until Ctrl-C. Connections that end are made anew, for minutes where nobody
    answers. With --json each event has the stream_id that --after takes.

    Example: backhaul tail --kind failed
    """
    output = Output(as_json=json)
    last = after
    with connecting.tenant(profile, waiting=lambda: output.note(connecting.WAITING)) as backhaul:
        found = backhaul.follow_events(
            channel=channel,
            kind=kind,
            recipient=recipient,
            communication=communication,
            error_code=error_code,
            after=after,
        )
        output.note("Following; Ctrl-C ends it.")
        try:
            for told in found:
                last = told.id
                if told.missed:
                    output.note(told.missed)
                if told.event is not None:
                    _follow(output, told.event, told.id)
                if output.unread:
                    return
        except BaseException as exc:
            if last:
                again = command(
                    "tail",
                    channel=channel,
                    kind=kind,
                    recipient=recipient,
                    communication=communication,
                    error_code=error_code,
                    after=last,
                    profile=profile,
                )
                output.note(f"Go on from here: {again}")
            if isinstance(exc, KeyboardInterrupt):
                raise typer.Exit(Code.DONE) from None
            raise


def _follow(output: Output, event: Event, stream_id: str) -> None:
    if output.as_json:
        import msgspec

        output.thing({**msgspec.json.decode(encoded(event)), "stream_id": stream_id}, list)
        return
    when = exact(event.received_at)[11:19] if event.received_at else ""
    error = f"  {event.error_code} {event.error_text}".rstrip() if event.error_code or event.error_text else ""
    output.line(f"{when}  {event.kind:<12}  {event.channel:<10}  {event.message_id}  {event.recipient}{error}")


def stats(
    per: Annotated[
        Literal["hour", "day"], typer.Option("--per", help="Counted by the hour or the day, in UTC.")
    ] = "hour",
    by: Annotated[
        str, typer.Option("--by", metavar="NAMES", help=f"Counted by these as well: some of {', '.join(GROUPINGS)}.")
    ] = "",
    channel: Channel = "",
    communication: OfCommunication = "",
    from_: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            parser=moment,
            metavar="TIME",
            help="From the beginning of its hour on; with --per day, of its day in UTC.",
        ),
    ] = None,
    to: Annotated[
        datetime | None,
        typer.Option("--to", parser=moment, metavar="TIME", help="Until this time, to the end of its hour."),
    ] = None,
    profile: ProfileName = "",
    json: AsJson = False,
) -> None:
    """Count events and messages over time.

    Example: backhaul stats --per day --by channel,kind --from 7d
    """
    grouped = [word for word in GROUPINGS if word in by.split(",")]
    if unknown := set(filter(None, by.split(","))) - set(GROUPINGS):
        raise typer.BadParameter(f"--by knows no {', '.join(sorted(unknown))}: say some of {', '.join(GROUPINGS)}.")
    with connecting.tenant(profile) as backhaul:
        found = backhaul.stats(
            per=per,
            group_by=grouped,
            channel=channel,
            communication=communication,
            from_=from_ and _begun(from_, per),
            to=to and _over(to),
        )
    output = Output(as_json=json)
    names = [("communication_id" if name == "communication" else name) for name in grouped]
    columns: list[Column[StatsRow]] = [
        Column("from", lambda one: f"{one.start:%Y-%m-%d %H:%M}Z"),
        *(Column(name.replace("_", " "), attrgetter(name), folds=True) for name in names),
        Column("events", lambda one: one.events, right=True),
        Column("messages", lambda one: one.messages, right=True),
        Column("opened", lambda one: one.unique_opened, right=True),
        Column("clicked", lambda one: one.unique_clicked, right=True),
    ]
    output.rows(found.rows, columns, of="counts")
    if found.truncated:
        output.note("There are more: ask for a shorter span.")


def _begun(at: datetime, per: str) -> datetime:
    """When the hour or the day of ``at`` began: of the first day all is counted."""
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour.replace(hour=0) if per == "day" else hour


def _over(at: datetime) -> datetime:
    """When the hour of ``at`` is over: what was in it until then is counted, too."""
    return _begun(at - timedelta(microseconds=1), "hour") + timedelta(hours=1)
