"""The refusals of requests by what HTTP brought. Each names the field at fault, and says what to do about it."""

from __future__ import annotations

from backhaul_channels.adapter import Refusal
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.sizes import MAX_HEADER_BYTES, MAX_QUERY_BYTES

from backhaul_gateway.admission.door import RefusedError
from backhaul_gateway.web.problems import REPEAT, REQUEST_TIMEOUT, HttpError, not_allowed

METHOD = "POST"
LATE_BODY = "The body did not arrive in time."

_MEANWHILE = "set the channel's verification to observe meanwhile"
_SIGNATURE = (
    "signature",
    "Check the channel's secrets and, where its provider signs the address, the public base URL",
)
_PASSWORD = ("Authorization", "Give the provider a name and a password that the channel has")
_TOKEN = ("Authorization", "Give the provider the channel's token_url, and a client id and secret that the channel has")
_WANTING = {
    "secret_missing": ("secrets", "PUT the channel with a secret that proves its provider's requests"),
    "secret_unreadable": ("secrets", "PUT the channel with its secrets again"),
    "credentials_missing": _PASSWORD,
    "credentials_invalid": _PASSWORD,
    "token_missing": _TOKEN,
    "token_invalid": _TOKEN,
    "token_expired": _TOKEN,
}
"""The field at fault, and what to do about it, by the refusal's code; all others are about a signature."""


def query_too_long() -> BackhaulError:
    """The query of a callback is longer than ``MAX_QUERY_BYTES``."""
    return BackhaulError(
        Code.TOO_LARGE,
        f"The query is longer than {MAX_QUERY_BYTES} bytes.",
        field="query",
        fix="Put fewer or shorter custom parameters into the URL.",
    )


def headers_too_large() -> BackhaulError:
    """The headers of a request are larger than ``MAX_HEADER_BYTES``."""
    return BackhaulError(
        Code.TOO_LARGE,
        f"The headers are larger than {MAX_HEADER_BYTES} bytes.",
        field="headers",
        fix="Send fewer or shorter headers; look whether a proxy adds them.",
    )


def unverified(refusal: Refusal) -> RefusedError:
    """Why a channel's verification refuses a request."""
    if refusal.too_large:
        return RefusedError(
            refusal.code,
            Code.TOO_LARGE,
            refusal.detail,
            field="body",
            fix="Look who sends it. A channel whose verification is observe takes it, unverified.",
        )
    field, fix = _WANTING.get(refusal.code, _SIGNATURE)
    return RefusedError(refusal.code, Code.FORBIDDEN, refusal.detail, field=field, fix=f"{fix}, or {_MEANWHILE}.")


def body_timeout() -> HttpError:
    """The body took too long to arrive."""
    return HttpError(REQUEST_TIMEOUT, LATE_BODY, field="body", fix=REPEAT, outcome="body_timeout")


def method_not_allowed(method: str) -> HttpError:
    """A callback's address was asked for with another method than ``METHOD``."""
    return not_allowed(f"Callbacks are posted; this was {method[:20]}.", METHOD)
