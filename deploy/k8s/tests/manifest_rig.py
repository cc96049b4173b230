"""What the tests of the manifests ask of them: documents by kind, whether one is valid, and whose settings."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import jsonschema_rs
from backhaul_common.settings import CommonSettings
from backhaul_local.service import default_services
from kustomizing import Document

SPECS = {spec.name: spec for spec in default_services()}
SERVICES = set(SPECS)
_HERE = Path(__file__).parent
_KUBERNETES = json.loads((_HERE / "kubernetes-1.33.json").read_text())
_SCALED_OBJECT = jsonschema_rs.Draft202012Validator(json.loads((_HERE / "keda-scaledobject.json").read_text()))


def of_kind(manifests: list[Document], *kinds: str) -> dict[str, Document]:
    """Those of some kinds, by their names."""
    return {document["metadata"]["name"]: document for document in manifests if document["kind"] in kinds}


def workloads(manifests: list[Document]) -> dict[str, Document]:
    """What makes pods that stay, by its name."""
    return of_kind(manifests, "Deployment", "StatefulSet")


def problems(document: Document) -> list[str]:
    """What is not as Kubernetes, or KEDA, wants it."""
    if document["kind"] == "ScaledObject":
        return [str(error) for error in _SCALED_OBJECT.iter_errors(document)]
    definition = _KUBERNETES["kinds"][document["kind"]]
    schema = {"$ref": f"#/$defs/{definition}", "$defs": _KUBERNETES["$defs"]}
    return [str(error) for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(document)]


def settings_of(service: str) -> type[CommonSettings]:
    """The class that reads a service's environment."""
    module = vars(importlib.import_module(f"backhaul_{service}.settings"))
    (found,) = [
        value
        for value in module.values()
        if isinstance(value, type) and issubclass(value, CommonSettings) and value.__module__ == module["__name__"]
    ]
    return found
