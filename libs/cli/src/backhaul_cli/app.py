"""All commands, by the names that they are called by."""

from __future__ import annotations

import typer

from backhaul_cli.commands import (
    audits,
    batches,
    bench,
    channels,
    communications,
    configuration,
    deadletters,
    deliveries,
    init,
    keys,
    listen,
    messages,
    migrating,
    profile,
    reconcile,
    replay,
    send,
    signature,
    standing,
    subscriptions,
    suppressionlists,
    suppressions,
    tenants,
    up,
)
from backhaul_cli.failing import MEANINGS

app = typer.Typer(
    name="backhaul",
    help="What became of messages, who may be contacted, and who is told: Backhaul from the command line.",
    epilog="Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + ".",
    no_args_is_help=True,
    # Plain help: rich's takes longer to load than the help takes to read.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command("up")(up.up)
app.command("init")(init.init)
app.add_typer(profile.app, name="profile", help="Where Backhaul is, and what opens it.")
app.command("message")(messages.message)
app.command("messages")(messages.messages)
app.command("events")(messages.events)
app.command("tail")(messages.tail)
app.command("listen")(listen.listen)
app.command("stats")(messages.stats)
app.command("send")(send.send)
app.command("bench")(bench.bench)
communications.app.command("batches")(batches.batches)
communications.app.command("batch")(batches.batch)
communications.app.command("add-batch")(batches.add_batch)
communications.app.command("close-batch")(batches.close_batch)
app.add_typer(communications.app, name="communications", help="What was sent, and what became of it.")
app.add_typer(deadletters.app, name="dead-letters", help="What could not be read.")
suppressions.app.command("export")(suppressionlists.export)
suppressions.app.command("import")(suppressionlists.import_)
suppressions.app.command("watch")(suppressionlists.watch)
app.add_typer(suppressions.app, name="suppressions", help="Who must not be contacted, and why.")
app.add_typer(channels.app, name="channels", help="Where providers' callbacks come in.")
app.add_typer(tenants.app, name="tenants", help="The platform team's: who uses this installation.")
app.add_typer(keys.app, name="keys", help="API keys and ingest tokens.")
app.command("status")(standing.status)
app.command("overview")(standing.overview)
app.add_typer(audits.app, name="audits", help="Files of events, and whether they are still what was signed.")
app.add_typer(subscriptions.app, name="subscriptions", help="What your own application is told.")
app.add_typer(deliveries.app, name="deliveries", help="What it was told, and what became of it.")
app.add_typer(signature.app, name="signature", help="Whether a call is Backhaul's, and one signed as it would.")
app.add_typer(replay.app, name="replay", help="A channel's callbacks of a span, read once more.")
app.add_typer(reconcile.app, name="reconcile", help="What providers know and their callbacks did not tell.")
app.command("export")(configuration.export)
app.command("diff")(configuration.diff)
app.command("apply")(configuration.apply)
app.command("import-rpi")(migrating.import_rpi)
