"""``/admin/v1/tenants/{id}/suppressions``: what the operator has suppressed."""

from __future__ import annotations

from typing import Any

from backhaul_common.errors import BackhaulError, Code
from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from suppression_rig import ROW, SHOWN, Rig

NUMBER = "+15005550001"


async def test_the_operator_acts_by_the_admin_token_alone(rig: Rig) -> None:
    path = "/admin/v1/tenants/acme/suppressions"
    rig.suppression.answers = {
        "Add": pb.AddResponse(suppression=ROW, changed=True),
        "Lift": pb.LiftResponse(suppression=ROW, changed=True),
        "List": pb.ListResponse(suppressions=[ROW]),
    }
    http, admin = rig.gateway.client, rig.gateway.admin
    added = await http.post(path, json={"address": NUMBER}, headers={**admin, "Idempotency-Key": "order"})
    assert (added.status_code, added.json()) == (201, {"suppression": SHOWN, "changed": True})
    lifted = await http.post(f"{path}/lift", json={"address": NUMBER, "kind": "manual"}, headers=admin)
    assert (lifted.status_code, lifted.json()["changed"]) == (200, True)
    assert (await http.get(path, params={"limit": 3}, headers=admin)).json()["suppressions"] == [SHOWN]
    everything = pb.Scope(kind=pb.SCOPE_KIND_ALL)
    operator: dict[str, Any] = {"tenant_id": "acme", "actor": pb.ACTOR_OPERATOR, "author": "operator"}
    assert rig.suppression.asked == [
        pb.AddRequest(
            address=NUMBER,
            kind=pb.SUPPRESSION_KIND_LEGAL,
            scope=everything,
            source=pb.SOURCE_API,
            idempotency_key="order",
            **operator,
        ),
        pb.LiftRequest(address=NUMBER, kind=pb.SUPPRESSION_KIND_MANUAL, scope=everything, **operator),
        pb.ListRequest(tenant_id="acme", kind=pb.SUPPRESSION_KIND_LEGAL, page_size=3),
    ]
    # A tenant's key opens none of it.
    for method, sent in (("GET", path), ("POST", path), ("POST", f"{path}/lift")):
        answer = await http.request(method, sent, json={"address": NUMBER}, headers=rig.headers)
        rig.gateway.problem(answer, 401)
    rig.suppression.refusal = BackhaulError(Code.NOT_FOUND, "No such tenant.", field="tenant_id", fix="Check the id.")
    rig.gateway.problem(await http.get(path.replace("acme", "nobody"), headers=admin), 404, "tenant_id")
