"""Forms whose visitors could lose what is there: a secret, or what somebody else has changed since it was shown."""

from __future__ import annotations

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
