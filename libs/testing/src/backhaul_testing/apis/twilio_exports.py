"""BulkExport: jobs that make a file of each day, and the files.

https://www.twilio.com/docs/usage/bulkexport, …/export-custom-job, …/job and …/day, and Twilio's OpenAPI description
(twilio-oai, ``twilio_bulkexports_v1.json``). Beyond them:

- The entries of ``details`` are described and not shown; here ``{"status", "count", "days"}``, with the statuses of the
  description (Submitted, Running, Completed, CompletedEmptyRecords). A day without records gets no Day resource.
- Which date puts a message into a day's file is not documented; here ``date_created``, so that messages that were never
  sent are in it.
- How a job that is refused is answered is not documented; here 400 with 20001.
- The file's address is S3's, as in the description's example, and signed. S3 refuses a request that shows credentials
  twice, so a client that sends its Authorization header along gets 400.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from backhaul_testing.apis.serving import Answer, Asked
from backhaul_testing.apis.twilio_words import RefusedError, told

if TYPE_CHECKING:
    from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi

ORIGIN: Final = "https://bulkexports.twilio.com"
FILES: Final = "https://documentation-example-twilio-bucket.s3.amazonaws.com"
KEPT_DAYS: Final = 7
"""After which a file is removed."""
_YOUNGEST_DAYS: Final = 2
_MAX_DAYS_A_PAGE: Final = 400


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for, of whom, and when."""

    sid: str
    account: TwilioAccount
    first: date
    last: date
    friendly_name: str
    asked_at: datetime
    done_at: datetime

    @property
    def days(self) -> list[date]:
        """Every day of it."""
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]


class Exports:
    """The handlers. ``takes_s`` is what a job takes by the clock."""

    def __init__(self, api: TwilioApi, *, takes_s: float) -> None:
        self._api = api
        self._takes = timedelta(seconds=takes_s)
        self._jobs: dict[str, Job] = {}
        self._files: dict[tuple[str, date], tuple[Job, bytes]] = {}

    def create(self, asked: Asked) -> Answer:
        """``POST /v1/Exports/Messages/Jobs``."""
        account, form, now = self._api.authenticated(asked), asked.form, self._api.clock.now()
        for name in ("StartDay", "EndDay", "FriendlyName"):
            if not form.get(name):
                raise RefusedError(400, 20001, f"Missing required parameter {name} in the post body")
        first, last = _day(form["StartDay"], "StartDay"), _day(form["EndDay"], "EndDay")
        if last > now.date() - timedelta(days=_YOUNGEST_DAYS):
            raise RefusedError(400, 20001, "EndDay must be 2 days earlier than the current UTC day")
        if first > last:
            raise RefusedError(400, 20001, "StartDay must not be after EndDay")
        job = Job(self._api.new_sid("JS"), account, first, last, form["FriendlyName"], now, now + self._takes)
        self._jobs[job.sid] = job
        return told(self._shown(job), 201)

    def job(self, asked: Asked) -> Answer:
        """``GET /v1/Exports/Jobs/{JobSid}``."""
        job, account = self._jobs.get(asked.parts["sid"]), self._api.authenticated(asked)
        if job is None or job.account is not account:
            raise _unknown(asked)
        return told({**self._shown(job), "url": f"{ORIGIN}/v1/Exports/Jobs/{job.sid}"})

    def days(self, asked: Asked) -> Answer:
        """``GET /v1/Exports/Messages/Days``, newest first; the order is not documented."""
        account = self._api.authenticated(asked)
        size = min(int(asked.params.get("PageSize", "50")), _MAX_DAYS_A_PAGE)
        number, after = int(asked.params.get("Page", "0")), asked.params.get("PageToken", "").removeprefix("PA")
        found = [
            (day, job, content)
            for (sid, day), (job, content) in sorted(self._present().items(), key=lambda one: one[0], reverse=True)
            if sid == account.sid and (not after or day.isoformat() < after)
        ]
        base = f"{ORIGIN}{asked.path}"
        following = {"Page": number + 1, "PageToken": f"PA{found[size - 1][0]}"} if len(found) > size else None
        return told(
            {
                "days": [
                    {
                        "day": day.isoformat(),
                        "size": len(content),
                        "resource_type": "Messages",
                        "create_date": job.done_at.date().isoformat(),
                        "friendly_name": job.friendly_name,
                    }
                    for day, job, content in found[:size]
                ],
                "meta": {
                    "page": number,
                    "page_size": size,
                    "first_page_url": f"{base}?{urlencode({'PageSize': size, 'Page': 0})}",
                    "previous_page_url": None,
                    "url": f"{base}?{urlencode({'PageSize': size, 'Page': number})}",
                    "next_page_url": following and f"{base}?{urlencode({'PageSize': size, **following})}",
                    "key": "days",
                },
            }
        )

    def day(self, asked: Asked) -> Answer:
        """``GET /v1/Exports/Messages/Days/{Day}``: where the file is."""
        account, day = self._api.authenticated(asked), _day(asked.parts["day"], "Day")
        found = self._present().get((account.sid, day))
        if found is None:
            raise _unknown(asked)
        job = found[0]
        place = f"{FILES}/{account.sid}/{day}?X-Amz-Signature={job.sid}"
        return told({"redirect_to": place}, 307, {"location": place})

    def file(self, asked: Asked) -> Answer:
        """The file itself, which is no longer Twilio's to serve."""
        if "authorization" in asked.headers:
            return Answer(400, b"<Error><Code>InvalidArgument</Code></Error>", {"content-type": "application/xml"})
        found = self._present().get((asked.parts["account"], _day(asked.parts["day"], "Day")))
        if found is None or not asked.params.get("X-Amz-Signature"):
            return Answer(403, b"<Error><Code>AccessDenied</Code></Error>", {"content-type": "application/xml"})
        return Answer(200, found[1], {"content-type": "application/gzip"})

    def _present(self) -> dict[tuple[str, date], tuple[Job, bytes]]:
        """The files that there are now; those of jobs that have been done meanwhile are made."""
        now = self._api.clock.now()
        for job in self._jobs.values():
            for day in job.days if job.done_at <= now else ():
                place = (job.account.sid, day)
                known = self._files.get(place)
                if (known is None or known[0].done_at < job.done_at) and (content := self._content(job, day)):
                    self._files[place] = (job, content)
        kept = timedelta(days=KEPT_DAYS)
        return {place: file for place, file in self._files.items() if file[0].done_at + kept > now}

    def _content(self, job: Job, day: date) -> bytes:
        """The file of ``day`` as it was when the job was done; empty where nothing was sent that day."""
        texts = sorted((one for one in job.account.texts if one.created.date() == day), key=lambda one: one.created)
        lines = [json.dumps(one.export(job.done_at)).encode() + b"\n" for one in texts if one.created <= job.done_at]
        return gzip.compress(b"".join(lines), mtime=0) if lines else b""

    def _shown(self, job: Job) -> dict[str, Any]:
        now = self._api.clock.now()
        states: dict[str, list[str]] = {}
        for day in job.days:
            if job.done_at <= now:
                state = "Completed" if self._content(job, day) else "CompletedEmptyRecords"
            else:
                state = "Running" if job.asked_at < now else "Submitted"
            states.setdefault(state, []).append(day.isoformat())
        return {
            "resource_type": "Messages",
            "friendly_name": job.friendly_name,
            "start_day": job.first.isoformat(),
            "end_day": job.last.isoformat(),
            "job_sid": job.sid,
            "details": [{"status": state, "count": len(days), "days": days} for state, days in states.items()],
            "webhook_url": None,
            "webhook_method": None,
            "email": None,
            "job_queue_position": "0" if job.done_at <= now else "1",
            "estimated_completion_time": job.done_at.strftime("%Y-%m-%dT%H:%M:%S.000"),
        }


def _day(given: str, name: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise RefusedError(400, 20001, f"{name} must be a day as yyyy-mm-dd") from None


def _unknown(asked: Asked) -> RefusedError:
    return RefusedError(404, 20404, f"The requested resource {asked.path} was not found")
