"""Callbacks as providers make and sign them, to be tried on a channel. Pure: nothing here asks anything.

What they hold is as the providers' documents say, or, where nothing is published, as the adapter's README guesses. They
share no code with the adapters, which they are held against by a test.
"""

from __future__ import annotations

from collections.abc import Mapping

from backhaul_samples import mapped, rbm, rcs, sendgrid, twilio
from backhaul_samples.provider import Post, Provider, Signing

__all__ = ["PROVIDERS", "Post", "Provider", "Signing", "named"]

PROVIDERS: Mapping[str, Provider] = {
    one.name: one
    for one in (
        twilio.PROVIDER,
        sendgrid.PROVIDER,
        mapped.MPULSE,
        rcs.PROVIDER,
        mapped.OUTBOUND_DELIVERY,
        rbm.PROVIDER,
    )
}


def named(text: str) -> Provider | None:
    """The provider of that name or label, however it is spelled; None where there is none."""
    return next((one for one in PROVIDERS.values() if _squeezed(text) in map(_squeezed, (one.name, one.label))), None)


def _squeezed(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))
