"""compose.yaml and the Dockerfile against the services that there are: what can be held without containers."""

from __future__ import annotations

import importlib
import json
import os
import re
import stat
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import describe
import pytest
import rights
import secret_files
import yaml
from backhaul_common.settings import CommonSettings, load
from backhaul_gateway.settings import GatewaySettings
from backhaul_local.demo_installation import of_compose

COMPOSE = Path(__file__).resolve().parents[1]
ROOT = COMPOSE.parents[1]
DOCKERFILE = (COMPOSE.parent / "docker" / "Dockerfile").read_text()
CONTAINERS: dict[str, dict[str, Any]] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
WITH_TLS: dict[str, dict[str, Any]] = yaml.safe_load((COMPOSE / "tls.yaml").read_text())["services"]
_ANY = dict.fromkeys(secret_files.MAKE, "x")
GATEWAYS = ("gateway", "gateway-2")
PROJECTS = {
    project.parent.name: tomllib.loads(project.read_text()) for project in ROOT.glob("services/*/pyproject.toml")
}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    folder.mkdir()
    secret_files.write(folder)
    return folder


def resolved(value: str) -> str:
    """With the default of each variable."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def settings_type(service: str) -> type[CommonSettings]:
    module = importlib.import_module(f"backhaul_{service}.settings")
    (found,) = (
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, CommonSettings) and one.__module__ == module.__name__
    )
    return found


def test_the_second_file_adds_https_to_the_gateway(
    tmp_path: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name = yaml.safe_load((COMPOSE / "https.yaml").read_text())["services"]
    added = by_name["gateway"]
    # The same of both gateways, but that one alone is published.
    assert by_name == {name: by_name[name] for name in GATEWAYS}
    assert by_name["gateway-2"] == {name: added[name] for name in ("environment", "volumes")}
    for name in [name for name in os.environ if name.startswith("BACKHAUL_")]:
        monkeypatch.delenv(name)
    # A certificate is looked at when it is served; here it only has to be there.
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).touch()
    for name, value in {**CONTAINERS["gateway"]["environment"], **added["environment"]}.items():
        there = resolved(value).replace("/run/secrets", str(secrets / "gateway")).replace("/run/tls", str(tmp_path))
        monkeypatch.setenv(name, there)
    settings = load(GatewaySettings)
    assert settings.serves_https
    # A port of the platform team's would take /metrics from the one that Prometheus is pointed to here.
    assert not any("ADMIN_PORT" in f"{name}={value}" for name, value in added["environment"].items())
    assert settings.public_base_url(0) == f"https://127.0.0.1:{settings.gateway_https_port}"
    assert [port.rpartition(":")[2] for port in added["ports"]] == [str(settings.gateway_https_port)]
    assert str(settings.gateway_https_port) in CONTAINERS["gateway"]["build"]["args"]["PORTS"].split()


def test_gateways_believe_the_balancer_and_nobody_else() -> None:
    compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    (pool,) = compose["networks"]["balanced"]["ipam"]["config"]
    subnet, given_out = ip_network(resolved(pool["subnet"])), ip_network(resolved(pool["ip_range"]))
    # In no other network, by which it would have another address.
    (of_balancer,) = compose["services"]["balancer"]["networks"].values()
    address = ip_address(resolved(of_balancer["ipv4_address"]))
    assert address in subnet
    assert address not in given_out
    assert given_out.subnet_of(subnet)  # type: ignore[arg-type]  # both are of IPv4
    for name in GATEWAYS:
        assert "balanced" in compose["services"][name]["networks"]
        trusted = resolved(compose["services"][name]["environment"]["BACKHAUL_GATEWAY_TRUSTED_PROXIES"])
        assert GatewaySettings._networks(trusted) == (ip_network(address),)
        assert GatewaySettings._networks(f"{trusted}192.0.2.0/24") == (ip_network(address), ip_network("192.0.2.0/24"))


def test_demo_yaml_leads_to_where_the_demo_listens(secrets: Path) -> None:
    added = yaml.safe_load((COMPOSE / "demo.yaml").read_text())["services"]
    for service, of in added.items():
        assert set(of) == {"environment"}
        known = {f"BACKHAUL_{name.upper()}" for name in settings_type(service).model_fields}
        assert set(of["environment"]) <= known
    there = of_compose(secrets.parent, {})
    origins = json.loads(resolved(added["reconciler"]["environment"]["BACKHAUL_RECONCILER_ORIGINS"]))
    assert origins == {"https://api.twilio.com": f"http://{there.host}:{there.api_port}"}
    assert resolved(added["notifier"]["environment"]["BACKHAUL_NOTIFIER_ALLOWED_NETWORKS"]) == f"{there.host}/32"
    assert there.url == resolved(CONTAINERS["gateway"]["environment"]["BACKHAUL_GATEWAY_PUBLIC_BASE_URL"])
    assert there.bucket.endpoint == resolved(
        CONTAINERS["audit"]["environment"]["BACKHAUL_OBJECT_STORE_PUBLIC_ENDPOINT"]
    )
    kept = secrets / "kept"
    assert there.admin_token == (kept / "admin-token").read_text().strip()
    assert there.bucket.secret_key == (kept / "s3-secret-key").read_text().strip()


def test_every_service_of_the_repository_is_in_compose_and_has_rights() -> None:
    assert set(PROJECTS) <= set(CONTAINERS)
    assert set(PROJECTS) == set(rights.RIGHTS) == set(rights.SERVICES)


@pytest.mark.parametrize("service", sorted(PROJECTS))
def test_every_setting_is_one_of_the_service(service: str) -> None:
    known = {f"BACKHAUL_{name.upper()}" for name in settings_type(service).model_fields} | {"BACKHAUL_SETTINGS_DIR"}
    files = secret_files.of_service(service, _ANY)
    given = {name for name in (*CONTAINERS[service]["environment"], *files) if name.startswith("BACKHAUL_")}
    assert given <= known


@pytest.mark.parametrize("service", sorted(PROJECTS))
def test_a_service_starts_with_what_compose_gives_it(
    service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings are whole and valid; those that are secrets come from the files."""
    for name in [name for name in os.environ if name.startswith("BACKHAUL_")]:
        monkeypatch.delenv(name)
    for name, value in CONTAINERS[service]["environment"].items():
        monkeypatch.setenv(name, resolved(value).replace("/run/secrets", str(secrets / service)))
    settings = load(settings_type(service))
    assert f"{service}:" in settings.mongo_uri.get_secret_value()
    assert settings.nats_url.startswith(f"nats://{service}:")
    assert settings.internal_tokens() == ((secrets / "kept/internal-token").read_text().strip(),)
    assert settings.grpc_tls_cert_file == secrets / service / "tls.pem"


@pytest.mark.parametrize("service", sorted(PROJECTS))
def test_with_tls_a_service_starts_and_demands_it_of_every_server(
    service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("BACKHAUL_")]:
        monkeypatch.delenv(name)
    for name, value in (CONTAINERS[service]["environment"] | WITH_TLS[service]["environment"]).items():
        monkeypatch.setenv(name, resolved(value).replace("/run/secrets", str(secrets / service)))
    settings = load(settings_type(service))
    assert settings.servers_with_tls() == {"nats", "mongodb", "object-store"}
    # Its certificate is what MongoDB knows it by; its password opens nothing there.
    assert settings.mongo_uri.get_secret_value().endswith("authMechanism=MONGODB-X509")
    if service in {"gateway", "audit"}:
        assert vars(settings)["object_store_endpoint"] == "https://minio:9000"


def test_with_tls_each_server_has_its_files(secrets: Path) -> None:
    assert set(WITH_TLS) == {*PROJECTS, *GATEWAYS, "nats", "mongo", "minio", "servers"} <= set(CONTAINERS)
    assert WITH_TLS["gateway-2"] == WITH_TLS["gateway"]
    for name, of in WITH_TLS.items():
        said = " ".join([*of.get("entrypoint", []), *of.get("command", []), *of.get("environment", {}).values()])
        for file in re.findall(r"/run/secrets/([\w.-]+)", said):
            assert (secrets / name.removesuffix("-2") / file).is_file(), f"{name}: {file}"
    demanded = json.loads((secrets / "nats/nats-tls.conf").read_text())
    assert demanded["tls"].pop("verify_and_map") is True
    for path in demanded.pop("tls").values():
        assert (secrets / "nats" / Path(path).name).is_file()
    assert demanded == json.loads((secrets / "nats/nats.conf").read_text())
    assert {"public.crt", "private.key"} <= {path.name for path in (secrets / "minio").iterdir()}
    # What a server shows, nobody can show as a client; no container has the authority's key.
    assert not [path for path in secrets.rglob("ca.key") if path.parent != secrets / "kept/tls"]


@pytest.mark.parametrize("service", sorted(PROJECTS))
def test_others_reach_a_service_where_it_listens(service: str) -> None:
    local = PROJECTS[service]["tool"]["backhaul"]["local"]
    environment = CONTAINERS[service]["environment"]
    ports = local["ports"]
    if "grpc" in ports:
        assert environment[f"BACKHAUL_{service.upper()}_GRPC_LISTEN"] == f"0.0.0.0:{ports['grpc']}"
        address = f"{service}:{ports['grpc']}"
        assert CONTAINERS["gateway"]["environment"][f"BACKHAUL_GATEWAY_{service.upper()}_TARGET"] == address
        assert address in CONTAINERS["hello"]["command"]
    for name, value in environment.items():
        if name.endswith(("_TARGET", "_TARGETS")):
            for host, port in re.findall(r"([a-z]+):(\d+)", value):
                assert int(port) == PROJECTS[host]["tool"]["backhaul"]["local"]["ports"]["grpc"], name
    exposed = CONTAINERS[service]["build"]["args"]["PORTS"].split()
    assert {str(port) for port in ports.values()} <= set(exposed)


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_a_container_is_confined_and_has_an_exact_tag(name: str) -> None:
    of = CONTAINERS[name]
    tag = of["image"].rpartition(":")[2]
    if "build" in of:
        assert tag == "-dev}"  # ${BACKHAUL_VERSION:-dev}
        assert of["build"]["args"]["SERVICE"] == of["image"].partition(":")[0].removeprefix("backhaul-")
    else:
        assert of["image"].startswith("docker.io/")
        assert re.fullmatch(r"v?\d+\.\d+\.\d+(-\w+)?|RELEASE\.[\dTZ-]+", tag), of["image"]
    assert of["read_only"] is True
    assert of["cap_drop"] == ["ALL"]
    assert of["security_opt"] == ["no-new-privileges:true"]
    assert not of["user"].startswith("0:") or name in {"secrets", "otel-collector"}
    for published in of.get("ports", []):
        assert resolved(published).startswith("127.0.0.1:")


def test_the_dockerfile_has_one_base_with_an_exact_tag_and_what_it_copies_is_sent() -> None:
    assert re.search(r"^ARG BASE=docker\.io/library/python:3\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    base = "${BASE}${BASE_DIGEST}"
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == [base, "wheels", base]
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in copied.split():
            assert any(source == one or source.startswith(f"{one}/") for one in sent), source
            assert "$" in source or (ROOT / source).exists(), source
    asked = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    for of in CONTAINERS.values():
        assert set(of.get("build", {}).get("args", {})) <= asked


def test_secrets_are_made_once_and_are_nobody_elses(secrets: Path) -> None:
    def content() -> dict[Path, str]:
        return {file.relative_to(secrets): file.read_text() for file in secrets.rglob("*") if file.is_file()}

    before = content()
    secret_files.write(secrets)
    assert content() == before
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.rglob("*") if file.is_file()} == {0o600}
    assert all(
        stat.S_IMODE((secrets / name).stat().st_mode) == 0o700 for name in CONTAINERS if (secrets / name).is_dir()
    )
    # A container sees its own passwords only.
    for service in PROJECTS:
        own = "".join(text for path, text in before.items() if path.parts[0] == service)
        for other in set(PROJECTS) - {service}:
            assert before[Path("kept", f"mongo-{other}")].strip() not in own
            assert before[Path("kept", f"nats-{other}")].strip() not in own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_is_for_people_belongs_to_whom_the_checkout_belongs_to(tmp_path: Path) -> None:
    """Also where Docker, as root, has made the folders that are mounted."""
    os.chown(tmp_path, 4711, 4711)
    (tmp_path / "secrets/gateway").mkdir(parents=True)
    secret_files.write(tmp_path / "secrets")
    owned = {str(path.relative_to(tmp_path)): path.stat().st_uid for path in (tmp_path / "secrets").rglob("*")}
    assert owned["secrets/admin-header"] == owned["secrets/kept"] == owned["secrets/kept/tls/ca.pem"] == 4711
    assert owned["secrets/gateway"] == owned["secrets/gateway/BACKHAUL_MONGO_URI"] == secret_files.USER


def test_a_value_of_ones_own_is_kept_and_handed_on(secrets: Path) -> None:
    (secrets / "kept/s3-secret-key").write_text("mine\n")
    secret_files.write(secrets)
    assert (secrets / "audit/BACKHAUL_OBJECT_STORE_SECRET_KEY").read_text() == "mine"
    assert (secrets / "kept/s3-secret-key").read_text() == "mine\n"


def test_mounted_files_are_there() -> None:
    made = {*PROJECTS, *secret_files.of_servers(_ANY)}
    for name, of in CONTAINERS.items():
        for volume in of.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./secrets/"):
                assert source.removeprefix("./secrets/") in made, f"{name}: {source}"
            elif source.startswith(("./", "../")) and not source.startswith("../observability"):
                assert (COMPOSE / source).exists(), f"{name}: {source}"


def test_a_package_that_is_not_locked_is_refused() -> None:
    lock = "some-thing==1.2 \\\n    --hash=sha256:0\nother==2 ; python_version < '3.12' \\\n"
    assert describe.unlocked({"Some_Thing": "1.2", "backhaul-common": "0.1.0", "other": "2"}, lock) == []
    assert describe.unlocked({"some-thing": "1.3", "new": "1"}, lock) == ["new==1", "some-thing==1.3"]


def test_the_bill_of_materials_names_every_package() -> None:
    bill = json.loads(json.dumps(describe.bill("audit", {"backhaul-audit": "0.1.0", "Some_Thing": "1.2"})))
    assert bill["metadata"]["component"] == {"type": "application", "name": "backhaul-audit", "version": "0.1.0"}
    assert [one["purl"] for one in bill["components"]] == ["pkg:pypi/some-thing@1.2", "pkg:pypi/backhaul-audit@0.1.0"]


VENDORED = "console/src/backhaul_console/static/vendored.toml"


def test_the_bill_of_materials_names_scripts_that_others_wrote() -> None:
    carried = describe.vendored([ROOT / "libs" / VENDORED])
    bill = describe.bill("gateway", {"backhaul-gateway": "0.1.0"}, carried)
    files = tomllib.loads((ROOT / "libs" / VENDORED).read_text())["file"]
    assert [one["name"] for one in bill["components"]] == ["backhaul-gateway", *(file["package"] for file in files)]
    assert len({one["purl"] for one in bill["components"]}) == len(files) + 1
    for file, component in zip(files, carried, strict=True):
        assert component["version"] == file["version"]
        assert component["licenses"] == [{"license": {"id": file["licence"]}}]
        assert component["hashes"] == [{"alg": "SHA-256", "content": file["sha256"]}]
        assert component["purl"].startswith(f"pkg:npm/{file['package']}@{file['version']}#dist/")


def test_a_script_that_is_another_is_not_shipped(tmp_path: Path) -> None:
    listed = tmp_path / "vendored.toml"
    listed.write_bytes((ROOT / "libs" / VENDORED).read_bytes())
    for file in tomllib.loads(listed.read_text())["file"]:
        (tmp_path / file["name"]).write_text("changed")
    with pytest.raises(ValueError, match=r"htmx\.min\.js is not the one of vendored\.toml"):
        describe.vendored([listed])


def test_readiness_is_asked_where_the_service_listens() -> None:
    assert describe.target(PROJECTS["gateway"]) == "http://localhost:8080/readyz https://localhost:8443/readyz"
    assert describe.target(PROJECTS["audit"]) == "localhost:50053"
