"""Tells people, by mail through one SMTP server.

The server is Backhaul's own: where it is away, slow, or does not know Backhaul, that is no trouble of those to whom the
mail is addressed. That it will not have an address is.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from typing import Final

import aiosmtplib
from backhaul_common.mailaddresses import is_mail_address
from backhaul_common.tracing import Tracing
from backhaul_proto.notice.v1.notice_pb2 import Notice
from opentelemetry.trace import SpanKind, Status, StatusCode

from backhaul_notifier.calling.digest import From, mail
from backhaul_notifier.calling.settings import MailSettings
from backhaul_notifier.documents import is_alert, subscription_of
from backhaul_notifier.door.outcome import STOOD_STILL, Failure
from backhaul_notifier.model import Attempted, Delivery, Subscription
from backhaul_notifier.payloads import Told
from backhaul_notifier.ports import always
from backhaul_notifier.schedules import Outcome

MAX_ANSWER: Final = 1000
"""Characters of what the server said that are kept."""


class MailError(Exception):
    """A mail was not taken. ``error`` is the outcome's word; ``answer`` is what the server said."""

    def __init__(self, error: str, text: str, status: int = 0, answer: str = "") -> None:
        super().__init__(text)
        self.error = error
        self.status = status
        self.answer = answer


class Mailer:
    """Sends mail, at most so many at once as settings say, each over a connection of its own."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings
        self._room = asyncio.Semaphore(settings.notifier_smtp_connections)
        self._tls = ssl.create_default_context(cafile=settings.notifier_smtp_ca_file)

    @property
    def sender(self) -> str:
        """The address that mail is from."""
        return self._settings.notifier_mail_from

    async def send(
        self, message: EmailMessage, to: Sequence[str], may_send: Callable[[], bool]
    ) -> tuple[dict[str, str], str]:
        """Which of the addresses ``to`` the server will not have, each with what it said; and what it said to the mail
        for the others. MailError where it takes the mail for none, or ``may_send`` says no when it is asked for it."""
        settings = self._settings
        if not settings.notifier_smtp_host:
            raise MailError("mail_server_missing", "No mail is sent, since no SMTP server is configured.")
        try:
            async with asyncio.timeout(settings.notifier_smtp_timeout_s), self._room:
                return await self._sent(message, to, may_send)
        except TimeoutError as exc:
            raise MailError("mail_server_timeout", "The mail server did not take the mail in time.") from exc
        except aiosmtplib.SMTPRecipientsRefused as exc:
            raise _refused(exc.recipients) from exc
        except aiosmtplib.SMTPResponseException as exc:
            raise _answered(exc) from exc
        except (aiosmtplib.SMTPException, OSError) as exc:
            raise MailError("mail_server_away", "The mail server cannot be reached, or hung up.") from exc

    async def _sent(
        self, message: EmailMessage, to: Sequence[str], may_send: Callable[[], bool]
    ) -> tuple[dict[str, str], str]:
        settings = self._settings
        security = settings.notifier_smtp_security
        client = aiosmtplib.SMTP(
            hostname=settings.notifier_smtp_host,
            port=settings.notifier_smtp_port,
            username=settings.notifier_smtp_user or None,
            password=settings.notifier_smtp_password.get_secret_value() or None,
            use_tls=security == "tls",
            start_tls=security == "starttls",
            tls_context=None if security == "none" else self._tls,
            # One clock measures all of it.
            timeout=settings.notifier_smtp_timeout_s,
            # It would be this machine's name, which concerns nobody.
            local_hostname=settings.notifier_mail_from.rpartition("@")[2],
        )
        try:
            await client.connect()
            if not may_send():
                raise MailError(Failure.NO_ROOM, STOOD_STILL)
            refused, said = await client.send_message(message, sender=self.sender, recipients=list(to))
            return {address: f"{one.code} {one.message}" for address, one in refused.items()}, said
        finally:
            # Without taking leave: what happens then could no longer be told from a mail that was not taken.
            client.close()


class MailCalling:
    """``ports.Caller`` for mail destinations: all that is given to it at once is one mail."""

    def __init__(
        self, mailer: Mailer, tracing: Tracing, *, now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self._mailer = mailer
        self._tracing = tracing
        self._now_us = now_us

    async def call(
        self,
        subscription: Subscription,
        deliveries: Sequence[Delivery],
        webhook_id: str,
        may_send: Callable[[], bool] = always,
    ) -> Attempted:
        """See ``Caller``. A mail that some of the addresses got has succeeded: again, it would come to them twice."""
        told = [Told(one.type, one.said) for one in deliveries]
        traces = [one.said.traceparent for one in told if one.said.traceparent]
        attributes: dict[str, str | int] = {
            "tenant": subscription.tenant,
            "subscription": subscription.id,
            "events": len(told),
        }
        with self._tracing.span("endpoint.mail", kind=SpanKind.CLIENT, attributes=attributes, links=traces) as span:
            attempted = await self._call(subscription, told, webhook_id, may_send)
            if attempted.outcome.error:
                span.set_status(Status(StatusCode.ERROR, attempted.outcome.error))
            return attempted

    async def _call(
        self, subscription: Subscription, told: Sequence[Told], webhook_id: str, may_send: Callable[[], bool]
    ) -> Attempted:
        at_us, began = self._now_us(), time.monotonic()
        to = _addressed(subscription, told)
        answer = ""
        try:
            of = From(subscription.tenant, subscription_of(subscription.id), subscription.definition.name)
            # A full one takes a tenth of a second.
            message = await asyncio.to_thread(mail, self._mailer.sender, to, of, told, webhook_id, at_us)
            refused, answer = await self._mailer.send(message, to, may_send)
            outcome, text = Outcome(200), f"The mail server took the mail for {len(to) - len(refused)} of {len(to)}."
            if refused:
                text = f"{text[:-1]}, and would not have {', '.join(sorted(refused))}."
                answer = "; ".join(refused.values())
        except ValueError as exc:
            outcome, text = Outcome(error="request_invalid"), f"The mail cannot be written: {exc}."
        except MailError as exc:
            outcome, text, answer = Outcome(exc.status, exc.error), str(exc), exc.answer
        us = round((time.monotonic() - began) * 1e6)
        return Attempted(at_us, us, outcome, text, answer[:MAX_ANSWER], f"MAIL {', '.join(to)}")


def _addressed(subscription: Subscription, told: Sequence[Told]) -> list[str]:
    """To whom the mail goes: those whom the subscription names, unless it is an alert that says so itself."""
    said = told[0].said
    if is_alert(subscription.id) and isinstance(said, Notice) and said.notify:
        # Some were registered when more was taken for an address: they keep it from none of the others.
        return [address for address in said.notify if is_mail_address(address)]
    return list(subscription.definition.mail.addresses)


def _refused(recipients: Sequence[aiosmtplib.SMTPRecipientRefused]) -> MailError:
    """All of them were: for good, or, where any was only put off, for now."""
    said = "; ".join(f"{one.code} {one.message}" for one in recipients)
    for_now = any(one.code < 500 for one in recipients)
    addresses = ", ".join(one.recipient for one in recipients)
    text = f"The mail server would not have {addresses}{' for now' if for_now else ''}."
    return MailError("mail_put_off" if for_now else "mail_refused", text, answer=said)


def _answered(exc: aiosmtplib.SMTPResponseException) -> MailError:
    """It answered with a failure that is of no recipient."""
    said = f"{exc.code} {exc.message}"
    if isinstance(exc, aiosmtplib.SMTPDataError) and exc.code >= 500:
        return MailError("mail_refused", f"The mail server would not have the mail: it answered {exc.code}.", 0, said)
    return MailError("mail_server_refused", f"The mail server refused Backhaul: it answered {exc.code}.", 0, said)
