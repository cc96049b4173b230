"""What Acme reads by the command line: the commands that somebody would type, and what they print."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from backhaul_local.demo_asking import Account
from backhaul_local.demo_figures import NOTHING, Check
from backhaul_local.demo_script import COMMUNICATION, FULFILMENT, MESSAGES

_COMMANDS = (
    ("messages", "--communication", COMMUNICATION),
    ("communications", "show", COMMUNICATION),
    ("dead-letters", "list"),
)
_LETTER = re.compile(r"^\S+ +twilio +1 .*MessageSid is missing", re.MULTILINE)


@dataclass(frozen=True)
class Said:
    """A command, and what it printed."""

    command: str
    out: str


NOTHING_SAID = (Said("", ""), Said("", ""), Said("", ""))
"""Before anything was asked."""


async def read_by_line(base_url: str, acme: Account) -> tuple[Said, Said, Said]:
    """Acme's messages, the counts of their communication, and the dead letters."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BACKHAUL_")}
    # No web proxy is a way to this machine.
    env = {**kept, "NO_PROXY": "*", "BACKHAUL_URL": base_url, "BACKHAUL_API_KEY": acme.tenant.api_key}

    async def said(arguments: Sequence[str]) -> Said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "backhaul_cli", *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=env
        )
        try:
            out, err = await process.communicate()
        except BaseException:
            process.kill()
            raise
        lines = (out + err).decode().splitlines()
        return Said(" ".join(("backhaul", *arguments)), "\n".join(line.rstrip() for line in lines))

    messages, counts, letters = await asyncio.gather(*map(said, _COMMANDS))
    return messages, counts, letters


def checks_of(seen: tuple[Said, Said, Said]) -> list[Check]:
    """The command line says what the API says."""
    messages, counts, letters = seen
    known = {due.id for due in MESSAGES}
    listed = [line.split()[0] for line in messages.out.splitlines() if line.split()[:1]]
    stand = Counter({state: int(found[1]) for state in FULFILMENT if (found := _row(state, counts.out))})
    return [
        Check("by the command line: messages", str(len(known)), str(len(known & set(listed)))),
        Check("… where they stand", _counted(FULFILMENT), _counted(stand)),
        Check("… dead letters", "1", str(len(_LETTER.findall(letters.out)))),
    ]


def _row(state: str, out: str) -> re.Match[str] | None:
    return re.search(rf"^{state} +(\d+)$", out, re.MULTILINE)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{state} {count}" for state, count in sorted(counts.items())) or NOTHING
