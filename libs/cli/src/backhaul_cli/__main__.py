"""``backhaul``: whatever happens, one line says so, and the exit code what kind of thing it was."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import suppress

from typer.exceptions import Abort, TyperException

from backhaul_cli.app import app
from backhaul_cli.failing import Code, explained
from backhaul_cli.output import swallow


def main(arguments: Sequence[str] | None = None) -> int:
    """Carries a command out. The exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A text that the terminal's encoding lacks is shown otherwise, and is no error.
            stream.reconfigure(errors="backslashreplace")
    try:
        return _carried_out(arguments)
    except BrokenPipeError:
        swallow()
        return Code.DONE
    except (Abort, KeyboardInterrupt):
        return Code.INTERRUPTED
    except TyperException as exc:
        return _say(f"{exc.format_message()} (backhaul --help)", Code.USAGE)
    except Exception as exc:  # noqa: BLE001  # whatever it is, people get a line and no traceback
        return _say(*explained(exc))


def _carried_out(arguments: Sequence[str] | None) -> int:
    try:
        ended = app(args=arguments, prog_name="backhaul", standalone_mode=False)
    except SystemExit as exc:
        # So ends help of which nobody reads the rest.
        if isinstance(exc.__context__, BrokenPipeError):
            raise exc.__context__ from None
        return exc.code if isinstance(exc.code, int) else Code.FAILED
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        swallow()
    return ended if isinstance(ended, int) else Code.DONE


def _say(text: str, code: Code) -> Code:
    with suppress(BrokenPipeError):
        print(f"backhaul: {text}", file=sys.stderr)  # noqa: T201  # a command-line program
    return code


if __name__ == "__main__":
    sys.exit(main())
