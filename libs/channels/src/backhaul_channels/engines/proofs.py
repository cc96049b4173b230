"""Proofs that several providers share: a name and a password, and all of what a channel has configured."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backhaul_channels.adapter import InvalidSecretError, RawCallback, Refusal, Verifier

_Model = TypeVar("_Model", bound=BaseModel)

AUTHORIZATION = b"authorization"

_NO_CREDENTIALS = Refusal("credentials_missing", "The request carries no Authorization header of the scheme Basic.")
_WRONG_CREDENTIALS = Refusal("credentials_invalid", "Name and password are none of the channel's.")


class BasicSecret(BaseModel):
    """A name and a password, as the scheme Basic has them (RFC 7617)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    username: str = Field(min_length=1, max_length=256, pattern=r"^[^:\x00-\x1f\x7f]+$")
    password: str = Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]+$")


def any_equal(expected: Iterable[bytes], told: bytes) -> bool:
    """Whether ``told`` is one of ``expected``. All are compared, so that the time tells nothing of which one it is."""
    matches = [hmac.compare_digest(one, told) for one in expected]
    return any(matches)


def authorization_of(callback: RawCallback) -> tuple[bytes, bytes]:
    """(scheme in lower case, what is shown by it) of the Authorization header; both are empty where there is none."""
    scheme, _, shown = (callback.header(AUTHORIZATION) or b"").partition(b" ")
    return scheme.lower(), shown.strip()


def texts_of(secrets: Sequence[str]) -> list[str]:
    """Those of ``secrets`` that are texts, without blank ones."""
    return [secret for secret in secrets if secret.strip() and not _is_object(secret)]


def objects_of(secrets: Sequence[str], model: type[_Model]) -> list[_Model]:
    """Those of ``secrets`` that have several parts. InvalidSecretError, which repeats nothing of them."""
    found = []
    for secret in secrets:
        if not _is_object(secret):
            continue
        try:
            found.append(model.model_validate_json(secret))
        except ValidationError as exc:
            names = sorted({str(error["loc"][0]) for error in exc.errors() if error["loc"]})
            raise InvalidSecretError(
                f"The secret needs {', '.join(sorted(model.model_fields))} and nothing else; look at "
                f"{', '.join(names) or 'its JSON'}."
            ) from None
    return found


def optional_basic(secrets: Sequence[str]) -> BasicVerifier | None:
    """What a provider that signs nothing is asked for, where a channel has names and passwords; None where it has none.

    InvalidSecretError for a text, which could prove nothing.
    """
    if texts_of(secrets):
        raise InvalidSecretError(
            "The provider signs nothing, so a text proves nothing. Give username and password, which it then must "
            "show, or leave secrets empty: the tenant's API key or ingest token is the proof."
        )
    passwords = objects_of(secrets, BasicSecret)
    return BasicVerifier(passwords) if passwords else None


def _is_object(secret: str) -> bool:
    return secret.lstrip()[:1] == "{"


class BasicVerifier:
    """Asks for any of ``secrets`` by the scheme Basic. They are at least one."""

    __slots__ = ("_expected",)

    def __init__(self, secrets: Sequence[BasicSecret]) -> None:
        self._expected = [b64encode(f"{one.username}:{one.password}".encode()) for one in secrets]

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        scheme, told = authorization_of(callback)
        if scheme != b"basic":
            return _NO_CREDENTIALS
        return None if any_equal(self._expected, told) else _WRONG_CREDENTIALS


class AllOf:
    """Every one of ``verifiers`` must hold; the first that does not says why. They are at least one."""

    __slots__ = ("_verifiers",)

    def __init__(self, verifiers: Sequence[Verifier]) -> None:
        self._verifiers = tuple(verifiers)

    def verify(self, callback: RawCallback) -> Refusal | None:
        """None when authentic. Never raises."""
        for verifier in self._verifiers:
            refusal = verifier.verify(callback)
            if refusal is not None:
                return refusal
        return None
