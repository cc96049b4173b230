"""Which address a text is."""

from __future__ import annotations

from backhaul_channels.addresses import canonical
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.tenants import SuppressionSettings

from backhaul_suppression.model import Address, Family


def address_of(registration: str, text: str, family: Family | None = None) -> Address:
    """The address that somebody asks about, whose family is told by the text where none is named.

    Raises BackhaulError INVALID_ARGUMENT, of the field ``address``, for what is no address of the family.
    """
    if not text:
        raise BackhaulError(Code.INVALID_ARGUMENT, "address is missing.", field="address", fix="Name an address.")
    kept = canonical(text)
    return Address(registration, family or (Family.EMAIL if "@" in kept else Family.PHONE), kept)


def sender_of(text: str) -> str:
    """A sender's, a messaging service's or a group's id as scopes and ``Sending`` have it. Never raises."""
    return canonical(text)


def spellings(address: Address, settings: SuppressionSettings) -> tuple[Address, ...]:
    """``address`` first, and every other one about which the same words are said: of a number that of WhatsApp and the
    other way round, where the tenant's setting takes them for one."""
    if settings.whatsapp != "phone" or address.family is not Family.PHONE:
        return (address,)
    channel, _, number = address.text.rpartition(":")
    if channel not in ("", "whatsapp") or not number.startswith("+"):
        return (address,)
    return (address, address._replace(text=number if channel else f"whatsapp:{number}"))
