"""By what Twilio's API is asked."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from backhaul_channels.pull import PullCredentials

# https://www.twilio.com/docs/global-infrastructure/using-the-twilio-rest-api-in-a-non-us-region: addresses without the
# place in them (api.ie1.twilio.com) have ended in April 2026.
APIS: Final[Mapping[str, str]] = {
    "us1": "https://api.twilio.com",
    "ie1": "https://api.dublin.ie1.twilio.com",
    "au1": "https://api.sydney.au1.twilio.com",
}

US: Final = "us1"


class TwilioCredentials(PullCredentials):
    """One account, or one subaccount, and who may read it: its auth token, or an API key of it. Both are of one region,
    and good for no other."""

    public: ClassVar[frozenset[str]] = frozenset({"account_sid", "api_key_sid", "region"})

    account_sid: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$")
    auth_token: str | None = Field(None, min_length=8, max_length=128, pattern=r"^[!-~]+$", repr=False)
    api_key_sid: str | None = Field(None, pattern=r"^SK[0-9a-fA-F]{32}$")
    api_key_secret: str | None = Field(None, min_length=8, max_length=128, pattern=r"^[!-~]+$", repr=False)
    region: Literal["us1", "ie1", "au1"] = US

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.api_key_sid is None) != (self.api_key_secret is None):
            raise ValueError("An API key has two parts: give api_key_sid and api_key_secret.")
        if (self.auth_token is None) == (self.api_key_sid is None):
            raise ValueError("Give auth_token, or api_key_sid and api_key_secret, and not both.")
        return self

    @property
    def origin(self) -> str:
        """Scheme and host of the region's API."""
        return APIS[self.region]

    def headers(self) -> dict[str, str]:
        """What shows who is asking."""
        basic = f"{self.api_key_sid or self.account_sid}:{self.api_key_secret or self.auth_token}"
        return {"authorization": f"Basic {b64encode(basic.encode()).decode()}"}
