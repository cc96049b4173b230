"""The demo's checks: everything that could be wrong is named by the check that is for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any

import httpx
from backhaul_client import AsyncAdminClient
from backhaul_local.demo import AFTER_COMPOSE, show, telling_lines, verdict
from backhaul_local.demo_audit import ENV, Audited
from backhaul_local.demo_channels import FLAGGED
from backhaul_local.demo_checks import Seen, check_all
from backhaul_local.demo_communication import BLOCKED, REGISTERED, Completed
from backhaul_local.demo_consent import PURPOSES, UNDECIDED, Asked
from backhaul_local.demo_figures import Check
from backhaul_local.demo_people import Erased
from backhaul_local.demo_reconciliation import ALERTS, REPLIER, Opened, Reconciled, origins
from backhaul_local.demo_screen import Screen
from backhaul_local.demo_story import Delivered, Loaded, OtherChannels, Refused, Story
from backhaul_local.demo_told import Subscribed, Told
from backhaul_local.pytest_plugin import StackFactory
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.receiver import Receiver
from msgspec.structs import replace as changed
from rich.console import Console


class Remembering(Story):
    """The story, keeping what it saw."""

    async def deliver(self, *accounts: Any) -> Delivered:
        self.delivered = await super().deliver(*accounts)
        return self.delivered

    async def tell_of_other_channels(self, *accounts: Any) -> OtherChannels:
        self.others = await super().tell_of_other_channels(*accounts)
        return self.others

    async def ask_before_sending(self, *accounts: Any) -> Asked:
        self.asked = await super().ask_before_sending(*accounts)
        return self.asked

    async def try_to_cheat(self, *accounts: Any) -> Refused:
        self.refused = await super().try_to_cheat(*accounts)
        return self.refused

    async def read_the_files(self, *accounts: Any) -> Audited:
        self.audited = await super().read_the_files(*accounts)
        return self.audited

    async def erase_a_person(self, *accounts: Any) -> Erased:
        self.erased = await super().erase_a_person(*accounts)
        return self.erased

    async def complete_a_batch(self, *accounts: Any) -> Completed:
        self.completed = await super().complete_a_batch(*accounts)
        return self.completed

    async def subscribe(self, *accounts: Any) -> Subscribed:
        self.subscribed = await super().subscribe(*accounts)
        return self.subscribed

    async def look_at_what_was_told(self, *accounts: Any) -> Told:
        self.told = await super().look_at_what_was_told(*accounts)
        return self.told

    async def open_channels(self, *accounts: Any) -> Opened:
        self.opened = await super().open_channels(*accounts)
        return self.opened

    async def ask_the_provider(self, *accounts: Any) -> Reconciled:
        self.reconciled = await super().ask_the_provider(*accounts)
        return self.reconciled

    async def load(self, *accounts: Any) -> Loaded:
        self.loaded = await super().load(*accounts)
        return self.loaded


async def _tell(stack_factory: StackFactory) -> Seen:
    api = TwilioApi()
    env = {"audit": ENV, "reconciler": origins(api)}
    with api:
        return await _told(stack_factory, api, env)


async def _told(stack_factory: StackFactory, api: TwilioApi, env: Mapping[str, Mapping[str, str]]) -> Seen:
    async with (
        stack_factory(with_object_store=True, service_env=env) as stack,
        httpx.AsyncClient(trust_env=False) as http,
        Receiver() as receiver,
    ):
        platform = AsyncAdminClient(stack.gateway_url, stack.admin_token, http=http)
        assert stack.object_store is not None
        story = Remembering(stack.gateway_url, http, platform, stack.object_store, api, receiver)
        checks = await show(story, Screen(Console(file=StringIO())))
    assert [check for check in checks if not check.holds] == []
    return Seen(
        delivered=story.delivered,
        others=story.others,
        asked=story.asked,
        refused=story.refused,
        audited=story.audited,
        erased=story.erased,
        completed=story.completed,
        subscribed=story.subscribed,
        told=story.told,
        opened=story.opened,
        reconciled=story.reconciled,
        loaded=story.loaded,
    )


def _wrong(seen: Seen) -> list[str]:
    return [check.name for check in check_all(seen) if not check.holds]


def _spoiled(seen: Seen) -> Iterator[tuple[str, Seen]]:
    """Every figure that could be wrong, with the check that must say so."""
    delivered, refused, loaded = seen.delivered, seen.refused, seen.loaded

    def of_delivered(**fields: Any) -> Seen:
        return replace(seen, delivered=replace(delivered, **fields))

    def of_message(number: int, **fields: Any) -> Seen:
        messages = list(delivered.messages)
        due, message = messages[number]
        assert message is not None
        messages[number] = (due, changed(message, **fields))
        return of_delivered(messages=messages)

    for number, (due, message) in enumerate(delivered.messages):
        assert message is not None
        for field in ("state", "fulfilment_state", "error_code"):
            yield f"{due.name} ends", of_message(number, **{field: "another"})
        twice = (*message.timeline, message.timeline[0])
        yield f"{due.name} timeline", of_message(number, timeline=twice)
        yield "messages joined to spring-sale", of_message(number, communication_id="")
    yield "custom parameters kept", of_message(0, vars=())
    yield "keyword of the reply", of_message(3, timeline=())
    yield "signed callbacks answered 200", of_delivered(statuses=[*delivered.statuses[:-1], 503])
    yield "events kept, each once", of_delivered(events=[*delivered.events, delivered.events[0]])
    unverified = changed(delivered.events[0], verification="off")
    yield "events marked as verified", of_delivered(events=[unverified, *delivered.events[1:]])
    yield "dead letters", of_delivered(dead_letters=[*delivered.dead_letters, delivered.dead_letters[0]])
    yield "dead letters", of_delivered(dead_letters=[changed(delivered.dead_letters[0], state="replayed")])
    for number, name in enumerate(("by the command line: messages", "… where they stand", "… dead letters")):
        said = [*delivered.by_line]
        said[number] = replace(said[number], out="backhaul: No answer.")
        yield name, of_delivered(by_line=tuple(said))

    for step, spoiling in {
        "others": _spoiled_stories(seen.others),
        "asked": _spoiled_answers(seen.asked),
        "audited": _spoiled_files(seen.audited),
        "erased": _spoiled_erasure(seen.erased),
        "completed": _spoiled_batch(seen.completed),
        "subscribed": _let_in(seen.subscribed),
        "told": _spoiled_telling(seen.told),
        "opened": [("calls of the day before yesterday: callbacks answered 200", {"statuses": [403]})],
        "reconciled": _spoiled_reconciliation(seen.reconciled),
    }.items():
        for name, fields in spoiling:
            yield name, replace(seen, **{step: replace(getattr(seen, step), **fields)})

    assert delivered.communication is not None
    assert loaded.communication is not None
    for name, counts in (("spring-sale", delivered.communication), ("burst", loaded.communication)):
        for figure, wrong in {
            "messages": changed(counts, messages=1),
            "fulfilment states": changed(counts, fulfilment={**counts.fulfilment, "Sent": 1}),
            "events, each counted once": changed(counts, events={**counts.events, "sent": 601}),
        }.items():
            spoiled = (
                of_delivered(communication=wrong),
                replace(seen, loaded=replace(loaded, communication=wrong)),
            )
            yield f"{name}: {figure}", spoiled[name == "burst"]

    for number, attempt in enumerate(refused.attempts):
        let_in = list(refused.attempts)
        let_in[number] = replace(attempt, got="200")
        yield attempt.what, replace(seen, refused=replace(refused, attempts=let_in))
    for name, traces in {
        "refused signatures counted": replace(refused, counted={**refused.counted, "Globex Twilio": 0}),
        "tenants afterwards": replace(refused, tenants=[*refused.tenants, "initech"]),
        "Globex's messages afterwards": replace(refused, globex_messages=1),
        "spring-sale afterwards": replace(refused, communication=changed(delivered.communication, messages=9)),
    }.items():
        yield name, replace(seen, refused=traces)
    yield "burst: answers", replace(seen, loaded=replace(loaded, statuses=[*loaded.statuses[1:], 503]))
    yield "callbacks one by one, read back", replace(seen, loaded=replace(loaded, probes_delivered=19))


def _spoiled_stories(others: OtherChannels) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of all other channels."""
    for number, (story, message) in enumerate(others.messages):
        assert message is not None
        stories = list(others.messages)
        stories[number] = (story, changed(message, state="another"))
        yield f"{story.due.name} ends", {"messages": stories}
        stories[number] = (story, changed(message, timeline=()))
        yield f"{story.due.name} timeline", {"messages": stories}
    yield "other channels: callbacks answered 200", {"statuses": [*others.statuses[:-1], 403]}
    (reply,) = others.replies
    yield f"“{FLAGGED}” over RCS", {"replies": [changed(reply, review="flagged", consent=None)]}
    yield "what it answers", {"replies": [changed(reply, answered=None)]}
    yield "autumn: replies", {"communication": None}
    yield "a callback that was only looked at", {"previewed": ["nothing"]}
    yield "errors by code and class", {"errors": {**others.errors, "rcs 404 (channel)": 2}}
    yield "statistics: messages by channel", {"counted": {**others.counted, "rcs": 9}}


def _spoiled_files(audited: Audited) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of audit files."""
    yield "mail events in audit files", {"events": 10}
    yield "lines of a file are SendGrid's own", {"lines": [*audited.lines, audited.lines[0]] * 8}
    yield "verified", {"sound": audited.changed}
    yield "… after a line was changed in the bucket", {"changed": audited.sound}
    yield "… what is named", {"changed": audited.sound}
    yield "… after it was put back", {"restored": audited.changed}
    assert audited.recount is not None
    for wrong in ({"equal": False}, {"events": 1}, {"channels_not_asked": ()}, {"missing": 1}):
        yield "spring-sale recounted", {"recount": changed(audited.recount, **wrong)}
    yield "spring-sale recounted", {"recount": None}
    yield "audit files that Globex sees", {"elsewhere": 1}


def _spoiled_erasure(erased: Erased) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of who is erased."""
    yield "people's events in encrypted files", {"stored": erased.stored[1:]}
    yield "… lines of Ada and Ben in the bucket", {"stored": erased.before}
    yield "… decrypted", {"before": erased.stored}
    yield "Ada's key", {"erasure": changed(erased.erasure, destroyed=False)}
    yield "… channels in which she can be read still", {"erasure": changed(erased.erasure, plain_channels=())}
    yield "… lines of Ada and Ben, decrypted", {"after": erased.before}
    yield "… lines that say only that there was something", {"after": erased.before}
    yield "… the files in the bucket", {"unchanged": False}
    yield "… verified afterwards", {"files": erased.files + 1}


def _spoiled_batch(completed: Completed) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of the batch that is completed."""
    got = completed.communication
    yield "registered batch: callbacks answered 200", {"statuses": completed.statuses[1:]}
    yield "members added", {"added": completed.again}
    yield "sends told", {"reported": 9}
    yield "batch, when it is closed", {"closed": completed.corrected}
    for status in ("open", "complete"):
        yield "batch, when it is closed", {"closed": changed(completed.closed, status=status)}
    yield "… when the last message is sent", {"completed": completed.closed}
    yield "… completed by", {"completed": changed(completed.completed, completed_by="deadline")}
    yield "… after a late delivery", {"corrected": completed.completed}
    yield "… how many states changed since", {"corrected": changed(completed.corrected, changed_since=2)}
    yield (
        "… at completion, still",
        {"corrected": changed(completed.corrected, at_completion=completed.corrected.progress)},
    )
    yield "… completed once", {"corrected": changed(completed.corrected, completed_at=completed.closed.closed_at)}
    yield "… members listed", {"members": [*completed.members, completed.members[0]]}
    for number, member in enumerate(completed.members):
        (destination,) = member.destinations
        assert destination.message is not None
        name = f"{member.member_key} {member.attributes['first_name']}"
        for wrong in (
            {"channel": "rcs"},
            {"recipient": "+15005550199"},
            {"message": None},
            {"message": changed(destination.message, fulfilment_state="Queued")},
            {"message": changed(destination.message, error_code="1")},
        ):
            members = list(completed.members)
            members[number] = changed(member, destinations=(changed(destination, **wrong),))
            yield name, {"members": members}
        yield name, {"members": [one for one in completed.members if one is not member]}
    yield "the same members once more", {"again": completed.added}
    yield completed.addition.what, {"addition": replace(completed.addition, got="was let in")}
    assert got.registered is not None
    for name, of_communication in (
        ("registered", {"registered": None}),
        ("registered", {"registered": changed(got.registered, mode="test")}),
        ("registered", {"registered": changed(got.registered, notify=())}),
        ("messages", {"messages": 9}),
        ("fulfilment states", {"fulfilment": {**got.fulfilment, "Sent": 1}}),
        ("events, each counted once", {"events": {**got.events, "sent": 4}}),
        ("error codes", {"errors": got.errors[1:]}),
        ("messages engaged with", {"engagement": changed(got.engagement, unique_clicked=0)}),
        ("batches", {"batches": ()}),
        ("batches", {"batches": (completed.closed,)}),
        ("status", {"status": "active"}),
    ):
        yield f"{REGISTERED}: {name}", {"communication": changed(got, **of_communication)}
    yield f"may we contact {BLOCKED}?", {"blocked": changed(completed.blocked, verdict="allowed", blocking=())}


def _let_in(subscribed: Subscribed) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of endpoints that are not called."""
    for number, attempt in enumerate(subscribed.refused):
        attempts = list(subscribed.refused)
        attempts[number] = replace(attempt, got="was let in")
        yield attempt.what, {"refused": attempts}


def _spoiled_telling(told: Told) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of what Acme's application was told."""
    assert told.history is not None
    failed, *others = told.orders
    yield "an application that fails twice: its answers", {"orders": [*others, failed]}
    for history in (None, changed(told.history, state="waiting"), changed(told.history, history=())):
        yield "… what Backhaul kept of them", {"history": history}
    yield "… webhook-ids of all attempts", {"orders": [*others, replace(failed, headers={"webhook-id": "msg_1"})]}
    yield "paused: deliveries that wait", {"waiting": told.waiting[1:]}
    yield "… calls meanwhile", {"too_early": 1}
    yield "… told when it is resumed", {"crm": told.crm[::-1]}
    yield "summer-1: calls that say it is complete", {"complete": [*told.complete, *told.complete]}
    for read in ({}, {**told.read, "status": "closed"}, {**told.read, "progress": {}}):
        yield "… read at the address that was told", {"read": read}
    yield "calls, and those whose signatures hold", {"signed": told.signed - 1}


def _spoiled_reconciliation(seen: Reconciled) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of what was found by asking."""
    yield "callbacks that Twilio kept to itself", {"lost": 4}
    for wrong in ({"state": "stopped"}, {"counts": changed(seen.report.counts, missing=2)}):
        yield "… found by asking its API", {"report": changed(seen.report, **wrong)}
    for number, alert in enumerate(ALERTS):
        for told in ("before", "after"):
            states = list(getattr(seen, told))
            states[number] = "another"
            yield f"{alert.to}: {alert.story}", {told: states}
    yield f"may we contact {REPLIER}?", {"writer": changed(seen.writer, verdict="allowed", blocking=())}
    yield "Alerts: messages in another state at Twilio", {"differences": 1}
    assert seen.day is not None
    for day in (None, changed(seen.day, state="open"), changed(seen.day, equal=2)):
        yield f"Alerts: {seen.day_name}", {"day": day}
    parts = seen.silent.parts
    heard = changed(parts.callbacks, state="OK", silence="none")
    yield "Coupons: callbacks", {"silent": changed(seen.silent, parts=changed(parts, callbacks=heard))}


def _spoiled_answers(asked: Asked) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of what was answered about contacting people."""
    (row,) = asked.stopped.blocking
    assert row.since is not None
    yield "STOP and START answered 200", {"statuses": [200, 503]}
    yield f"may we contact {UNDECIDED}?", {"before": asked.stopped}
    yield "… after STOP", {"stopped": asked.started}
    yield "… after STOP", {"stopped": changed(asked.stopped, blocking=(changed(row, kind="manual"),))}
    for other in (changed(row, event_id="another"), changed(row, since=row.since + timedelta(seconds=1))):
        yield "… since when, and by which event", {"stopped": changed(asked.stopped, blocking=(other,))}
    yield "… since when, and by which event", {"reply": None}
    yield "… at Globex meanwhile", {"elsewhere": asked.stopped}
    yield asked.lift.what, {"lift": replace(asked.lift, got="was let in")}
    yield "… by the rule", {"lift": replace(asked.lift, why="manual_by_tenant: …")}
    yield "… after START", {"started": asked.stopped}
    yield "STOP counts", {"stopped_s": 1.1}
    yield "START counts", {"started_s": 1.1}
    for number, (person, answers) in enumerate(asked.people):
        for turn, purpose in enumerate(PURPOSES):
            others = list(answers)
            others[turn] = changed(answers[turn], verdict="invalid", blocking=())
            people = list(asked.people)
            people[number] = (person, others)
            yield f"{person.address}, {purpose}", {"people": people}


def test_every_check_names_what_it_is_for(stack_factory: StackFactory) -> None:
    seen = asyncio.run(_tell(stack_factory))
    proven = set()
    for name, spoiled in _spoiled(seen):
        assert name in _wrong(spoiled), name
        proven.add(name)
    assert proven == {check.name for check in check_all(seen)}
    # What is not there is wrong, and no crash.
    gone = replace(seen.delivered, messages=[(due, None) for due, _ in seen.delivered.messages], communication=None)
    screen = Screen(Console(file=StringIO()))
    screen.messages(gone, "Twilio")
    nothing = replace(seen, delivered=gone, loaded=replace(seen.loaded, communication=None))
    assert "Twilio …8abca9 ends" in _wrong(nothing)


def test_a_wrong_figure_is_shown_and_makes_the_exit_code_1() -> None:
    out = StringIO()
    screen = Screen(Console(file=out))
    right, wrong = Check("events", "20", "20"), Check("messages", "8", "7")
    assert verdict([right], screen, 1.0, AFTER_COMPOSE) == 0
    assert "All 1 checks hold" in out.getvalue()
    assert "again without demo.yaml" in " ".join(out.getvalue().split())
    assert verdict([wrong, right], screen, 1.0) == 1
    shown = [line.split() for line in out.getvalue().splitlines() if line]
    assert shown[-3:-1] == [["✗", "messages", "8", "7"], ["✓", "events", "20", "20"]]
    assert "1 of 2 checks are wrong" in out.getvalue()


def test_log_lines_that_tell() -> None:
    routine = json.dumps({"level": "info", "event": "request"})
    error = json.dumps({"level": "error", "event": "x" * 1000})
    assert telling_lines(f"{routine}\n{error}\nTraceback\n") == [error[:400] + " …", "Traceback"]
    assert telling_lines(f"{routine}\n") == [routine]
