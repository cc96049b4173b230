"""`python -m backhaul_local demo`: real servers, signed callbacks, and a check of every figure that comes of them.

With ``--compose deploy/compose`` not of a stack of its own, but of the containers that run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from backhaul_client import AsyncAdminClient, BackhaulError
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.receiver import Receiver

from backhaul_local.demo_asking import DemoError
from backhaul_local.demo_audit import ENV
from backhaul_local.demo_checks import Seen, check_all
from backhaul_local.demo_figures import Check
from backhaul_local.demo_installation import DEMO_HOST, Installation, of_compose, of_stack
from backhaul_local.demo_reconciliation import origins
from backhaul_local.demo_screen import Screen
from backhaul_local.demo_script import COMMUNICATION
from backhaul_local.demo_story import Story
from backhaul_local.errors import LocalStackError
from backhaul_local.member import START_TIMEOUT, start_timeout_s
from backhaul_local.process import describe_exit, tail
from backhaul_local.stack import Stack, StackConfig

AFTER_ITS_OWN = "Next: `make up` runs the same stack until Ctrl-C, and prints lines to paste."
AFTER_COMPOSE = "Next: start compose again without demo.yaml, whose settings are for a demo alone."
_INTERRUPTED = 130  # What shells report of a program that Ctrl-C ended.
_TAIL_LINES = 15
_MAX_LINE = 400  # A JSON line with a traceback takes pages; its beginning says where to look.


async def main(argv: Sequence[str] = ()) -> int:
    """0 when every figure is what it must be, 1 otherwise, 130 when it was interrupted.

    Nothing is left behind, except for the logs after a failure; in containers that ran before, all that was done.
    """
    parser = argparse.ArgumentParser(prog="python -m backhaul_local demo", description=__doc__)
    parser.add_argument(
        "--compose", type=Path, metavar="FOLDER", help="of a compose.yaml that runs, with its demo.yaml"
    )
    folder = parser.parse_args(argv).compose
    return await (_of_its_own() if folder is None else _elsewhere(folder))


async def _elsewhere(folder: Path) -> int:
    screen = Screen()
    api = TwilioApi()
    try:
        installation = of_compose(folder)
        api.listen_on(installation.api_port, installation.host)
        with _cancelled_by_signals(), api:
            async with Receiver(installation.host) as receiver:
                return await _tell(installation, api, receiver, screen, time.monotonic(), AFTER_COMPOSE)
    except asyncio.CancelledError:
        screen.say("\nInterrupted; what was done is left.")
        return _INTERRUPTED
    except (DemoError, BackhaulError, httpx.HTTPError) as error:
        screen.say(f"\n✗ {str(error) or repr(error)}", "bold red")
    except OSError as error:
        screen.say(f"\n✗ {error}. Is {DEMO_HOST} this machine's address as containers reach it?", "bold red")
    return 1


async def _of_its_own() -> int:
    screen = Screen()
    code = 1
    with tempfile.TemporaryDirectory(prefix="backhaul-demo-", ignore_cleanup_errors=True) as folder:
        logs = Path(tempfile.mkdtemp(prefix="backhaul-demo-logs-"))
        try:
            with _cancelled_by_signals() as settled:
                code = await _run(Path(folder), logs, screen, settled)
        except asyncio.CancelledError:
            code = _INTERRUPTED
            screen.say("\nInterrupted; nothing is left behind.")
        except LocalStackError as error:
            screen.say(f"\n{error}", "red")
            if error.late:
                screen.say(f"If the machine is only busy, let it take longer: {START_TIMEOUT}=300 make demo")
        finally:
            if code in (0, _INTERRUPTED):
                shutil.rmtree(logs)
            else:
                screen.say(f"\nThe logs are kept in {logs}", "bold")
    return code


async def _run(data: Path, logs: Path, screen: Screen, settled: Callable[[], None]) -> int:
    api = TwilioApi()
    env = {"audit": ENV, "reconciler": origins(api)}
    patience_s = start_timeout_s(os.environ)
    # The log's level is said here, because telling_lines depends on it.
    stack = Stack(StackConfig(data_dir=data, log_dir=logs, log_level="info", service_env=env, start_timeout=patience_s))
    try:
        with api:
            async with Receiver() as receiver:
                return await _start_and_tell(stack, api, receiver, screen)
    except (DemoError, BackhaulError, httpx.HTTPError) as error:
        screen.say(f"\n✗ {str(error) or repr(error)}", "bold red")
        _explain(stack, screen)
        return 1
    finally:
        settled()
        # The data is about to be removed, so there is nothing that an orderly end would save.
        await stack.kill_all()


async def _start_and_tell(stack: Stack, api: TwilioApi, receiver: Receiver, screen: Screen) -> int:
    began = time.monotonic()
    screen.say(
        "Backhaul's demo: providers' callbacks become message states, and applications are told, on real servers.",
        "bold",
    )
    screen.say(f"Starting {', '.join(member.name for member in stack.members)}, each a process, on free ports …", "dim")
    await stack.start()
    screen.say(f"Ready in {time.monotonic() - began:.1f} s. The gateway listens on {stack.gateway_url}", "dim")
    code = await _tell(of_stack(stack), api, receiver, screen, began)
    if code:
        _explain(stack, screen)
    return code


async def _tell(
    there: Installation,
    api: TwilioApi,
    receiver: Receiver,
    screen: Screen,
    began: float,
    after: str = AFTER_ITS_OWN,
) -> int:
    # No web proxy is a way to this machine.
    async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
        platform = AsyncAdminClient(there.url, there.admin_token, http=http)
        checks = await show(Story(there.url, http, platform, there.bucket, api, receiver), screen)
    return verdict(checks, screen, time.monotonic() - began, after)


async def show(story: Story, screen: Screen) -> list[Check]:
    """Take each step of the story and show it; what every figure is, and must be."""
    screen.section("Two tenants", "Each has its own key and its own secrets; a queue path belongs to one tenant only.")
    acme, globex = await story.set_up()
    screen.cast(acme, globex)

    delivered = await story.deliver(acme)
    screen.section(
        "Acme's text messages, over Twilio",
        "Each line was a signed callback. A state only moves forward: order and duplicates change nothing.",
    )
    screen.messages(delivered, "Twilio")
    screen.section(
        "Acme's e-mails, over SendGrid",
        "One signed batch with all of SendGrid's eleven event types became the timelines of four messages.",
    )
    screen.messages(delivered, "SendGrid")
    screen.section(
        f"The sending that they belong to: {COMMUNICATION}",
        "Joined by the parameter communicationId, from the callback's URL or the e-mail's custom arguments.",
    )
    messages, counts, letters = delivered.by_line
    screen.typed(messages, counts)
    screen.section(
        "What could not be read",
        "Authentic, but nobody's callback: answered 200, kept as a dead letter, to be replayed or discarded.",
    )
    screen.typed(letters)

    # Not shown yet: what is begun here goes on by itself meanwhile.
    opened = await story.open_channels(acme)
    subscribed = await story.subscribe(acme)

    others = await story.tell_of_other_channels(acme)
    screen.section(
        "Acme's other channels, one story for each provider",
        "Each is proven as far as its provider allows, and set up by settings alone where nobody wrote an adapter.",
    )
    screen.other_channels(others)

    asked = await story.ask_before_sending(acme, globex)
    screen.section(
        "May we contact this person?",
        "Asked before anything is sent. A STOP counts at once for whoever asks, and only the person takes it back.",
    )
    screen.consent(asked)

    refused = await story.try_to_cheat(acme, globex)
    screen.section(
        "What was refused, and why", "None of these left a trace in Acme's messages, and Globex sees none of them."
    )
    screen.refused(refused)

    audited = await story.read_the_files(acme, globex)
    screen.section(
        "Acme's mails as files, and proof that nobody has rewritten them",
        "SendGrid's own events, a line each, in Acme's folder of a bucket. Each file stands in a signed digest.",
    )
    screen.files(audited)

    erased = await story.erase_a_person(acme)
    screen.section(
        "People in files, and one who wants to be forgotten",
        "What is personal is encrypted under a key per person. The key is destroyed; signed files stay as they are.",
    )
    screen.people(erased)

    completed = await story.complete_a_batch(acme)
    screen.section(
        "A sending that Acme registers, with ten people, and what became of everybody",
        "Members, sends and callbacks came in a mixed order. A batch is complete once; what comes later corrects it.",
    )
    screen.batch(completed)

    told = await story.look_at_what_was_told(acme, subscribed)
    screen.section(
        "Acme's own application is told what happens",
        "Each call is signed, made again until it is answered 200, and kept with what came of it. Nothing is skipped.",
    )
    screen.told(subscribed, told)

    reconciled = await story.ask_the_provider(acme, opened)
    screen.section(
        "What Twilio kept to itself, and a channel of which nothing is heard",
        "Backhaul asks Twilio's API every ten minutes, or when it is told to; what it finds counts as callbacks do.",
    )
    screen.reconciled(reconciled)

    loaded = await story.load(globex)
    screen.section(
        "Throughput and latency seen",
        "A short burst of signed callbacks at Globex, in a shuffled order. This machine also runs the servers and the "
        "sender.",
    )
    screen.load(loaded)
    return check_all(
        Seen(
            delivered=delivered,
            others=others,
            asked=asked,
            refused=refused,
            audited=audited,
            erased=erased,
            completed=completed,
            subscribed=subscribed,
            told=told,
            opened=opened,
            reconciled=reconciled,
            loaded=loaded,
        )
    )


def verdict(checks: Sequence[Check], screen: Screen, seconds: float, after: str = AFTER_ITS_OWN) -> int:
    """Show every check, and what to do ``after``; the exit code: 0 when all hold, 1 when any does not."""
    wrong = sum(not check.holds for check in checks)
    screen.section("Checks", "Every figure above, against what it must be.")
    screen.checks(checks)
    if wrong:
        screen.say(f"\n✗ {wrong} of {len(checks)} checks are wrong, after {seconds:.1f} s.", "bold red")
        return 1
    screen.say(f"\n✓ All {len(checks)} checks hold, after {seconds:.1f} s.", "bold green")
    screen.say(after, "dim")
    return 0


@contextmanager
def _cancelled_by_signals() -> Iterator[Callable[[], None]]:
    """The first signal cancels the current task; none does after a call of what is yielded, or outside: cleaning up
    is not interrupted."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    over = False

    def on_signal() -> None:
        nonlocal over
        if not over and task is not None:
            over = True
            task.cancel()

    def settle() -> None:
        nonlocal over
        over = True

    # The handlers stay until the loop closes; once it is over, they do nothing.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(signum, on_signal)
    try:
        yield settle
    finally:
        settle()


def _explain(stack: Stack, screen: Screen) -> None:
    """The end of the logs of what failed: of what has ended by itself, or else of the services."""
    ended = [member for member in stack.members if member.returncode is not None]
    for member in ended or stack.services:
        end = f" ended by itself ({describe_exit(member.returncode)})" if member.returncode is not None else ""
        lines = telling_lines(tail(member.log_path, limit=1_000_000))
        screen.say(f"\n{member.name}{end}; the end of {member.log_path}:", "bold")
        screen.say("\n".join(lines) or "(nothing)")


def telling_lines(log: str) -> list[str]:
    """The last lines of a log, of those that are warnings or worse where there are any."""
    lines = log.splitlines()
    told = ([line for line in lines if not _is_routine(line)] or lines)[-_TAIL_LINES:]
    return [line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]} …" for line in told]


def _is_routine(line: str) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False  # A traceback, or a server's own format.
    return isinstance(entry, dict) and str(entry.get("level", "")).lower() in ("debug", "info")
