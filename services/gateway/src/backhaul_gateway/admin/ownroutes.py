"""``/v1/keys`` and ``/v1/channels``: what a tenant manages of its own, by a key of the scope ``manage``."""

from __future__ import annotations

from functools import partial
from typing import Any

from backhaul_common.tenants import Channel
from fastapi import APIRouter, Depends, Response

from backhaul_gateway.admin.abandoned import refuse_abandoned
from backhaul_gateway.admin.addresses import Addresses
from backhaul_gateway.admin.channelmodels import ChannelIn, ChannelList, ChannelOut
from backhaul_gateway.admin.channels import ChannelRegistry, found_channel
from backhaul_gateway.admin.models import IssuedKeyOut, KeyIn, KeyList, KeyOut
from backhaul_gateway.admin.own import OwnChannels, OwnKeys
from backhaul_gateway.admin.tenants import TenantRegistry
from backhaul_gateway.web.guard import Asking
from backhaul_gateway.web.openapi import problems


class OwnRoutes:
    """A tenant's own keys and channels. Whose they are says the key by which it asks."""

    def __init__(self, registry: TenantRegistry, channels: ChannelRegistry, addresses: Addresses) -> None:
        self._keys = OwnKeys(registry)
        self._channels = OwnChannels(channels)
        self._addresses = addresses

    def added_to(self, router: APIRouter) -> APIRouter:
        """``router`` with each method below under its path."""
        get = partial(router.add_api_route, methods=["GET"])
        add = partial(router.add_api_route, dependencies=[Depends(refuse_abandoned)])
        keys, key, channels, channel = "/keys", "/keys/{key_id}", "/channels", "/channels/{label}"
        created: dict[int | str, dict[str, Any]] = {201: {"model": ChannelOut, "description": "Created"}}
        get(keys, self.list_keys)
        add(keys, self.add_key, methods=["POST"], status_code=201, responses=problems(400, 409, 413))
        add(key, self.delete_key, methods=["DELETE"], status_code=204, responses=problems(404, 409))
        get(channels, self.list_channels)
        get(channel, self.get_channel, responses=problems(404))
        add(channel, self.put_channel, methods=["PUT"], responses={**created, **problems(400, 409, 413)})
        add(channel, self.delete_channel, methods=["DELETE"], status_code=204, responses=problems(404, 409))
        return router

    async def list_keys(self, by: Asking) -> KeyList:
        """The tenant's API keys and ingest tokens, without their texts."""
        tenant = await self._keys.tenant(by)
        return KeyList(keys=[KeyOut.of(credential) for credential in tenant.credentials])

    async def add_key(self, by: Asking, body: KeyIn | None = None) -> IssuedKeyOut:
        """One more API key or ingest token. Its text is in this answer and nowhere else. It opens no more than the key
        by which it is asked for, and no longer; left out, scopes and expiry are that key's."""
        tenant, issued = await self._keys.add(by, (body or KeyIn()).wanted())
        return IssuedKeyOut.issued(issued, tenant, self._addresses)

    async def delete_key(self, by: Asking, key_id: str) -> None:
        """Revoke a key or token. 409 for the last key that manages."""
        await self._keys.remove(by, key_id)

    async def list_channels(self, by: Asking) -> ChannelList:
        """The tenant's channels."""
        channels = (await self._keys.tenant(by)).channels
        return ChannelList(channels=[self._shown(channels[key]) for key in sorted(channels)])

    async def get_channel(self, by: Asking, label: str) -> ChannelOut:
        """One channel, without its secrets."""
        return self._shown(found_channel(await self._keys.tenant(by), label))

    async def put_channel(self, by: Asking, label: str, body: ChannelIn, response: Response) -> ChannelOut:
        """Create a channel, or change its configuration. What is left out stays as it is: provider, secrets, settings,
        verification, processing. An empty list or object resets. A bucket of its own only the platform team gives."""
        channel, created = await self._channels.put(by, body.request(label))
        response.status_code = 201 if created else 200
        return self._shown(channel)

    async def delete_channel(self, by: Asking, label: str) -> None:
        """Remove a channel. What it brought stays."""
        await self._channels.delete(by, label)

    def _shown(self, channel: Channel) -> ChannelOut:
        return ChannelOut.of(channel, self._addresses)
