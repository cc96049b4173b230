"""Provider adapters: verify, split and normalise callbacks. One folder a provider, discovered by itself."""

from backhaul_channels.adapter import (
    Adapter,
    Answer,
    ChannelSettings,
    Context,
    EventKind,
    Ignored,
    InvalidSecretError,
    MalformedError,
    NormalizedEvent,
    Proof,
    RawCallback,
    Refusal,
    Source,
    Verifier,
)
from backhaul_channels.registry import MalformedAdapterError, load_adapters

__all__ = [
    "Adapter",
    "Answer",
    "ChannelSettings",
    "Context",
    "EventKind",
    "Ignored",
    "InvalidSecretError",
    "MalformedAdapterError",
    "MalformedError",
    "NormalizedEvent",
    "Proof",
    "RawCallback",
    "Refusal",
    "Source",
    "Verifier",
    "load_adapters",
]
