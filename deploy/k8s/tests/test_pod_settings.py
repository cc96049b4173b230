"""Each service starts with what its pod is given: its own settings read the environment that the manifests make."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from backhaul_common.settings import PREFIX
from backhaul_common.tls import ClientContext
from kustomizing import Document, containers
from manifest_rig import SERVICES, of_kind, problems, settings_of, workloads

OVERLAYS = Path(__file__).parents[1] / "overlays"


@pytest.fixture(scope="session")
def secrets() -> dict[str, dict[str, bytes]]:
    """What overlays/dev/secrets.sh makes, by name and key."""
    if shutil.which("openssl") is None:
        pytest.skip("The script calls openssl, which is not here.")
    said = subprocess.run(["sh", OVERLAYS / "dev/secrets.sh"], capture_output=True, check=True, timeout=120)  # noqa: S603, S607  # ours
    made: list[Document] = list(yaml.safe_load_all(said.stdout))
    assert [problem for document in made for problem in problems(document)] == []
    return {
        document["metadata"]["name"]: {key: base64.b64decode(value) for key, value in document["data"].items()}
        for document in made
    }


def environment(
    manifests: list[Document], secrets: dict[str, dict[str, bytes]], service: str
) -> Iterator[tuple[str, str]]:
    """The variables of a service's pod, as Kubernetes resolves them."""
    (container,) = containers(workloads(manifests)[service])
    maps = of_kind(manifests, "ConfigMap")
    for source in container["envFrom"]:
        yield from maps[source["configMapRef"]["name"]]["data"].items()
    for variable in container["env"]:
        origin = variable.get("valueFrom", {})
        if "secretKeyRef" in origin:
            value = secrets[origin["secretKeyRef"]["name"]][origin["secretKeyRef"]["key"]].decode()
        elif "configMapKeyRef" in origin:
            value = maps[origin["configMapKeyRef"]["name"]]["data"][origin["configMapKeyRef"]["key"]]
        else:
            value = variable["value"]
        yield variable["name"], value


def mount(manifests: list[Document], secrets: dict[str, dict[str, bytes]], service: str, folder: Path) -> None:
    """Write the pod's volumes of secrets where it has them, below ``folder``."""
    workload = workloads(manifests)[service]
    volumes = {volume["name"]: volume for volume in workload["spec"]["template"]["spec"]["volumes"]}
    for place in containers(workload)[0]["volumeMounts"]:
        if secret := volumes.get(place["name"], {}).get("secret"):
            inside = folder / place["mountPath"].lstrip("/")
            inside.mkdir(parents=True)
            for key, value in secrets[secret["secretName"]].items():
                (inside / key).write_bytes(value)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_starts_with_what_its_pod_is_given(
    manifests: list[Document],
    overlay: Path,
    secrets: dict[str, dict[str, bytes]],
    service: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = dict(environment(manifests, secrets, service))
    kind = settings_of(service)
    known = {PREFIX + name.upper() for name in kind.model_fields}
    assert given.keys() <= known
    mount(manifests, secrets, service, tmp_path)
    for name, value in given.items():
        monkeypatch.setenv(name, f"{tmp_path}{value}" if name.endswith("_FILE") else value)
    settings: Any = kind()
    # What its port is called in the manifest is where it listens.
    (container,) = containers(workloads(manifests)[service])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    if service == "gateway":
        assert ports == {"http": settings.gateway_port, "metrics": settings.gateway_admin_port}
        assert settings.gateway_host == "0.0.0.0"  # noqa: S104  # a pod's only address
        assert len(settings.gateway_tenant_data_targets) == len(SERVICES) - 2
        storage = workloads(manifests)["gateway"]["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]
        assert storage == {"storage": "4Gi"}
        assert settings.gateway_spool_max_bytes * 2 < 4 << 30
    else:
        listen = getattr(settings, f"{service}_grpc_listen")
        assert (listen, settings.metrics_host) == (f"0.0.0.0:{ports['grpc']}", "0.0.0.0")  # noqa: S104  # as above
        assert settings.metrics_port == ports["metrics"]
    assert settings.grpc_tls_cert_file is not None
    assert settings.servers_with_tls() == ({"nats", "mongodb"} if overlay.name == "prod" else set())
    # The files belong together: they are not read before the first connection.
    ClientContext(settings)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_target_is_a_service_of_the_manifests(
    manifests: list[Document], secrets: dict[str, dict[str, bytes]], service: str
) -> None:
    found = {
        f"{name}:{port['port']}" for name, one in of_kind(manifests, "Service").items() for port in one["spec"]["ports"]
    }
    targets = {
        target
        for name, value in environment(manifests, secrets, service)
        if name.endswith(("_TARGET", "_TARGETS"))
        for target in value.split(",")
    }
    assert targets <= found
    # A certificate has that name: it is what the other side's is checked against.
    assert {target.partition(":")[0] for target in targets} <= {
        name.removeprefix("backhaul-").removesuffix("-tls") for name in secrets if name.endswith("-tls")
    }


def test_the_document_names_every_secret_and_its_keys(secrets: dict[str, dict[str, bytes]]) -> None:
    document = (Path(__file__).parents[3] / "docs/deploying-kubernetes.md").read_text()
    for name, values in secrets.items():
        shown = "`backhaul-<service>-tls`" if name.endswith("-tls") else f"`{name}`"
        (row,) = [line for line in document.splitlines() if line.startswith(f"| {shown} |")]
        assert all(f"`{key}`" in row for key in values)
