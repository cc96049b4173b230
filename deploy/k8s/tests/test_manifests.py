"""What the manifests ask of Kubernetes is valid, and what every pod of ours must be like, it is."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from backhaul_common.names import CALLBACKS_STREAM, EVENTS_STREAM
from kustomizing import Document, containers, ordered
from manifest_rig import SERVICES, of_kind, problems, workloads


def test_every_manifest_is_valid(manifests: list[Document]) -> None:
    assert {name for document in manifests for name in problems(document)} == set()
    names = [(document["kind"], document["metadata"]["name"]) for document in manifests]
    assert len(names) == len(set(names)) > 40


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "livenesProbe"), {}),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "http"),
        ("NetworkPolicy", ("spec", "ingres"), []),
        ("ScaledObject", ("spec", "triggers", 0, "metadata", "streams"), "CALLBACKS"),
    ],
)
def test_what_is_misspelt_is_no_valid_manifest(
    manifests: list[Document], kind: str, path: tuple[Any, ...], value: object
) -> None:
    document: Any = json.loads(json.dumps(of_kind(manifests, kind)["normalizer"]))
    assert problems(document) == []
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert len(problems(document)) > 0


def test_kubectl_makes_the_same_of_an_overlay(overlay: Path, manifests: list[Document]) -> None:
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("no kubectl here; overlays are built by kustomizing.py alone")
    said = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, check=True, text=True, timeout=60)  # noqa: S603  # kubectl, with a folder of ours

    def by_name(made: list[Document]) -> dict[tuple[str, str], Any]:
        return {(document["kind"], document["metadata"]["name"]): ordered(document) for document in made}

    assert by_name(list(yaml.safe_load_all(said.stdout))) == by_name(manifests)


def test_every_service_is_there_and_nothing_else_but_the_servers(overlay: Path, manifests: list[Document]) -> None:
    servers = {"nats", "mongodb", "minio"} if overlay.name == "dev" else set()
    assert workloads(manifests).keys() == SERVICES | servers
    assert of_kind(manifests, "ServiceAccount").keys() == SERVICES
    for name in SERVICES:
        assert workloads(manifests)[name]["spec"]["template"]["spec"]["serviceAccountName"] == name
    # It alone keeps something on a disk, and one that outlives its pods, and their number.
    gateway = workloads(manifests)["gateway"]
    assert gateway["kind"] == "StatefulSet"
    assert set(gateway["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    mounted = {mount["name"]: mount["mountPath"] for mount in containers(gateway)[0]["volumeMounts"]}
    assert mounted[gateway["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]] == "/var/lib/backhaul/spool"


def test_no_pod_may_do_more_than_it_must(manifests: list[Document]) -> None:
    """The profile "restricted" of https://kubernetes.io/docs/concepts/security/pod-security-standards/, which the
    namespace enforces, and a root that nobody writes to."""
    (namespace,) = of_kind(manifests, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for document in manifests:
        if not containers(document):
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"], security["seccompProfile"]["type"]) == (
            True,
            10001,
            "RuntimeDefault",
        )
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not [volume for volume in pod.get("volumes", []) if "hostPath" in volume]
        for container in containers(document):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in context
            assert "memory" in container["resources"]["limits"]
            # One that is throttled gives back what it holds, or stops answering.
            assert "cpu" not in container["resources"]["limits"]


def test_probes_ask_what_a_service_answers(manifests: list[Document]) -> None:
    for name in SERVICES:
        (container,) = containers(workloads(manifests)[name])
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        paths = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
        for probe, path in paths.items():
            assert container[probe]["httpGet"]["path"] == path
            assert container[probe]["httpGet"]["port"] in ports
        # A check of readiness may take 3 s.
        assert container["readinessProbe"]["timeoutSeconds"] > 3
        # Whoever is not alive is so for a while: a part that is away must not restart anything.
        assert container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"] >= 60


def test_a_service_is_found_at_the_ports_that_its_pods_have(manifests: list[Document]) -> None:
    found = of_kind(manifests, "Service")
    assert found.keys() >= SERVICES
    for service in found.values():
        (target,) = [
            workload
            for workload in workloads(manifests).values()
            if service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        ]
        names = {port["name"] for container in containers(target) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for workload in workloads(manifests).values():
        if workload["kind"] == "StatefulSet":
            assert workload["spec"]["serviceName"] in found
        assert (
            workload["spec"]["selector"]["matchLabels"].items()
            <= workload["spec"]["template"]["metadata"]["labels"].items()
        )


def test_copies_are_apart_and_are_taken_one_at_a_time(overlay: Path, manifests: list[Document]) -> None:
    budgets = of_kind(manifests, "PodDisruptionBudget")
    assert budgets.keys() == SERVICES
    for name in SERVICES:
        assert budgets[name]["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}
        pod = workloads(manifests)[name]["spec"]["template"]["spec"]
        assert {one["topologyKey"] for one in pod["topologySpreadConstraints"]} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
        assert all(one["matchLabelKeys"] == ["app.kubernetes.io/name"] for one in pod["topologySpreadConstraints"])
        if overlay.name == "prod":
            assert "podAntiAffinity" in pod["affinity"]
    if overlay.name == "prod":
        gateways = workloads(manifests)["gateway"]["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
        assert "requiredDuringSchedulingIgnoredDuringExecution" in gateways


def test_how_many_copies_there_are_is_said_once(overlay: Path, manifests: list[Document]) -> None:
    scaled = of_kind(manifests, "ScaledObject")
    assert scaled.keys() == SERVICES
    for name, document in scaled.items():
        spec = document["spec"]
        workload = workloads(manifests)[name]
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": workload["kind"], "name": name}
        assert "replicas" not in workload["spec"]
        assert spec["minReplicaCount"] >= (2 if overlay.name == "prod" else 1)
        assert spec["maxReplicaCount"] >= spec["minReplicaCount"]
        # Of which a part is asked for: without that KEDA cannot say what is used.
        assert "cpu" in containers(workload)[0]["resources"]["requests"]
        assert spec["triggers"][-1]["type"] == "cpu"
    # What lies on the disk of a gateway that is taken away waits for it.
    behavior = scaled["gateway"]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"] == {"selectPolicy": "Disabled"}
    consumers = {
        name: (trigger["metadata"]["stream"], trigger["metadata"]["consumer"])
        for name, document in scaled.items()
        for trigger in document["spec"]["triggers"]
        if trigger["type"] == "nats-jetstream"
    }
    assert consumers == {
        "normalizer": (CALLBACKS_STREAM, "normalizer"),
        "suppression": (EVENTS_STREAM, "suppression"),
    }


def test_what_is_secret_stands_in_no_manifest(manifests: list[Document]) -> None:
    assert of_kind(manifests, "Secret") == {}
    for name in SERVICES:
        for variable in containers(workloads(manifests)[name])[0]["env"]:
            secret = any(word in variable["name"] for word in ("TOKEN", "_KEY", "PASSWORD", "_URI", "NATS_URL"))
            assert not secret or variable["name"].endswith("_FILE") or "secretKeyRef" in variable["valueFrom"]
