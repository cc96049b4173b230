"""What every figure of the demo must be. Pure: what was seen goes in, named checks come out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backhaul_client.communicationmodels import Batch, MembersAdded
from backhaul_client.models import Communication, DeadLetterSummary, Event, Message
from backhaul_client.suppressionmodels import Blocking

from backhaul_local.demo_audit import MAIL_EVENTS, Audited, Verified, named, recounted, word_of
from backhaul_local.demo_channels import FLAGGED, OTHER_COMMUNICATION
from backhaul_local.demo_communication import (
    AT_CLOSING,
    AT_COMPLETION,
    AT_LAST,
    BATCH,
    BLOCKED,
    PEOPLE,
    REGISTERED,
    REGISTRATION,
    SENDING_ERRORS,
    SENDING_EVENTS,
    Completed,
    counted,
    outcome_of,
    registration_of,
    told_of,
)
from backhaul_local.demo_consent import MAX_WAIT_S, PURPOSES, RULE, UNDECIDED, Asked, told
from backhaul_local.demo_figures import NOTHING, Check
from backhaul_local.demo_line import checks_of as read_checks
from backhaul_local.demo_people import ADA, BEN, PEOPLE_EVENTS, STATUSES, Erased, about
from backhaul_local.demo_reconciliation import (
    ALERTS,
    CALLED,
    LABEL,
    MISSING,
    REPLIER,
    SILENT,
    Opened,
    Reconciled,
    told_of_day,
    told_of_silence,
)
from backhaul_local.demo_script import (
    BURST_DUPLICATES,
    BURST_MESSAGES,
    BURST_STATUSES,
    COMMUNICATION,
    ERRORS,
    EVENTS,
    FULFILMENT,
    MESSAGES,
    PROBES,
    Due,
    outcome,
    sendgrid_batch,
)
from backhaul_local.demo_story import Delivered, Loaded, OtherChannels, Refused
from backhaul_local.demo_told import Subscribed, Told, checks_of


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What each step of the story got to see."""

    delivered: Delivered
    others: OtherChannels
    asked: Asked
    refused: Refused
    audited: Audited
    erased: Erased
    completed: Completed
    subscribed: Subscribed
    told: Told
    opened: Opened
    reconciled: Reconciled
    loaded: Loaded


def check_all(seen: Seen) -> list[Check]:
    """Every check of the demo."""
    return [
        *_delivered(seen.delivered),
        *_other_channels(seen.others),
        *_asked(seen.asked),
        *_refused(seen.delivered, seen.refused),
        *_audited(seen.audited),
        *_erased(seen.erased),
        *_completed(seen.completed),
        *checks_of(seen.subscribed, seen.told),
        *_reconciled(seen.opened, seen.reconciled),
        *_loaded(seen.loaded),
    ]


def _delivered(seen: Delivered) -> list[Check]:
    """The genuine traffic: answers, messages, the communication, the dead letter."""
    posted = sum(len(due.posts) for due in MESSAGES) + 2  # With the unreadable one and SendGrid's batch.
    found = [message for _, message in seen.messages if message]
    joined = sum(message.communication_id == COMMUNICATION for message in found)
    verified = sum(event.verification == "verified" for event in seen.events)
    parameters = [f"{pair.name}={pair.value}" for pair in (found[0].vars if found else ())]
    replies = [event for message in found for event in message.timeline if event.kind == "inbound"]
    keywords = [event.consent.word if event.consent else NOTHING for event in replies]
    return [
        Check("signed callbacks answered 200", f"200: {posted}", _answers(seen.statuses)),
        *(check for due, message in seen.messages for check in _message(due, message)),
        Check("events kept, each once", str(EVENTS.total()), str(len(seen.events))),
        Check("events marked as verified", str(EVENTS.total()), str(verified)),
        Check(f"messages joined to {COMMUNICATION}", str(len(MESSAGES)), str(joined)),
        Check("custom parameters kept", "communicationId=spring-sale, offerId=SMS-20", ", ".join(parameters)),
        Check("keyword of the reply", "STOP", ", ".join(keywords)),
        *_counts(COMMUNICATION, len(MESSAGES), FULFILMENT, EVENTS, seen.communication),
        Check("dead letters", "open: MessageSid is missing", ", ".join(map(_letter, seen.dead_letters))),
        *read_checks(seen.by_line),
    ]


def _other_channels(seen: OtherChannels) -> list[Check]:
    """One story for each other provider."""
    return [
        Check("other channels: callbacks answered 200", f"200: {len(seen.statuses)}", _answers(seen.statuses)),
        *(check for story, message in seen.messages for check in _message(story.due, message)),
        Check(f"“{FLAGGED}” over RCS", "flagged, accepted, opt out", ", ".join(map(_decided, seen.replies))),
        Check("what it answers", "rcs order-4711", ", ".join(map(_answered, seen.replies))),
        Check(f"{OTHER_COMMUNICATION}: replies", "all 1, stop 1", _reply_counts(seen.communication)),
        Check("a callback that was only looked at", "clicked", ", ".join(seen.previewed)),
        Check("errors by code and class", ERRORS, counts(seen.errors)),
        Check("statistics: messages by channel", counts(_by_channel(seen)), counts(seen.counted)),
    ]


def _by_channel(seen: OtherChannels) -> Counter[str]:
    """The messages of ``OTHER_COMMUNICATION`` by their channels; each reply is one, too."""
    found = [message for _, message in seen.messages if message is not None]
    sent = Counter(message.channel for message in found if message.communication_id == OTHER_COMMUNICATION)
    return sent + Counter(reply.channel for reply in seen.replies)


def _asked(seen: Asked) -> list[Check]:
    """What was answered about contacting people."""
    reasons = ["the reply" if _is_reply(row, seen.reply) else str(row.event_id) for row in seen.stopped.blocking]
    return [
        Check("STOP and START answered 200", "200: 2", _answers(seen.statuses)),
        Check(f"may we contact {UNDECIDED}?", "allowed", told(seen.before)),
        Check("… after STOP", "stop", told(seen.stopped)),
        Check("… since when, and by which event", "the reply", ", ".join(reasons) or NOTHING),
        Check("… at Globex meanwhile", "allowed", told(seen.elsewhere)),
        Check(seen.lift.what, seen.lift.due, seen.lift.got),
        Check("… by the rule", RULE, seen.lift.why.partition(":")[0]),
        Check("… after START", "allowed", told(seen.started)),
        Check("STOP counts", *_in_time(seen.stopped_s)),
        Check("START counts", *_in_time(seen.started_s)),
        *(
            Check(f"{person.address}, {purpose}", due, told(answer))
            for person, answers in seen.people
            for purpose, due, answer in zip(PURPOSES, person.answers, answers, strict=True)
        ),
    ]


def _is_reply(row: Blocking, reply: Event | None) -> bool:
    return reply is not None and (row.event_id, row.since) == (reply.id, reply.occurred_at)


def _in_time(seconds: float) -> tuple[str, str]:
    due = f"within {MAX_WAIT_S:.0f} s"
    return due, due if seconds <= MAX_WAIT_S else f"after {seconds:.1f} s"


def _decided(reply: Event) -> str:
    """What was made of a reply that was likely an opt-out."""
    likely = reply.classification is not None and reply.classification.confidence == "likely"
    action = reply.consent.action.replace("_", " ") if reply.consent else NOTHING
    return f"{'flagged' if likely else NOTHING}, {reply.review}, {action}"


def _answered(reply: Event) -> str:
    return f"{reply.answered.channel} {reply.answered.message_id}" if reply.answered else NOTHING


def _reply_counts(seen: Communication | None) -> str:
    replies = seen.replies if seen else None
    return counts({"all": replies.all, "stop": replies.stop, "start": replies.start}) if replies else NOTHING


def _refused(delivered: Delivered, seen: Refused) -> list[Check]:
    """Every attempt was refused as it must be, and nothing of it stayed."""
    after = "unchanged" if seen.communication == delivered.communication else "changed"
    return [
        *(Check(attempt.what, attempt.due, attempt.got) for attempt in seen.attempts),
        Check("refused signatures counted", "Acme SendGrid 2, Acme Twilio 3, Globex Twilio 1", counts(seen.counted)),
        Check("tenants afterwards", "acme, globex", ", ".join(seen.tenants)),
        Check("Globex's messages afterwards", "0", str(seen.globex_messages)),
        Check(f"{COMMUNICATION} afterwards", "unchanged", after),
    ]


def _audited(seen: Audited) -> list[Check]:
    """The files hold what SendGrid posted, and what is changed in one is found and named."""
    sent = Counter(event["event"] for event in json.loads(sendgrid_batch()))
    told = Counter(map(word_of, seen.lines))
    count = len(seen.files)
    all_valid = f"{count}/{count} files valid"
    names = [file.name for file in seen.files[:1]]
    due = ", ".join(f"{name}: hash" for name in names)
    return [
        Check("mail events in audit files", str(MAIL_EVENTS), str(seen.events)),
        Check("lines of a file are SendGrid's own", "yes", "yes" if told and told <= sent else "no"),
        Check("verified", all_valid, _valid(seen.sound)),
        Check("… after a line was changed in the bucket", f"{count - 1}/{count} files valid", _valid(seen.changed)),
        Check("… what is named", due, ", ".join(map(named, seen.changed.invalid))),
        Check("… after it was put back", all_valid, _valid(seen.restored)),
        Check(
            f"{COMMUNICATION} recounted",
            f"equal, {EVENTS.total()} events, {MAIL_EVENTS} in files, not asked: twilio",
            recounted(seen.recount),
        ),
        Check("audit files that Globex sees", "0", str(seen.elsewhere)),
    ]


def _erased(seen: Erased) -> list[Check]:
    """Nobody reads people's lines in the bucket; of who is erased nobody reads them anywhere, of others as before."""
    each = len(STATUSES)
    plain = ", ".join(seen.erasure.plain_channels)
    gone = sum(json.loads(line).get("encrypted", "") is None for line in seen.after)
    return [
        Check("people's events in encrypted files", str(PEOPLE_EVENTS), str(len(seen.stored))),
        Check("… lines of Ada and Ben in the bucket", "0, 0", _about(seen.stored)),
        Check("… decrypted", f"{each}, {each}", _about(seen.before)),
        Check("Ada's key", "destroyed", "destroyed" if seen.erasure.destroyed else "was not there"),
        Check("… channels in which she can be read still", "sendgrid", plain or NOTHING),
        Check("… lines of Ada and Ben, decrypted", f"0, {each}", _about(seen.after)),
        Check("… lines that say only that there was something", str(each), str(gone)),
        Check("… the files in the bucket", "unchanged", "unchanged" if seen.unchanged else "changed"),
        Check("… verified afterwards", f"{seen.files}/{seen.files} files valid", _valid(seen.sound)),
    ]


def _about(lines: Sequence[bytes]) -> str:
    return f"{about(lines, ADA)}, {about(lines, BEN)}"


def _valid(seen: Verified) -> str:
    """What is said of the files; of digests there is one more every now and then."""
    return ", ".join(line.rpartition(", ")[2] for line in seen.summary) or NOTHING


def _completed(seen: Completed) -> list[Check]:
    """The batch was complete once, with everybody in it; what came later is counted, and nothing is added."""
    people, posted = str(len(PEOPLE)), sum(len(one.words) for one in PEOPLE)
    members = {member.member_key: member for member in seen.members}
    got = seen.communication
    errors = {f"{one.channel} {one.error_code}": one.count for one in got.errors}
    engaged = f"opened {got.engagement.unique_opened}, clicked {got.engagement.unique_clicked}"
    return [
        Check("registered batch: callbacks answered 200", f"200: {posted}", _answers(seen.statuses)),
        Check("members added", people, str(seen.added.added)),
        Check("sends told", people, str(seen.reported)),
        Check("batch, when it is closed", f"closed: {counts(AT_CLOSING)}", _batch(seen.closed)),
        Check("… when the last message is sent", f"complete: {counts(AT_COMPLETION)}", _batch(seen.completed)),
        Check("… completed by", "condition", seen.completed.completed_by or NOTHING),
        Check("… after a late delivery", f"complete: {counts(AT_LAST)}", _batch(seen.corrected)),
        Check("… how many states changed since", "1", str(seen.corrected.changed_since)),
        Check("… at completion, still", counts(AT_COMPLETION), counts(counted(seen.corrected.at_completion))),
        Check("… completed once", str(seen.completed.completed_at), str(seen.corrected.completed_at)),
        Check("… members listed", people, str(len(seen.members))),
        *(Check(f"{one.key} {one.name}", outcome_of(one), told_of(members.get(one.key))) for one in PEOPLE),
        Check("the same members once more", f"unchanged {people}", _added(seen.again)),
        Check(seen.addition.what, seen.addition.due, seen.addition.got),
        Check(f"{REGISTERED}: registered", REGISTRATION, registration_of(got)),
        *_counts(REGISTERED, len(PEOPLE), AT_LAST, SENDING_EVENTS, got),
        Check(f"{REGISTERED}: error codes", counts(SENDING_ERRORS), counts(errors)),
        Check(f"{REGISTERED}: messages engaged with", "opened 1, clicked 1", engaged),
        Check(
            f"{REGISTERED}: batches", f"{BATCH} {people} of {people} processed", ", ".join(map(_progress, got.batches))
        ),
        Check(f"{REGISTERED}: status", "complete", got.status),
        Check(f"may we contact {BLOCKED}?", "provider_block", told(seen.blocked)),
    ]


def _batch(seen: Batch) -> str:
    return f"{seen.status}: {counts(counted(seen.progress))}"


def _progress(seen: Batch) -> str:
    return f"{seen.id} {seen.progress.processed} of {seen.progress.destinations} processed"


def _added(seen: MembersAdded) -> str:
    return counts({name: getattr(seen, name) for name in ("added", "changed", "unchanged", "refused")})


def _reconciled(opened: Opened, seen: Reconciled) -> list[Check]:
    """What no callback told is found, the day that is over is equal on both sides, and silence is named."""
    sids = zip(ALERTS, seen.before, seen.after, strict=True)
    return [
        Check(
            "calls of the day before yesterday: callbacks answered 200",
            f"200: {4 * len(CALLED)}",
            _answers(opened.statuses),
        ),
        Check("callbacks that Twilio kept to itself", str(MISSING), str(seen.lost)),
        Check("… found by asking its API", f"done: {MISSING}", f"{seen.report.state}: {seen.report.counts.missing}"),
        *(
            Check(f"{alert.to}: {alert.story}", f"{alert.before} → {alert.after}", f"{before} → {after}")
            for alert, before, after in sids
        ),
        Check(f"may we contact {REPLIER}?", "stop", told(seen.writer)),
        Check(f"{LABEL}: messages in another state at Twilio", "0", str(seen.differences)),
        Check(f"{LABEL}: {seen.day_name}", f"closed: {len(CALLED)} of {len(CALLED)} are equal", told_of_day(seen.day)),
        Check(f"{SILENT}: callbacks", "Error: silent", told_of_silence(seen.silent)),
    ]


def _loaded(seen: Loaded) -> list[Check]:
    """The burst was stored as a whole, and every event of it counted once."""
    posted = BURST_MESSAGES * len(BURST_STATUSES) + BURST_DUPLICATES
    events = dict.fromkeys(BURST_STATUSES, BURST_MESSAGES)
    return [
        Check("burst: answers", f"200: {posted}", _answers(seen.statuses)),
        *_counts("burst", BURST_MESSAGES, {"Delivered": BURST_MESSAGES}, events, seen.communication),
        Check("callbacks one by one, read back", f"{PROBES} of {PROBES}", f"{seen.probes_delivered} of {PROBES}"),
    ]


def _message(due: Due, message: Message | None) -> list[Check]:
    steps = [
        event.kind if event.kind == event.provider_status else f"{event.kind} ({event.provider_status})"
        for event in (message.timeline if message else ())
    ]
    return [
        Check(f"{due.name} ends", due.ends, ends(message)),
        Check(f"{due.name} timeline", due.timeline, " → ".join(steps) or NOTHING),
    ]


def _counts(
    name: str, messages: int, fulfilment: Mapping[str, int], events: Mapping[str, int], seen: Communication | None
) -> list[Check]:
    """Both counts of a communication, and that of its messages."""
    got = (seen.messages, seen.fulfilment, seen.events) if seen else (0, {}, {})
    return [
        Check(f"{name}: messages", str(messages), str(got[0])),
        Check(f"{name}: fulfilment states", counts(fulfilment), counts(got[1])),
        Check(f"{name}: events, each counted once", counts(events), counts(got[2])),
    ]


def counts(figures: Mapping[str, int]) -> str:
    """Counts as people read them; those that are zero are left out."""
    return ", ".join(f"{name} {count}" for name, count in sorted(figures.items()) if count) or NOTHING


def ends(message: Message | None) -> str:
    """How a message ended, in one line."""
    if message is None:
        return "not there"
    error = f"{message.error_code}: {message.error_text}" if message.error_code else ""
    return outcome(message.state, message.fulfilment_state, error)


def _answers(statuses: Sequence[int]) -> str:
    return ", ".join(f"{status}: {count}" for status, count in sorted(Counter(statuses).items()))


def _letter(letter: DeadLetterSummary) -> str:
    known = "MessageSid is missing"
    return f"{letter.state}: {known if known in letter.reason else letter.reason}"
