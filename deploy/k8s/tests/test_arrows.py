"""The network policies let through exactly what the architecture has: who calls whom is in the services' settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from backhaul_common.settings import MongoSettings, NatsSettings, ObjectStoreSettings
from kustomizing import Document, containers
from manifest_rig import SERVICES, SPECS, of_kind, settings_of

OUTSIDE = {"ingress-nginx", "monitoring", "keda"}
"""Namespaces that something of ours is called from."""


class Arrow(NamedTuple):
    """Who connects to whom, and to which port."""

    source: str
    target: str
    port: int


def grpc_port(service: str) -> int:
    spec = SPECS[service]
    assert spec.grpc_port is not None
    return spec.ports[spec.grpc_port]


def calls() -> Iterator[Arrow]:
    """Which service calls which, by its settings."""
    for service in SERVICES:
        for name in settings_of(service).model_fields:
            other = name.removeprefix(f"{service}_").removesuffix("_target")
            if name.endswith("_target"):
                yield Arrow(service, other, grpc_port(other))


def expected(overlay: str) -> set[Arrow]:
    arrows = set(calls())
    arrows.add(Arrow("ingress-nginx", "gateway", 8080))
    for service in SERVICES:
        arrows.add(Arrow("monitoring", service, 8081 if service == "gateway" else SPECS[service].ports["metrics"]))
    if overlay == "dev":
        arrows |= {Arrow("mongodb-initiate", "mongodb", 27017), Arrow("keda", "nats", 8222)}
        for service in SERVICES:
            kind = settings_of(service)
            for settings, target, port in (
                (NatsSettings, "nats", 4222),
                (MongoSettings, "mongodb", 27017),
                (ObjectStoreSettings, "minio", 9000),
            ):
                if issubclass(kind, settings):
                    arrows.add(Arrow(service, target, port))
    return arrows


class Pods:
    """The pods of an overlay, and what its policies let each do."""

    def __init__(self, manifests: list[Document]) -> None:
        self.policies = list(of_kind(manifests, "NetworkPolicy").values())
        makers = [document for document in manifests if containers(document)]
        self.labels = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in makers}
        self.ports = {
            one["metadata"]["name"]: {port["containerPort"] for c in containers(one) for port in c.get("ports", [])}
            for one in makers
        }

    def chosen(self, selector: dict[str, Any], labels: dict[str, str]) -> bool:
        assert selector.keys() <= {"matchLabels", "matchExpressions"}
        for expression in selector.get("matchExpressions", []):
            assert expression["operator"] == "In"
            if labels.get(expression["key"]) not in expression["values"]:
                return False
        return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())

    def rules(self, pod: str, way: str) -> list[dict[str, Any]]:
        chosen = [
            policy["spec"] for policy in self.policies if self.chosen(policy["spec"]["podSelector"], self.labels[pod])
        ]
        # Without a policy of this way everything would be let through.
        assert any(way.capitalize() in spec["policyTypes"] for spec in chosen)
        return [rule for spec in chosen for rule in spec.get(way, [])]

    def lets(self, pod: str, way: str, other: str, port: int) -> bool:
        """Whether ``pod`` may connect to ``other`` (egress), or ``other`` to it (ingress), at ``port``."""
        for rule in self.rules(pod, way):
            if port not in [one["port"] for one in rule.get("ports", [])]:
                continue
            for peer in rule["to" if way == "egress" else "from"]:
                if "ipBlock" in peer:
                    continue
                if other in OUTSIDE:
                    space = peer.get("namespaceSelector", {}).get("matchLabels", {})
                    if space == {"kubernetes.io/metadata.name": other} and "podSelector" not in peer:
                        return True
                elif "namespaceSelector" not in peer and self.chosen(peer["podSelector"], self.labels[other]):
                    return True
        return False

    def arrows(self) -> Iterator[Arrow]:
        for target, ports in self.ports.items():
            for port in ports:
                for source in self.labels:
                    if self.lets(target, "ingress", source, port) and self.lets(source, "egress", target, port):
                        yield Arrow(source, target, port)
                for source in OUTSIDE:
                    if self.lets(target, "ingress", source, port):
                        yield Arrow(source, target, port)


def test_the_policies_are_the_arrows(overlay: Path, manifests: list[Document]) -> None:
    pods = Pods(manifests)
    assert set(pods.arrows()) == expected(overlay.name)
    assert len(expected(overlay.name)) > 15
    # Nothing is let out, or in, that meets a closed door on the other side: that would be an arrow half removed.
    for pod in pods.labels:
        for other, ports in pods.ports.items():
            for port in ports:
                assert pods.lets(pod, "egress", other, port) == pods.lets(other, "ingress", pod, port)


INTERNET = {
    "0.0.0.0/0": {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"},
    "::/0": {"fc00::/7", "fe80::/10"},
}
"""All of it, without networks of ours and where clouds hand out credentials."""

MANAGED = "10.0.0.0/8"
"""Where ``prod`` has its servers, until somebody names their network."""

Rest = set[tuple[str, str, str, tuple[int, ...]]]
"""Pod, way, with whom, and the ports: none are all."""


def beyond(overlay: str) -> Rest:
    """Whom pods may speak with that are none of ours."""
    found: Rest = {
        (one.target, "ingress", one.source, (one.port,)) for one in expected(overlay) if one.source in OUTSIDE
    }
    for block in INTERNET:
        found |= {
            ("notifier", "egress", block, ()),
            *((one, "egress", block, (443,)) for one in ("audit", "reconciler")),
        }
    if overlay == "prod":
        for service in SERVICES:
            kind = settings_of(service)
            for settings, port in ((NatsSettings, 4222), (MongoSettings, 27017), (ObjectStoreSettings, 443)):
                if issubclass(kind, settings):
                    found.add((service, "egress", MANAGED, (port,)))
    return found


def named(peer: dict[str, Any]) -> str:
    """A peer that is no pod of ours; what is none of what there may be is named as it is written."""
    block, space = peer.get("ipBlock", {}), peer.get("namespaceSelector", {}).get("matchLabels", {})
    if peer.keys() == {"ipBlock"} and set(block.get("except", [])) == INTERNET.get(block["cidr"], set()):
        return str(block["cidr"])
    name = space.get("kubernetes.io/metadata.name", "")
    if peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}:
        return str(name)
    names = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    if peer == {"namespaceSelector": names, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}:
        return "names"
    return str(peer)


def test_nothing_else_is_let_through(overlay: Path, manifests: list[Document]) -> None:
    pods = Pods(manifests)
    found: Rest = set()
    for pod in pods.labels:
        for way, peers in (("ingress", "from"), ("egress", "to")):
            for rule in pods.rules(pod, way):
                ports = tuple(sorted({one["port"] for one in rule.get("ports", [])}))
                assert rule[peers], "a rule without peers is for everybody"
                for peer in rule[peers]:
                    if peer.keys() != {"podSelector"}:
                        found.add((pod, way, named(peer), ports))
                        by = {one.get("protocol", "TCP") for one in rule.get("ports", [])}
                        assert by <= ({"UDP", "TCP"} if named(peer) == "names" else {"TCP"})
                        continue
                    others = [name for name, labels in pods.labels.items() if pods.chosen(peer["podSelector"], labels)]
                    open_ = {port for one in ([pod] if way == "ingress" else others) for port in pods.ports[one]}
                    assert ports, "pods of ours have ports"
                    assert set(ports) <= open_, f"{pod}, {way}: nobody listens there"
    dns = {(pod, "egress", "names", (53,)) for pod in pods.labels}
    assert found == beyond(overlay.name) | dns
