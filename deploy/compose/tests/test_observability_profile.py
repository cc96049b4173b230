"""The profile observability: what its files say of each other. No container runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

COMPOSE = Path(__file__).resolve().parents[1]
CONTAINERS: dict[str, dict[str, Any]] = {
    name: one
    for name, one in yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"].items()
    if "observability" in one.get("profiles", [])
}


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text())
    return document


COLLECTOR, LOKI, TEMPO = read("otel-collector.yaml"), read("loki.yaml"), read("tempo.yaml")
SOURCES = read("../observability/grafana/provisioning/datasources/backhaul.yaml")["datasources"]


def port(address: str) -> int:
    found = urlsplit(address if "//" in address else f"//{address}").port
    assert found is not None, address
    return found


def otlp(receivers: dict[str, Any]) -> set[int]:
    return {port(one["endpoint"]) for one in receivers["otlp"]["protocols"].values()}


LISTENS = {
    "otel-collector": otlp(COLLECTOR["receivers"]),
    "loki": {LOKI["server"]["http_listen_port"]},
    "tempo": {TEMPO["server"]["http_listen_port"]} | otlp(TEMPO["distributor"]["receivers"]),
    "prometheus": {int(one.rpartition(":")[2]) for one in CONTAINERS["prometheus"]["ports"]},
}
"""By container, as its own file says."""


def leads_somewhere(address: str) -> bool:
    place = urlsplit(address if "//" in address else f"//{address}")
    return place.port in LISTENS.get(place.hostname or "", ())


@pytest.mark.parametrize("kind", ["receivers", "processors", "exporters"])
def test_pipelines_are_of_what_is_declared_and_all_of_it(kind: str) -> None:
    named = {one for pipeline in COLLECTOR["service"]["pipelines"].values() for one in pipeline[kind]}
    assert named == set(COLLECTOR[kind])


def test_each_arrow_leads_to_where_somebody_listens() -> None:
    for name, exporter in COLLECTOR["exporters"].items():
        assert leads_somewhere(exporter["endpoint"]), name
    assert {source["type"] for source in SOURCES} == {"prometheus", "tempo", "loki"}
    for source in SOURCES:
        assert leads_somewhere(source["url"]), source["name"]
    # As compose.yaml tells people to set it.
    told = [word for word in (COMPOSE / "compose.yaml").read_text().split() if word.startswith("TRACES_ENDPOINT=")]
    assert told
    for one in told:
        assert leads_somewhere(one.removeprefix("TRACES_ENDPOINT="))


def test_sources_that_name_each_other_are_there() -> None:
    uids = {source["uid"] for source in SOURCES}
    fields = [one for source in SOURCES for one in source.get("jsonData", {}).get("derivedFields", [])]
    assert fields
    assert {one["datasourceUid"] for one in fields} <= uids


@pytest.mark.parametrize("name", [name for name, one in CONTAINERS.items() if "command" in one])
def test_a_container_is_given_the_file_that_it_is_told_to_read(name: str) -> None:
    mounts = {to: COMPOSE / of for of, to, *_ in (one.split(":") for one in CONTAINERS[name]["volumes"])}
    (told,) = [word.partition("=")[2] for word in CONTAINERS[name]["command"] if "config" in word.partition("=")[0]]
    (place,) = [mounts[to] / Path(told).relative_to(to) for to in mounts if Path(told).is_relative_to(to)]
    assert place.is_file()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("loki", [LOKI["common"]["path_prefix"], LOKI["compactor"]["working_directory"]]),
        ("loki", list(LOKI["common"]["storage"]["filesystem"].values())),
        ("tempo", [TEMPO["storage"]["trace"]["local"]["path"], TEMPO["storage"]["trace"]["wal"]["path"]]),
    ],
)
def test_what_is_written_lies_in_a_volume(name: str, written: list[str]) -> None:
    """The container's own files are read-only."""
    volumes = [one.split(":")[1] for one in CONTAINERS[name]["volumes"] if not one.endswith(":ro")]
    assert all(any(Path(path).is_relative_to(volume) for volume in volumes) for path in written)
