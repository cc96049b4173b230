"""Settings of the console, and of who vouches there for the people of the platform team."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self
from urllib.parse import urlsplit

from backhaul_common.settings import Settings
from backhaul_console import OpenId
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from backhaul_gateway.admission.principal import ROLES

_AT_HOME = ("127.0.0.1", "localhost", "::1")


class ConsoleSettings(Settings):
    """Each field's variable is its name in capitals behind ``BACKHAUL_``."""

    gateway_console: bool = Field(True, description="Whether /console is there: the API in a browser.")
    gateway_console_base_url: str = Field(
        "",
        description="How browsers address the console's host, for example https://backhaul.internal.example.com, where "
        "it is not the public base URL: an OpenID provider sends them back there.",
    )
    gateway_console_admin_tokens: bool = Field(
        True,
        description="Whether the console takes admin tokens. The API does all the same.",
    )
    gateway_console_oidc_issuer: str = Field(
        "",
        description="The OpenID provider that vouches for people of the platform team, as it names itself, for example "
        "https://accounts.example.com. Empty: nobody signs in by one.",
    )
    gateway_console_oidc_client_id: str = Field("", description="As whom the provider knows the console.")
    gateway_console_oidc_client_secret: SecretStr = Field(
        SecretStr(""), description="What the provider gave for that client."
    )
    gateway_console_oidc_roles: Annotated[Mapping[str, str], NoDecode] = Field(
        {},
        description="Which role whom has, comma-separated, each <value of the claim>=<role>, for example "
        "backhaul-operators=operator,helpdesk=support. Who has none of them is not let in; of several roles operator "
        "goes before support, and support before auditor.",
    )
    gateway_console_oidc_claim: str = Field(
        "groups",
        min_length=1,
        description="The claim of the ID token with these values: a text, or a list. a.b is the b of an object a.",
    )
    gateway_console_oidc_scopes: str = Field(
        "openid profile email",
        pattern=r"^openid( \S+)*$",
        description="What the provider is asked for, space-separated. Some need groups as well.",
    )

    @field_validator("gateway_console_base_url", "gateway_console_oidc_issuer")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _AT_HOME)
        if not safe or not parts.hostname or parts.query or parts.fragment or "@" in value or not value.isprintable():
            raise ValueError("must be like https://accounts.example.com: https, a host, and no query")
        return value

    @field_validator("gateway_console_oidc_roles", mode="before")
    @classmethod
    def _role_of_each(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        roles = {}
        for number, part in enumerate((part.strip() for part in value.split(",") if part.strip()), 1):
            name, _, role = part.rpartition("=")
            if not name or role not in ROLES:
                raise ValueError(f"part {number} must be <value>=<role>; roles are {', '.join(ROLES)}")
            roles[name] = role
        return roles

    @model_validator(mode="after")
    def _openid_is_whole(self) -> Self:
        given = [
            self.gateway_console_oidc_client_id,
            self.gateway_console_oidc_client_secret.get_secret_value(),
            self.gateway_console_oidc_roles,
        ]
        if self.gateway_console_oidc_issuer and not all(given):
            raise ValueError(
                "BACKHAUL_GATEWAY_CONSOLE_OIDC_ISSUER needs _OIDC_CLIENT_ID, _OIDC_CLIENT_SECRET and _OIDC_ROLES too"
            )
        if not self.gateway_console_admin_tokens and not self.gateway_console_oidc_issuer:
            raise ValueError(
                "BACKHAUL_GATEWAY_CONSOLE_ADMIN_TOKENS is false: set BACKHAUL_GATEWAY_CONSOLE_OIDC_ISSUER, or nobody "
                "of the platform team can sign in"
            )
        return self

    def openid(self, public_base_url: str) -> OpenId | None:
        """What is agreed with the provider; None where there is none."""
        if not self.gateway_console_oidc_issuer:
            return None
        return OpenId(
            issuer=self.gateway_console_oidc_issuer,
            client_id=self.gateway_console_oidc_client_id,
            client_secret=self.gateway_console_oidc_client_secret.get_secret_value(),
            base_url=(self.gateway_console_base_url or public_base_url).rstrip("/"),
            roles=self.gateway_console_oidc_roles,
            claim=self.gateway_console_oidc_claim,
            scopes=self.gateway_console_oidc_scopes,
        )
