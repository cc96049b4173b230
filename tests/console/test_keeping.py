"""Forms whose visitors could lose what is there: a secret, or what somebody else has changed since it was shown."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulators.people import Town
    from simulators.visiting import Visitor


async def test_another_secret_alone_does_not_take_the_place_of_the_valid_one(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    edit = f"/console/t/{tenant.id}/channels/Twilio/edit"
    await tenant.client.put_channel("Twilio", secrets=["valid", "older"])
    await visitor.sign_in(tenant.api_key)
    await visitor.go(edit)
    another: dict[str, Any] = {"secrets[1]": "another"}
    await visitor.submit("/edit", **another)
    assert visitor.status == 422
    wrong = visitor.page.select_one('[aria-invalid="true"]')
    assert wrong is not None
    assert wrong["name"] == "secrets[0]"
    assert (await tenant.client.channel("Twilio")).secret_count == 2
    # Nothing typed, nothing changes.
    await visitor.go(edit)
    await visitor.submit("/edit")
    assert (await tenant.client.channel("Twilio")).secret_count == 2
    await visitor.go(edit)
    await visitor.submit("/edit", None, **another, **{"secrets[0]": "valid"})
    assert visitor.status == 200
    assert (await tenant.client.channel("Twilio")).secret_count == 2


async def test_a_channels_settings_stay_as_somebody_else_has_changed_them(town: Town, visitor: Visitor) -> None:
    tenant = await town.platform.register()
    edit = f"/console/t/{tenant.id}/channels/Twilio/edit"
    await visitor.sign_in(tenant.api_key)
    await visitor.go(edit)
    await tenant.client.put_channel("Twilio", settings={"communication_keys": ["campaign"]})
    secret: dict[str, Any] = {"secrets[0]": "new"}
    await visitor.submit("/edit", **secret)
    assert visitor.status == 200
    assert (await tenant.client.channel("Twilio")).settings == {"communication_keys": ["campaign"]}
    # A form that is refused meanwhile still knows what it showed.
    await visitor.go(edit)
    await tenant.client.put_channel("Twilio", settings={"communication_keys": ["spring"]})
    broken: dict[str, Any] = {"secrets[0]": "{"}
    await visitor.submit("/edit", **broken)
    assert visitor.status == 422
    await visitor.submit("/edit", **secret)
    assert (await tenant.client.channel("Twilio")).settings == {"communication_keys": ["spring"]}
    await visitor.go(edit)
    emptied: dict[str, Any] = {"settings.communication_keys": ""}
    await visitor.submit("/edit", **emptied)
    assert (await tenant.client.channel("Twilio")).settings == {}


async def test_a_service_stays_as_somebody_else_has_changed_it(town: Town, visitor: Visitor, admin_token: str) -> None:
    team, id_ = town.platform.client, f"crm-{secrets.token_hex(4)}"
    acme, beta = (await town.platform.register()).id, (await town.platform.register()).id
    names = [f"{id_}.example"]
    await team.create_service(id_, name="CRM", tenants=[acme], verbs=["check", "read"], certificates=names)
    await visitor.sign_in(admin_token)
    await visitor.go(f"/console/admin/services/{id_}/settings")
    await team.change_service(id_, tenants=[beta], verbs=["check"], limits={"burst": 9}, certificates=[])
    await visitor.submit("/settings", name="Customers")
    now = await team.service(id_)
    assert (now.name, now.tenants, now.verbs, now.limits.burst) == ("Customers", (beta,), ("check",), 9)
    assert now.certificates == ()
    # What is typed is changed, a list to nothing as well, also by a form that was refused meanwhile.
    await team.change_service(id_, purposes=["marketing"], certificates=names)
    await visitor.go(f"/console/admin/services/{id_}/settings")
    await visitor.submit("/settings", None, certificates="", **{"limits.burst": "many"})
    assert visitor.status == 422
    await team.change_service(id_, purposes=["transactional"])
    await visitor.submit("/settings", None, **{"limits.burst": "7"})
    now = await team.service(id_)
    assert (now.certificates, now.purposes, now.limits.burst) == ((), ("transactional",), 7)
