"""What the error codes of SendGrid's events mean. Data, and how it is read.

Codes are enhanced status codes (RFC 3463; the registry lists them), the reply codes of SMTP where a server gives no
other, and words for what no server said: why SendGrid dropped a mail, and what became of the account. The texts are
ours, and the class is our judgement (README.md says by what rule).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from backhaul_channels.event import ErrorClass, ErrorMeaning

_HARD, _SUPPRESS, _TRANSIENT = ErrorClass.HARD, ErrorClass.SUPPRESS, ErrorClass.TRANSIENT
_CARRIER, _CONTENT, _ACCOUNT = ErrorClass.CARRIER, ErrorClass.CONTENT, ErrorClass.ACCOUNT
_OPEN = ErrorClass.UNKNOWN
"""The code alone does not tell."""

REGISTRY = "https://www.iana.org/assignments/smtp-enhanced-status-codes/smtp-enhanced-status-codes.xhtml"
REPLIES_PAGE = "https://www.rfc-editor.org/rfc/rfc5321#section-4.2.3"
EVENTS_PAGE = "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event"

# By subject and detail, which both classes share: the class of what the server says is final, and a text. What is not
# final (4.x.x) is transient, whatever it is about.
STATUSES: Final[Mapping[str, tuple[ErrorClass, str]]] = {
    "0.0": (_OPEN, "The server gave no reason."),
    # Addresses.
    "1.0": (_OPEN, "Something is wrong with an address."),
    "1.1": (_HARD, "There is no such mailbox."),
    "1.2": (_HARD, "The domain does not exist, or takes no mail."),
    "1.3": (_HARD, "The address is malformed."),
    "1.4": (_HARD, "The address may mean several mailboxes."),
    "1.6": (_HARD, "The mailbox has moved, and nobody says where to."),
    "1.7": (_ACCOUNT, "The sender's address is malformed."),
    "1.8": (_ACCOUNT, "The sender's domain does not exist, or takes no mail."),
    "1.10": (_HARD, "The domain declares that it takes no mail."),
    # The mailbox.
    "2.0": (_OPEN, "Something is wrong with the mailbox."),
    "2.1": (_HARD, "The mailbox is disabled."),
    "2.2": (_TRANSIENT, "The mailbox is full."),
    "2.3": (_CONTENT, "The mail is larger than the mailbox takes."),
    "2.4": (_CARRIER, "A mailing list could not be expanded."),
    # The recipient's mail system.
    "3.0": (_CARRIER, "Something is wrong with the recipient's mail system."),
    "3.1": (_TRANSIENT, "The recipient's mail system is full."),
    "3.2": (_CARRIER, "The recipient's mail system takes no mail at present."),
    "3.3": (_CONTENT, "The recipient's mail system lacks a feature that the mail needs."),
    "3.4": (_CONTENT, "The mail is larger than the recipient's mail system takes."),
    "3.5": (_CARRIER, "The recipient's mail system is not set up right."),
    # The way to it.
    "4.0": (_CARRIER, "Something is wrong on the way to the recipient's mail system."),
    "4.1": (_CARRIER, "The recipient's mail system does not answer."),
    "4.2": (_CARRIER, "The connection to the recipient's mail system broke."),
    "4.3": (_CARRIER, "A directory, such as the DNS, did not answer."),
    "4.4": (_CARRIER, "There is no way to the recipient's mail system."),
    "4.5": (_TRANSIENT, "The recipient's mail system is congested."),
    "4.6": (_CARRIER, "The mail went round in a circle."),
    "4.7": (_TRANSIENT, "The mail could not be delivered in time."),
    # The talk between the two servers.
    "5.0": (_CARRIER, "The two mail systems did not understand each other."),
    "5.1": (_CARRIER, "The recipient's mail system knows no such command."),
    "5.2": (_CARRIER, "The recipient's mail system found a command malformed."),
    "5.3": (_TRANSIENT, "The mail had more recipients than are taken at once."),
    "5.4": (_CARRIER, "The recipient's mail system found a command's parameters invalid."),
    "5.5": (_CARRIER, "The two mail systems speak different versions."),
    "5.6": (_CARRIER, "A part of the authentication was too long."),
    # The mail's content.
    "6.0": (_CONTENT, "Something is wrong with the mail's content."),
    "6.1": (_CONTENT, "The mail has a kind of content that is not taken."),
    "6.2": (_CONTENT, "The mail would have to be converted, which it forbids."),
    "6.3": (_CONTENT, "The mail would have to be converted, which nobody on the way can."),
    "6.4": (_CONTENT, "The mail lost something by being converted."),
    "6.5": (_CONTENT, "The mail could not be converted."),
    "6.6": (_CONTENT, "A part of the mail lies elsewhere and could not be read."),
    "6.7": (_CONTENT, "An address has letters beyond ASCII, which are not taken."),
    "6.8": (_CARRIER, "The answer would need letters beyond ASCII, which are not allowed here."),
    "6.9": (_CONTENT, "A header has letters beyond ASCII, which are not taken."),
    # Security and policy.
    "7.0": (_CARRIER, "The recipient's mail system refuses the mail by its policy."),
    "7.1": (_CARRIER, "The recipient's mail system does not take this mail from this sender."),
    "7.2": (_ACCOUNT, "The sender may not write to this mailing list."),
    "7.3": (_CONTENT, "The mail would have to be secured otherwise, which nobody on the way can."),
    "7.4": (_CARRIER, "The recipient's mail system lacks a security feature that the mail asks for."),
    "7.5": (_CARRIER, "The mail could not be deciphered or verified on the way."),
    "7.6": (_CARRIER, "The recipient's mail system lacks a cryptographic algorithm."),
    "7.7": (_CONTENT, "The mail was changed on the way, or its integrity could not be verified."),
    "7.8": (_ACCOUNT, "The sender's credentials are invalid."),
    "7.9": (_ACCOUNT, "The sender's way to authenticate is too weak."),
    "7.10": (_CARRIER, "The recipient's mail system asks for encryption."),
    "7.11": (_ACCOUNT, "The sender's way to authenticate needs encryption."),
    "7.12": (_ACCOUNT, "The sender has to authenticate by a password once more."),
    "7.13": (_ACCOUNT, "The sender's account is disabled."),
    "7.14": (_ACCOUNT, "The sender's system is not trusted here."),
    "7.15": (_TRANSIENT, "The mail's priority is too low at present."),
    "7.16": (_CONTENT, "The mail is too large for its priority."),
    "7.17": (_HARD, "The mailbox belongs to somebody else by now."),
    "7.18": (_HARD, "The domain belongs to somebody else by now."),
    "7.19": (_CARRIER, "Whose the mailbox is could not be found out."),
    "7.20": (_ACCOUNT, "The mail has no DKIM signature that verifies."),
    "7.21": (_ACCOUNT, "The mail has no DKIM signature that is accepted here."),
    "7.22": (_ACCOUNT, "The mail has no DKIM signature of its author's domain."),
    "7.23": (_ACCOUNT, "The sender's domain does not let this server send (SPF)."),
    "7.24": (_ACCOUNT, "The SPF record of the sender's domain could not be read."),
    "7.25": (_ACCOUNT, "The sending address has no name of its own in the DNS."),
    "7.26": (_ACCOUNT, "The mail failed several checks of its sender at once."),
    "7.27": (_ACCOUNT, "The sender's domain declares that it takes no mail."),
    "7.28": (_TRANSIENT, "Too much mail of this kind came at once."),
    "7.29": (_ACCOUNT, "The chain of those who passed the mail on could not be verified (ARC)."),
    "7.30": (_CARRIER, "The way of the mail is not encrypted throughout."),
}

REPLIES: Final[Mapping[str, tuple[ErrorClass, str]]] = {
    "421": (_TRANSIENT, "The recipient's mail system is not available."),
    "450": (_TRANSIENT, "The mailbox is busy, or the sender is asked to come again."),
    "451": (_TRANSIENT, "The recipient's mail system failed internally."),
    "452": (_TRANSIENT, "The recipient's mail system has no room."),
    "454": (_TRANSIENT, "The recipient's mail system cannot encrypt or authenticate at present."),
    "500": (_CARRIER, "The recipient's mail system knows no such command."),
    "501": (_CARRIER, "The recipient's mail system found a command's parameters malformed."),
    "502": (_CARRIER, "The recipient's mail system does not do what it was asked."),
    "503": (_CARRIER, "The recipient's mail system was asked out of turn."),
    "504": (_CARRIER, "The recipient's mail system does not take a command's parameter."),
    "521": (_HARD, "The recipient's host takes no mail."),
    "530": (_ACCOUNT, "The sender has to authenticate."),
    "535": (_ACCOUNT, "The sender's credentials are invalid."),
    "550": (_OPEN, "The mailbox is not available, or the mail is refused by policy."),
    "551": (_HARD, "The recipient is not served here."),
    "552": (_TRANSIENT, "The mailbox is full."),
    "553": (_HARD, "The name of the mailbox is not allowed."),
    "554": (_OPEN, "The recipient's mail system refuses the mail."),
    "555": (_CARRIER, "The recipient's mail system does not take the address's parameters."),
    "556": (_HARD, "The domain declares that it takes no mail."),
}

# What no server said.
WORDS: Final[Mapping[str, tuple[ErrorClass, str]]] = {
    "bounced_address": (_HARD, "The address bounced before, and SendGrid does not try it again."),
    "invalid_address": (_HARD, "The address is malformed, or its domain does not exist."),
    "unsubscribed_address": (_SUPPRESS, "The person unsubscribed."),
    "spam_reporting_address": (_SUPPRESS, "The person reported an earlier mail as spam."),
    "spam_content": (_CONTENT, "SendGrid's spam checker took the mail for spam."),
    "invalid_smtpapi_header": (_CONTENT, "The mail's X-SMTPAPI header is malformed."),
    "over_package_quota": (_ACCOUNT, "The mail had more recipients than the account's plan allows."),
    "blocked": (_TRANSIENT, "The recipient's mail system blocked an earlier mail."),
    "expired": (_TRANSIENT, "The mail could not be delivered in time."),
    "compliance_suspend": (_ACCOUNT, "SendGrid has suspended the account; mail waits, and expires in three days."),
    "compliance_deactivate": (_ACCOUNT, "SendGrid has deactivated the account, and deleted the mail that waited."),
    "compliance_ban": (_ACCOUNT, "SendGrid has banned the account."),
}

_STATUS = re.compile(r"([45])\.([0-9]{1,3})\.([0-9]{1,3})", re.ASCII)
_REPLY = re.compile(r"[45][0-9]{2}", re.ASCII)
_LATER = "The recipient's mail system asks to come again later."
_REFUSED = "The recipient's mail system refuses the mail."


@lru_cache(maxsize=1024)
def explain(code: str) -> ErrorMeaning | None:
    """What ``code`` means. A detail that the registry does not have means what its subject means."""
    if (known := WORDS.get(code)) is not None:
        return ErrorMeaning(known[1], known[0], EVENTS_PAGE)
    if (match := _STATUS.fullmatch(code)) is not None:
        final, subject, detail = match[1] == "5", int(match[2]), int(match[3])
        found = STATUSES.get(f"{subject}.{detail}") or STATUSES.get(f"{subject}.0")
        return _meaning(final, found, REGISTRY)
    if _REPLY.fullmatch(code) is not None:
        return _meaning(code[0] == "5", REPLIES.get(code), REPLIES_PAGE)
    return None


def _meaning(final: bool, found: tuple[ErrorClass, str] | None, url: str) -> ErrorMeaning:
    error_class, text = found or (_OPEN, _REFUSED if final else _LATER)
    return ErrorMeaning(text, error_class if final else _TRANSIENT, url)
