"""Kubernetes' own schemas, of the wheel kubernetes-validate; its function reads and compiles them for every object anew."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from tests.support.chart.render import Object


def faults(document: Object, version: str) -> Iterator[str]:
    """Yield what the API of this version (1.33) would refuse, and every field it would drop in silence.

    Raises:
        FileNotFoundError: Kubernetes has no such kind.
    """
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", document["apiVersion"])
    validator = _validator(version, f"{document['kind'].lower()}-{group}.json")
    for error in validator.iter_errors(document):
        yield f"{document['kind']} {document['metadata']['name']}: {error.json_path}: {error.message}"


@functools.cache
def _validator(version: str, file: str) -> Any:
    folder = _folder(version)
    schema = json.loads((folder / file).read_text(encoding="utf-8"))
    registry = _definitions(version).with_resource(folder.as_uri(), Resource.from_contents(schema))
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _definitions(version: str) -> Any:
    text = (_folder(version) / "_definitions.json").read_text(encoding="utf-8")
    return Resource.from_contents(json.loads(text)) @ Registry()


def _folder(version: str) -> Path:
    package = pytest.importorskip("kubernetes_validate")
    folder = Path(package.__file__).parent / "kubernetes-json-schema"
    return folder / f"v{version}.0-local-strict"
