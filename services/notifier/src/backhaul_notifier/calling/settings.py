"""Settings of calls, for the service's own to derive from."""

from __future__ import annotations

from typing import Literal

from backhaul_common.mailaddresses import is_mail_address
from backhaul_common.settings import Settings
from pydantic import Field, FilePath, SecretStr, field_validator


class MailSettings(Settings):
    """Read from ``BACKHAUL_…``; without a server there is no mail."""

    notifier_smtp_host: str = Field("", description="The SMTP server by which mail leaves; empty: none is sent.")
    notifier_smtp_port: int = Field(587, ge=1, le=65535, description="Its port.")
    notifier_smtp_user: str = Field("", description="The name to log in with; empty: Backhaul does not log in.")
    notifier_smtp_password: SecretStr = Field(SecretStr(""), description="Its password.")
    notifier_smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="starttls: nothing is said before TLS is agreed on; tls: from the first byte; none."
    )
    notifier_smtp_ca_file: FilePath | None = Field(
        None, description="The authorities whose certificates the server may have, PEM; empty: those of the system."
    )
    notifier_smtp_timeout_s: float = Field(60.0, gt=0, le=300, description="How long sending one mail may take.")
    notifier_smtp_connections: int = Field(4, ge=1, le=100, description="Mails that are sent at once.")
    notifier_mail_from: str = Field("backhaul@localhost", description="The address that mail is from.")

    @field_validator("notifier_mail_from")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not is_mail_address(value, dotted=False):
            raise ValueError("must be a mail address alone, such as backhaul@example.com")
        return value
