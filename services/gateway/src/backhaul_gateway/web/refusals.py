"""What a caller that is refused is told: which part of it is at fault, and what to do about it."""

from __future__ import annotations

from backhaul_channels.adapter import Refusal
from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.tenants import Tenant

from backhaul_gateway.web.problems import MEDIA_TYPE, document

METHOD = "POST"

MOST_HEADER_BYTES = 16 << 10
MOST_QUERY_BYTES = 4 << 10
"""Headers are kept with every callback, and the query's parameters with every event that it brings."""

Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]
"""Status, body and headers."""


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
    """Why a tenant that is known may do nothing."""
    if tenant.status == "deleting":
        return BackhaulError(
            Code.FORBIDDEN,
            "The tenant is being deleted.",
            fix="Stop calling, and take its addresses out of the providers' settings: a deletion cannot be taken back.",
        )
    return BackhaulError(Code.FORBIDDEN, f"The tenant is {tenant.status}.", fix="Ask the platform team to activate it.")


def too_long(query: bytes) -> BackhaulError:
    """The query or else the headers are longer than is kept of them."""
    if len(query) > MOST_QUERY_BYTES:
        message, field = f"The query is longer than {MOST_QUERY_BYTES} bytes.", "query"
        fix = "Put fewer or shorter custom parameters into the URL."
    else:
        message, field = f"The headers are larger than {MOST_HEADER_BYTES} bytes.", "headers"
        fix = "Send fewer or shorter headers; look whether a proxy adds them."
    return BackhaulError(Code.TOO_LARGE, message, field=field, fix=fix)


def unverified(refusal: Refusal) -> BackhaulError:
    """Why a channel's verification refuses a request."""
    if refusal.too_large:
        return BackhaulError(
            Code.TOO_LARGE,
            refusal.detail,
            field="body",
            fix="Look who sends it. A channel whose verification is observe takes it, unverified.",
        )
    return BackhaulError(
        Code.FORBIDDEN,
        refusal.detail,
        field="signature",
        fix="Check the channel's secrets and the public base URL, or set its verification to observe meanwhile.",
    )


def body_timeout(trace_id: str) -> Answer:
    """The body took too long to arrive."""
    detail = "The body did not arrive in time."
    errors = [Violation("body", detail, "Repeat the request.")]
    body = document(408, "request_timeout", "The request took too long", detail, errors, trace_id)
    # What would still come on this connection belongs to a request that is over.
    return 408, body, [(b"content-type", MEDIA_TYPE.encode()), (b"connection", b"close")]


def method_not_allowed(method: str, trace_id: str) -> Answer:
    """The request is no POST."""
    detail = f"Callbacks are posted; this was {method[:20]}."
    body = document(
        405,
        "method_not_allowed",
        "The method is not allowed here",
        detail,
        [Violation("", detail, "Use POST.")],
        trace_id,
    )
    return 405, body, [(b"content-type", MEDIA_TYPE.encode()), (b"allow", METHOD.encode())]
