"""Provider adapters: verify, split and normalise callbacks. One folder a provider, discovered by itself."""

from backhaul_channels.adapter import (
    Adapter,
    Answer,
    ChannelSettings,
    EventKind,
    InvalidSecretError,
    MalformedError,
    NormalizedEvent,
    RawCallback,
    Refusal,
    Verifier,
)
from backhaul_channels.registry import MalformedAdapterError, load_adapters

__all__ = [
    "Adapter",
    "Answer",
    "ChannelSettings",
    "EventKind",
    "InvalidSecretError",
    "MalformedAdapterError",
    "MalformedError",
    "NormalizedEvent",
    "RawCallback",
    "Refusal",
    "Verifier",
    "load_adapters",
]
