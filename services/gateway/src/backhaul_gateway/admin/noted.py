"""What the log of changes shows of tenants and service accounts: what the API shows of them, which has no secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backhaul_common.accounts import ServiceAccount
from backhaul_common.documents import Document
from backhaul_common.names import channel_key
from backhaul_common.tenants import Credential, Tenant

from backhaul_gateway.admin.addresses import Addresses
from backhaul_gateway.admin.channelmodels import ChannelOut
from backhaul_gateway.admin.models import KeyOut, TenantOut
from backhaul_gateway.admin.servicemodels import ServiceOut
from backhaul_gateway.admission.entries import Sides


def sides_of(addresses: Addresses) -> Mapping[str, Sides]:
    """How a change of each kind is shown, that is ``stored`` here."""

    def tenant(before: Tenant | None, after: Tenant | None, _: Mapping[str, Any]) -> tuple[Document | None, ...]:
        # Channels are changed by routes of their own, and there may be a hundred.
        return tuple(
            TenantOut.of(one, addresses).model_dump(mode="json", exclude={"channels"}) if one is not None else None
            for one in (before, after)
        )

    def channel(before: Tenant | None, after: Tenant | None, parts: Mapping[str, Any]) -> tuple[Document | None, ...]:
        key = channel_key(str(parts.get("label", "")))
        found = [one.channels.get(key) if one is not None else None for one in (before, after)]
        return tuple(
            ChannelOut.of(one, addresses).model_dump(mode="json") if one is not None else None for one in found
        )

    return {"tenant": tenant, "channel": channel, "key": _key, "service": _service, "token": _service}


def _key(before: Tenant | None, after: Tenant | None, _: Mapping[str, Any]) -> tuple[Document | None, ...]:
    """The key that was added or removed: it is in one of them."""
    olds, news = (
        {credential.id: credential for credential in one.credentials} if one is not None else {}
        for one in (before, after)
    )
    return _shown([olds[id_] for id_ in olds if id_ not in news]), _shown(
        [news[id_] for id_ in news if id_ not in olds]
    )


def _shown(found: list[Credential]) -> Document | None:
    return KeyOut.of(found[0]).model_dump(mode="json") if found else None


def _service(
    before: ServiceAccount | None, after: ServiceAccount | None, _: Mapping[str, Any]
) -> tuple[Document | None, ...]:
    return tuple(ServiceOut.of(one).model_dump(mode="json") if one is not None else None for one in (before, after))
