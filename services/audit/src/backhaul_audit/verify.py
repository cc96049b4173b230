"""``python -m backhaul_audit.verify``: whether downloaded copies are what was signed, without the installation.

Ends with 0 where all is valid, 1 where anything is not, and 2 where it could not be checked.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backhaul_digests import words
from backhaul_digests.chain import Span, verify
from backhaul_digests.copies import Copies, KeyFile
from backhaul_digests.findings import Tally
from backhaul_digests.line import PREFIX

VALID, INVALID, NOT_CHECKED = 0, 1, 2
"""How it ends."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what ``arguments`` name (the process's where None), and print what is found."""
    asked = _parser().parse_args(arguments)
    try:
        keys = KeyFile.read(asked.keys)
    except (OSError, ValueError) as exc:
        print(exc, file=sys.stderr)
        return NOT_CHECKED
    # Who has kept a head is told by it that all digests were taken away.
    if not asked.head and not (asked.offline / PREFIX).is_dir():
        print(f"{asked.offline} has no folder {PREFIX.rstrip('/')}: name the one that has it.", file=sys.stderr)
        return NOT_CHECKED
    return asyncio.run(_check(asked, Copies(asked.offline, dict(asked.bucket_root)), keys))


async def _check(asked: argparse.Namespace, copies: Copies, keys: KeyFile) -> int:
    span, tally = Span(asked.since, asked.until), Tally()
    chains = copies.chains(asked.tenant)
    async for finding in verify(copies, keys, chains, span, asked.head, tally):
        if asked.json:
            print(words.to_json(finding))
        elif asked.verbose or not finding.valid:
            print(words.line(finding))
    print(words.summary_json(tally) if asked.json else "\n".join(words.summary(tally, span)))
    if tally.invalid:
        return INVALID
    return VALID if tally.digests else NOT_CHECKED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backhaul_audit.verify",
        description="Checks copies of audit files and digests: that nothing was changed, moved or taken away.",
        epilog="Ends with 0 where all is valid, 1 where anything is not, 2 where nothing could be checked.",
    )
    parser.add_argument(
        "--offline", type=Path, required=True, metavar="DIR", help="a folder with the bucket's objects under their keys"
    )
    parser.add_argument(
        "--bucket-root",
        type=_bucket_root,
        action="append",
        default=[],
        metavar="BUCKET=DIR",
        help="where the copies of a channel's own bucket are, if not under DIR; may be given again",
    )
    parser.add_argument(
        "--keys", type=Path, required=True, metavar="FILE", help="what /.well-known/backhaul-audit-keys answered"
    )
    parser.add_argument(
        "--head",
        type=_head,
        action="append",
        default=[],
        metavar="HASH",
        help="the hash of a digest that you have kept: it must be there; may be given again",
    )
    parser.add_argument("--from", dest="since", type=_time_us, default=0, metavar="TIME", help="ISO 8601, UTC")
    parser.add_argument("--to", dest="until", type=_time_us, default=0, metavar="TIME", help="ISO 8601, UTC")
    parser.add_argument("--tenant", default="", metavar="ID", help="only this tenant's, by its id or registration")
    parser.add_argument("--verbose", action="store_true", help="name what is valid, too")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each item, then the summary")
    return parser


def _bucket_root(text: str) -> tuple[str, Path]:
    bucket, equals, folder = text.partition("=")
    if not (bucket and equals and folder):
        raise argparse.ArgumentTypeError("must be BUCKET=DIR")
    return bucket, Path(folder)


def _head(text: str) -> str:
    if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
        raise argparse.ArgumentTypeError(f"a head is 64 hex digits: {text!r} is not the whole of one")
    return text.lower()


def _time_us(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give one as 2026-01-15T09:00:00Z") from None
    return (at.replace(tzinfo=at.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


if __name__ == "__main__":
    sys.exit(main())
