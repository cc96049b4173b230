"""Where the program begins: Ctrl-C is no error, also while the rest of it is loaded."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def run() -> None:
    """The console script."""
    try:
        from backhaul_cli.__main__ import main  # It takes the first tenth of a second.

        code = main()
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)
