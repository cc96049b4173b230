"""What "NATS is away" is: decided here for everybody who talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nats.errors import BadHeaderError, BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from backhaul_common.errors import unavailable

AWAY = (NatsError, OSError)
"""What is raised when NATS is away, or says that it cannot now. The broker's own errors and its refusals are all
``nats.errors.Error``; a time-out and a lost connection are ``OSError``."""

_NEVER_PASSES = (
    MaxPayloadError,
    BadSubjectError,
    BadHeaderError,
    # Of files: no connection raises them.
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)


def is_away(exc: BaseException) -> bool:
    """Whether ``exc`` says that NATS or JetStream is away, slow or full: the same call may succeed later, unchanged."""
    return isinstance(exc, AWAY) and not isinstance(exc, _NEVER_PASSES)


@asynccontextmanager
async def translated(what: str = "JetStream") -> AsyncIterator[None]:
    """Turns "NATS is away" into UNAVAILABLE; lets every other error through, and NotFoundError, which is an answer."""
    try:
        yield
    except NotFoundError:
        raise
    except AWAY as exc:
        if is_away(exc):
            raise unavailable(what) from exc
        raise
