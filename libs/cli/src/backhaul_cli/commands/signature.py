"""``backhaul signature``: signs a body as Backhaul signs its calls, and says what is wrong with a signature."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from backhaul_cli.failing import Code
from backhaul_cli.options import AsJson, moment, secret
from backhaul_cli.output import Output, facts, words
from backhaul_cli.signatures import HEADERS, ID, SIGNATURE, TIMESTAMP, TOLERANCE_S, Key

app = typer.Typer(no_args_is_help=True)

Body = Annotated[str, typer.Argument(metavar="FILE", help="The body, byte by byte; without, standard input.")]
Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="FILE",
        help="The keys, one a line, or the answer that told them; without, one is asked for.",
    ),
]


@app.command()
def sign(
    file: Body = "-",
    call: Annotated[str, typer.Option("--id", metavar="ID", help="The call's id; else one that nobody has.")] = "",
    at: Annotated[
        datetime | None, typer.Option("--at", parser=moment, metavar="TIME", help="When it is signed; else now.")
    ] = None,
    keys: Keys = None,
    json: AsJson = False,
) -> None:
    """Sign a body by Standard Webhooks, as Backhaul does when it tells your application something: the headers, as curl
    takes them from a file.

    Example: backhaul signature sign body.json --keys subscription.json | curl -H @- --data-binary @body.json URL
    """
    from uuid import uuid4

    from backhaul_cli.signatures import signed_headers

    known, body = _keys(keys, file), _body(file)
    headers = signed_headers(call or uuid4().hex, int((at or datetime.now(UTC)).timestamp()), body, known)
    output = Output(as_json=json)
    if json:
        output.thing(headers, list)
        return
    for name, value in headers.items():
        output.line(f"{name}: {value}")


@app.command()
def verify(
    file: Body = "-",
    headers: Annotated[
        Path | None, typer.Option("--headers", metavar="FILE", help="The call's headers, one a line, or as JSON.")
    ] = None,
    call: Annotated[str, typer.Option("--id", metavar="ID", help=f"Its {ID}.")] = "",
    timestamp: Annotated[str, typer.Option("--timestamp", metavar="SECONDS", help=f"Its {TIMESTAMP}.")] = "",
    signature: Annotated[str, typer.Option("--signature", metavar="TEXT", help=f"Its {SIGNATURE}.")] = "",
    at: Annotated[
        datetime | None, typer.Option("--at", parser=moment, metavar="TIME", help="When it came; else now.")
    ] = None,
    tolerance: Annotated[
        int, typer.Option("--tolerance", min=0, metavar="SECONDS", help="How old it may be, or ahead.")
    ] = TOLERANCE_S,
    keys: Keys = None,
    json: AsJson = False,
) -> None:
    """Say whether a call that your application got is Backhaul's. It ends with 7 where it is not, and says which part
    is wrong: the time, the key or the form.

    Example: backhaul signature verify body.json --headers headers.txt --keys subscription.json --at 2026-11-28T09:00Z
    """
    from backhaul_cli.signatures import headers_of, verdict

    told = headers_of(headers.read_text()) if headers is not None else {}
    told |= {name: text for name, text in zip(HEADERS, (call, timestamp, signature), strict=True) if text}
    known, body = _keys(keys, file), _body(file)
    found = verdict(told, body, known, int((at or datetime.now(UTC)).timestamp()), tolerance)
    Output(as_json=json).thing(
        found._asdict(),
        lambda: [
            words("valid" if found.valid else "invalid", "green" if found.valid else "red"),
            facts(("problem", found.problem), ("detail", found.detail), ("age", _seconds(found.age_s))),
        ],
    )
    if not found.valid:
        raise typer.Exit(Code.NO)


def _keys(file: Path | None, body: str) -> list[Key]:
    """Of a file, or of whoever is asked. They are no arguments, since everybody on the machine sees those."""
    from backhaul_cli.signatures import keys_of

    if file is not None:
        return keys_of(file.read_text())
    if body == "-" and not sys.stdin.isatty():
        raise typer.BadParameter("Standard input is the body: name a file with the keys by --keys.")
    return keys_of(secret("Key"))


def _body(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _seconds(age_s: int | None) -> str | None:
    return None if age_s is None else f"{age_s} s"
