"""Admin tokens by name: each role opens the routes that the table gives it, and nothing else."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import pytest
from backhaul_gateway.admission.access import ROUTES
from backhaul_gateway.admission.admins import AdminToken, AdminTokens, admin_tokens
from backhaul_gateway.admission.principal import ROLE_BITS, ROLES, Principal
from backhaul_gateway.settings import GatewaySettings
from backhaul_local.nats_server import NatsServer
from cryptography.fernet import Fernet
from gateway_rig import ADMIN_TOKEN, GatewayFactory

TOKENS = {role: f"token-of-{role}-0123456789" for role in ROLES}
PART = re.compile(r"\{\w+\}")
VALID: dict[str, Any] = {"gateway_admin_token": "x" * 16, "secret_keys": Fernet.generate_key().decode()}
READ_BY_ALL = "/admin/v1/tenants"


def hashed(token: str) -> str:
    return sha256(token.encode()).hexdigest()


async def test_each_role_on_each_route(gateway_factory: GatewayFactory, fresh_nats: NatsServer) -> None:
    named = ", ".join(f"{role}-1:{role}:{hashed(token)}" for role, token in TOKENS.items())
    async with gateway_factory(fresh_nats.uri, gateway_admin_tokens=named) as gateway:
        await gateway.tenant()
        found = {(method, route.path_format) for route in gateway.routes for method in route.methods or ()}
        for method, path in found:
            route = f"{method} {path}"
            if (rule := ROUTES[route]).by != "admin":
                continue
            # A support that could change something could make itself a key.
            assert method == "GET" or rule.bits == ROLE_BITS["operator"], route
            for role, token in TOKENS.items():
                answer = await gateway.client.request(
                    method, PART.sub("x", path), headers={"Authorization": f"Bearer {token}"}
                )
                if rule.bits & ROLE_BITS[role]:
                    assert answer.status_code not in (401, 403), (route, role, answer.text)
                else:
                    refused = gateway.problem(answer, 403, "Authorization")
                    assert f"{role}-1" in refused["detail"]
                    assert "operator" in refused["detail"]
        # The first token stays what it was; what is unknown, or opens other doors, opens nothing.
        assert (await gateway.client.get(READ_BY_ALL, headers=gateway.admin)).status_code == 200
        for wrong in (hashed(ADMIN_TOKEN), hashed(TOKENS["operator"]), "x"):
            headers = {"Authorization": f"Bearer {wrong}"}
            gateway.problem(await gateway.client.get(READ_BY_ALL, headers=headers), 401)
        # Nobody's role opens what is a tenant's.
        headers = {"Authorization": f"Bearer {TOKENS['operator']}"}
        gateway.problem(await gateway.client.get("/v1/messages", headers=headers), 401)


def test_whose_token_it_is() -> None:
    admins = AdminTokens("first-token-0123456789", [AdminToken("ana", "support", hashed("second"))])

    def of(*values: bytes) -> Principal | None:
        return admins.of([(b"x-other", b"Bearer second"), *((b"authorization", value) for value in values)])

    assert of(b"Bearer first-token-0123456789") == Principal.admin("admin", "operator")
    found = of(b"bearer  second ")
    assert found == Principal.admin("ana", "support")
    assert found.author == "admin:ana"
    for none in ((), (b"Bearer",), (b"second",), (b"Basic second",), (b"Bearer second", b"Bearer second"), (b"",)):
        assert of(*none) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ana", "token 1 must be"),
        (f"ana:operator:{'0' * 63}", "token 1 must be"),
        (f"Ana:operator:{'0' * 64}", "token 1 must be"),
        (f"ana:root:{'0' * 64}", "roles are operator, support, auditor"),
        (f"ana:support:{'0' * 64},ana:support:{'1' * 64}", "same name"),
        (f"ana:support:{'0' * 64},bob:support:{'0' * 64}", "same hash"),
        (f"admin:support:{'0' * 64}", "BACKHAUL_GATEWAY_ADMIN_TOKEN"),
        (f"ana:support:{hashed('x' * 16)}", "BACKHAUL_GATEWAY_ADMIN_TOKEN"),
    ],
)
def test_a_setting_that_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        GatewaySettings(**{**VALID, "gateway_admin_tokens": text})
    assert "gateway_admin_token" in str(caught.value).lower()


def test_no_token_is_the_default() -> None:
    assert admin_tokens("") == admin_tokens(" , ") == ()
