"""The Engine API's specification, version 1.51, as JSON Schema: what tests compare answers with."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

SPECIFICATION = Path(__file__).parents[3] / "shared" / "reference" / "engine-api-v1.51.yaml"


@cache
def specification() -> dict[str, Any]:
    """The document; where it is missing the test is skipped."""
    if not SPECIFICATION.exists():
        pytest.skip(
            f"the API's specification is not here: {SPECIFICATION.name} is expected in shared/reference beside the checkout"
        )
    with open(SPECIFICATION, encoding="utf-8") as file:
        document: dict[str, Any] = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return document


def as_json_schema(schema: Any) -> Any:
    """Swagger's schema as JSON Schema. Go writes null for an empty list or map, so those may be null everywhere."""
    if isinstance(schema, list):
        return [as_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        k: as_json_schema(v) for k, v in schema.items() if k not in ("example", "format", "description", "default")
    }
    if "$ref" in result and isinstance(result["$ref"], str):
        return {"anyOf": [{"$ref": result["$ref"]}, {"type": "null"}]}
    if isinstance(result.get("type"), str) and (schema.get("x-nullable") or result["type"] in ("array", "object")):
        result["type"] = [result["type"], "null"]
        if "enum" in result:
            result["enum"] = [*result["enum"], None]
    return result


@cache
def definitions() -> Any:
    """The specification's named schemas."""
    return as_json_schema(specification()["definitions"])


@cache
def _validator(method: str, path: str, status: int) -> Draft202012Validator | None:
    """What compares an endpoint's answer; None if there is to be no body."""
    schema = specification()["paths"][path][method.lower()]["responses"][status].get("schema")
    return schema and Draft202012Validator({**as_json_schema(schema), "definitions": definitions()})


@cache
def _object_validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/definitions/{name}", "definitions": definitions()})


def check(method: str, path: str, status: int, body: Any) -> None:
    """Compare a body with what the specification says of an endpoint's answer; an unknown endpoint fails."""
    answers = specification()["paths"][path][method.lower()]["responses"]
    assert status in answers, f"{method} {path} may not answer {status}"
    validator = _validator(method, path, status)
    if validator is None:
        assert body in (None, b"", ""), f"{method} {path} {status} has a body: {body!r}"
        return
    validator.validate(body)


def check_object(name: str, value: Any) -> None:
    """Compare an object, as of a stream, with one of the specification's named schemas."""
    _object_validator(name).validate(value)
