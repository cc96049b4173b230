"""The refusals that several doors share. Each names the field at fault, and says what to do about it."""

from __future__ import annotations

from backhaul_channels.adapter import Refusal
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.sizes import MAX_HEADER_BYTES, MAX_QUERY_BYTES
from backhaul_common.tenants import Tenant

from backhaul_gateway.admission.door import RefusedError
from backhaul_gateway.web.problems import REPEAT, REQUEST_TIMEOUT, HttpError, not_allowed

METHOD = "POST"
DELETING = "The tenant is being deleted."
LATE_BODY = "The body did not arrive in time."

"""Both bound what is stored: headers are kept with every callback, the query's parameters with each of its events."""


def no_channel(tenant: Tenant, label: str, field: str = "channelLabel") -> BackhaulError:
    """Why a label leads to none of the tenant's channels, and what to do about it. ``label`` is empty where the query
    has none; ``field`` is where the label stands in the request."""
    configured = ", ".join(sorted(channel.label for channel in tenant.channels.values())) or "none yet"
    if not label:
        return BackhaulError(
            Code.INVALID_ARGUMENT,
            f"The query parameter channelLabel is missing. Configured channels: {configured}.",
            field=field,
            fix="Add ?channelLabel=<label of the channel> to the URL.",
        )
    return BackhaulError(
        Code.NOT_FOUND,
        f"The tenant has no channel {label[:100]!r}. Configured channels: {configured}.",
        field=field,
        fix="Use one of the configured labels, or PUT the channel first.",
    )


def not_active(tenant: Tenant) -> BackhaulError:
    """Why a tenant may do nothing, although its credential is right: it is suspended, or being deleted."""
    if tenant.status == "deleting":
        return BackhaulError(
            Code.FORBIDDEN,
            DELETING,
            fix="Stop calling, and take its addresses out of the providers' settings: a deletion cannot be taken back.",
        )
    return BackhaulError(Code.FORBIDDEN, f"The tenant is {tenant.status}.", fix="Ask the platform team to activate it.")


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
    return RefusedError(
        refusal.code,
        Code.FORBIDDEN,
        refusal.detail,
        field="signature",
        fix="Check the channel's secrets and the public base URL, or set its verification to observe meanwhile.",
    )


def body_timeout() -> HttpError:
    """The body took too long to arrive."""
    return HttpError(REQUEST_TIMEOUT, LATE_BODY, field="body", fix=REPEAT, outcome="body_timeout")


def method_not_allowed(method: str) -> HttpError:
    """A callback's address was asked for with another method than ``METHOD``."""
    return not_allowed(f"Callbacks are posted; this was {method[:20]}.", METHOD)
