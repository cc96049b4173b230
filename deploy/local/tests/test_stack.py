"""The stack, with tiny real programs in the place of the services."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from backhaul_local.errors import LocalStackError, PortInUseError, SettingError, StartError
from backhaul_local.pytest_plugin import StackFactory
from backhaul_local.service import ServiceSpec
from backhaul_local.stack import Stack, StackConfig, clean_environment

STAND_INS = Path(__file__).parent / "stand_ins"

NORMALIZER = ServiceSpec(
    name="normalizer",
    module="stand_in_grpc",
    ports={"grpc": 1},
    env={"STAND_IN_LISTEN": "127.0.0.1:{grpc}"},
    grpc_port="grpc",
)
GATEWAY = ServiceSpec(
    name="gateway",
    module="stand_in_http",
    ports={"http": 1},
    env={
        "STAND_IN_PORT": "{http}",
        "STAND_IN_TARGET": "127.0.0.1:{normalizer_grpc}",
        "STAND_IN_FILES": "{data_dir}/files",
        "TOKEN": "{admin_token}",
    },
    http_port="http",
)


def settings(**overrides: Any) -> dict[str, Any]:
    base_env = {**clean_environment(), "PYTHONPATH": str(STAND_INS)}
    return {"services": (NORMALIZER, GATEWAY), "base_env": base_env, **overrides}


def environment_of(stack: Stack) -> dict[str, str]:
    env: dict[str, str] = httpx.get(f"{stack.gateway_url}/env").json()
    return env


async def test_stack_starts_and_leaves_nothing(stack_factory: StackFactory) -> None:
    async with stack_factory(**settings(with_object_store=True, env={"BACKHAUL_LOG_LEVEL": "DEBUG"})) as stack:
        assert [member.name for member in stack.members] == ["mongod", "nats", "s3", "normalizer", "gateway"]
        processes = [psutil.Process(member.pid) for member in stack.members]
        env = environment_of(stack)
        assert env["BACKHAUL_NATS_URL"] == stack.nats_url
        assert env["BACKHAUL_MONGO_URI"] == stack.mongo_uri
        assert env["BACKHAUL_MONGO_DATABASE"] == "backhaul"
        assert env["BACKHAUL_LOG_LEVEL"] == "DEBUG"
        assert env["STAND_IN_TARGET"] == f"127.0.0.1:{stack.port('normalizer', 'grpc')}"
        assert env["STAND_IN_FILES"] == str(stack.config.data_dir / "gateway" / "files")
        assert env["TOKEN"] == stack.admin_token
        assert stack.s3 is not None
        assert env["BACKHAUL_OBJECT_STORE_ENDPOINT"] == stack.s3.uri
        assert env["BACKHAUL_OBJECT_STORE_SECRET_KEY"] == stack.s3.config.secret_key
        assert "stand-in speaks HTTP" in stack.service("gateway").log_tail()
    assert [process for process in processes if process.is_running()] == []


async def test_members_are_driven_by_name(stack_factory: StackFactory) -> None:
    async with stack_factory(**settings()) as stack:
        url, pid = stack.gateway_url, stack.member("gateway").pid
        await stack.kill("gateway")
        assert await stack.member("gateway").wait_exit() == -9
        await stack.restart("gateway")
        assert stack.member("gateway").pid != pid
        assert stack.gateway_url == url
        await stack.kill("nats")
        await stack.restart("nats")
        with pytest.raises(LocalStackError, match="No postman here; there are: mongod, nats, normalizer, gateway"):
            await stack.kill("postman")


async def test_services_may_start_before_the_servers(stack_factory: StackFactory) -> None:
    async with stack_factory(start=False, **settings()) as stack:
        stack.member("gateway").launch()
        await stack.member("gateway").wait_ready()
        await stack.start_services("normalizer")
        await stack.start_servers()
        assert all(member.running for member in stack.members)


async def test_given_servers_are_used(stack_factory: StackFactory) -> None:
    given = {"nats_url": "nats://nats.example:4222", "mongo_uri": "mongodb://mongo.example/?replicaSet=rs0"}
    async with stack_factory(**settings(**given)) as stack:
        assert [member.name for member in stack.members] == ["normalizer", "gateway"]
        assert environment_of(stack)["BACKHAUL_NATS_URL"] == "nats://nats.example:4222"
        assert environment_of(stack)["BACKHAUL_MONGO_URI"] == "mongodb://mongo.example/?replicaSet=rs0"


async def test_a_web_proxy_is_no_way_to_this_machine(
    stack_factory: StackFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    given = {"nats_url": "nats://nats.example:4222", "mongo_uri": "mongodb://mongo.example/?replicaSet=rs0"}
    async with stack_factory(**settings(**given)) as stack:
        assert all(member.running for member in stack.members)


async def test_service_that_dies_at_the_start_shows_its_log_and_takes_all_down(stack_factory: StackFactory) -> None:
    failing = settings(service_env={"gateway": {"STAND_IN_FAILS": "1"}})
    async with stack_factory(start=False, **failing) as stack:
        with pytest.raises(StartError, match="the setting STAND_IN_FAILS is wrong"):
            await stack.start()
        assert [member.name for member in stack.members if member.running] == []


async def test_several_that_are_late_are_late_together(stack_factory: StackFactory) -> None:
    async with stack_factory(start=False, **settings(start_timeout=0.001)) as stack:
        with pytest.raises(LocalStackError) as caught:
            await stack.start_servers()
        assert caught.value.late, caught.value


def test_a_port_of_a_service_is_nobody_elses_before_the_service_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both have the same luck.
    monkeypatch.setattr("random.sample", lambda candidates, k: list(candidates)[:k])
    first, second = (Stack(StackConfig(data_dir=tmp_path, **settings())) for _ in range(2))
    ports = [port for stack in (first, second) for service in stack.services for port in service.ports.values()]
    assert len(set(ports)) == 4


async def test_all_ports_in_the_way_are_named_at_once(stack_factory: StackFactory) -> None:
    async with stack_factory(**settings()) as first:
        assert first.nats is not None
        taken = {"nats": first.nats.port, "gateway_http": first.port("gateway", "http")}
        async with stack_factory(start=False, **settings(ports=taken)) as second:
            with pytest.raises(PortInUseError) as caught:
                await second.start()
    assert f"Port {taken['nats']} (NATS) is taken by process" in str(caught.value)
    assert f"Port {taken['gateway_http']} (gateway, http) is taken by process" in str(caught.value)
    assert "BACKHAUL_LOCAL_PORTS=gateway_http=PORT" in str(caught.value)


def test_unknown_references_and_ports_are_named(tmp_path: Path) -> None:
    alone = StackConfig(data_dir=tmp_path, services=(GATEWAY,))
    with pytest.raises(SettingError, match=r"STAND_IN_TARGET.*'normalizer_grpc'"):
        Stack(alone)
    with pytest.raises(SettingError, match="Nothing here has a port named gateway_htp"):
        Stack(StackConfig(data_dir=tmp_path, ports={"gateway_htp": 1}))


def test_rows_of_the_real_services_fit_together(tmp_path: Path) -> None:
    stack = Stack(StackConfig(data_dir=tmp_path))
    names = ("gateway", "normalizer", "suppression", "audit", "reconciler", "notifier")
    env = {name: stack.service(name).env for name in names}
    normalizer = env["normalizer"]["BACKHAUL_NORMALIZER_GRPC_LISTEN"]
    suppression = env["suppression"]["BACKHAUL_SUPPRESSION_GRPC_LISTEN"]
    # A caller that is not told asks at the default port, where another stack may be.
    assert env["gateway"]["BACKHAUL_GATEWAY_NORMALIZER_TARGET"] == normalizer
    assert env["gateway"]["BACKHAUL_GATEWAY_SUPPRESSION_TARGET"] == suppression
    audit = env["audit"]["BACKHAUL_AUDIT_GRPC_LISTEN"]
    assert env["gateway"]["BACKHAUL_GATEWAY_AUDIT_TARGET"] == audit
    reconciler = env["reconciler"]["BACKHAUL_RECONCILER_GRPC_LISTEN"]
    assert env["gateway"]["BACKHAUL_GATEWAY_RECONCILER_TARGET"] == reconciler
    notifier = env["notifier"]["BACKHAUL_NOTIFIER_GRPC_LISTEN"]
    assert env["gateway"]["BACKHAUL_GATEWAY_NOTIFIER_TARGET"] == notifier
    assert env["gateway"]["BACKHAUL_GATEWAY_TENANT_DATA_TARGETS"] == f"{suppression},{audit},{reconciler},{notifier}"
    assert env["suppression"]["BACKHAUL_SUPPRESSION_NORMALIZER_TARGET"] == normalizer
    assert env["audit"]["BACKHAUL_AUDIT_NORMALIZER_TARGET"] == normalizer
    assert env["reconciler"]["BACKHAUL_RECONCILER_NORMALIZER_TARGET"] == normalizer
    assert env["notifier"]["BACKHAUL_NOTIFIER_NORMALIZER_TARGET"] == normalizer
    assert env["notifier"]["BACKHAUL_NOTIFIER_PUBLIC_BASE_URL"] == stack.gateway_url
    assert env["gateway"]["BACKHAUL_GATEWAY_PUBLIC_BASE_URL"] == stack.gateway_url


def test_keys_given_as_a_file_stand_alone(tmp_path: Path) -> None:
    stack = Stack(StackConfig(data_dir=tmp_path, env={"BACKHAUL_SECRET_KEYS_FILE": "/run/keys"}))
    assert "BACKHAUL_SECRET_KEYS" not in stack.service("gateway").env


def test_services_may_keep_their_modules_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("LANGUAGE", "eo")
    env = Stack(StackConfig(data_dir=tmp_path)).service("gateway").env
    assert env["LANGUAGE"] == "eo"
    assert "PYTHONDONTWRITEBYTECODE" not in env


def test_services_of_two_versions_run_by_an_interpreter_each(tmp_path: Path) -> None:
    other = replace(NORMALIZER, name="other", python="/opt/before/bin/python")
    stack = Stack(StackConfig(data_dir=tmp_path, services=[NORMALIZER, other]))
    programs = {service.name: list(service.command().argv) for service in stack.services}
    assert programs == {
        "normalizer": [sys.executable, "-m", "stand_in_grpc"],
        "other": ["/opt/before/bin/python", "-m", "stand_in_grpc"],
    }
