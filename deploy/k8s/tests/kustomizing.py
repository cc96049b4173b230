"""What ``kubectl kustomize`` makes of a folder, for the part of kustomize that the manifests use: resources, a
namespace, labels, images, and patches by strategic merge. Not every machine has kubectl; where it is, a test holds this
to it. What is not known here is an error, so that nothing of a kustomization is left out unseen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

KEYS = {
    "containers": "name",
    "env": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists that are merged, by what tells their members apart; all others are replaced."""

_KNOWN = {"apiVersion", "kind", "resources", "namespace", "labels", "images", "patches"}


def documents(path: Path) -> list[Document]:
    """Those of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def build(folder: Path) -> list[Document]:
    """All documents of a kustomization, patched."""
    (plan,) = documents(folder / "kustomization.yaml")
    if unknown := plan.keys() - _KNOWN:
        raise NotImplementedError(f"{folder.name}/kustomization.yaml: {sorted(unknown)}")
    made: list[Document] = []
    for resource in plan["resources"]:
        path = folder / resource
        made += build(path.resolve()) if path.is_dir() else documents(path)
    for patch in plan.get("patches", []):
        _patch(made, documents(folder / patch["path"]), patch.get("target"))
    for document in made:
        for labels in plan.get("labels", []):
            _label(document, labels)
        if "namespace" in plan and document["kind"] != "Namespace":
            document["metadata"]["namespace"] = plan["namespace"]
        _rename_images(document, plan.get("images", []))
    return made


def _patch(made: list[Document], changes: list[Document], target: dict[str, str] | None) -> None:
    for change in changes:
        chosen = [document for document in made if _chosen(document, change, target)]
        if not chosen:
            raise ValueError(f"A patch of {change['kind']} {change['metadata']['name']} changes nothing")
        for document in chosen:
            merge(document, _without_names(change))


def _rename_images(document: Document, images: list[dict[str, str]]) -> None:
    by_name = {image["name"]: f"{image.get('newName', image['name'])}:{image['newTag']}" for image in images}
    for container in containers(document):
        container["image"] = by_name.get(container["image"], container["image"])


def _chosen(document: Document, change: Document, target: dict[str, str] | None) -> bool:
    if target is None:
        return bool(document["kind"] == change["kind"] and document["metadata"]["name"] == change["metadata"]["name"])
    name, _, value = target.get("labelSelector", "").partition("=")
    labels = document["metadata"].get("labels", {})
    return bool(document["kind"] == target["kind"] and (not name or labels.get(name) == value))


def _without_names(change: Document) -> Document:
    rest = copy.deepcopy(change)
    for name in ("apiVersion", "kind"):
        del rest[name]
    del rest["metadata"]["name"]
    return rest


def merge(into: Document, change: Document) -> None:
    """Lay ``change`` over ``into``."""
    for name, value in change.items():
        old = into.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            merge(old, value)
        elif isinstance(value, list) and isinstance(old, list) and (key := KEYS.get(name)):
            for item in value:
                if same := next((one for one in old if one[key] == item[key]), None):
                    merge(same, item)
                else:
                    old.append(copy.deepcopy(item))
        else:
            into[name] = copy.deepcopy(value)


def _label(document: Document, labels: dict[str, Any]) -> None:
    document["metadata"].setdefault("labels", {}).update(labels["pairs"])
    if labels.get("includeTemplates") and (template := document.get("spec", {}).get("template")):
        template.setdefault("metadata", {}).setdefault("labels", {}).update(labels["pairs"])
    for claim in document.get("spec", {}).get("volumeClaimTemplates", []) if labels.get("includeTemplates") else []:
        claim["metadata"].setdefault("labels", {}).update(labels["pairs"])


def containers(document: Document) -> list[Document]:
    """Those of the pods that a document makes, the ones that run first included."""
    spec = document.get("spec", {}).get("template", {}).get("spec", {})
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def ordered(value: Any) -> Any:
    """The same with merged lists in the order of their keys, so that two makers of it can be compared."""
    if isinstance(value, dict):
        return {
            name: sorted((ordered(one) for one in inner), key=lambda one: str(one[KEYS[name]]))
            if name in KEYS and all(isinstance(one, dict) and KEYS[name] in one for one in inner)
            else ordered(inner)
            for name, inner in value.items()
        }
    return [ordered(one) for one in value] if isinstance(value, list) else value
