"""JSON as docker's clients write it and Go reads it: names in any case, null for whatever has no value, 64-bit numbers, any bytes.

``msgspec`` is stricter in all of these, so a document is brought into the shape of its type first.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
from msgspec import inspect

T = TypeVar("T")

_INT64 = range(-(1 << 63), 1 << 63)
_SURROGATES = re.compile(
    rb"(?P<whole>\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_LONGEST_INTEGER = 20
_ZEROS: Mapping[type[inspect.Type], Any] = {inspect.StrType: "", inspect.IntType: 0, inspect.BoolType: False}


class InvalidDocument(ValueError):
    """A document is no JSON, or does not have the form of its type."""


def decode(data: bytes, kind: type[T]) -> T:
    """Read a document. Raises InvalidDocument with a text that names the place."""
    try:
        return msgspec.convert(_shaped(_decode(data), _type_of(cast(Hashable, kind))), kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidDocument(str(error)) from None
    except RecursionError:
        raise InvalidDocument("it is nested too deeply") from None


def _decode(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # maybe it is only its characters that are none; Go puts U+FFFD in their place
        text = data.decode("utf-8", "replace").encode()
        return msgspec.json.decode(_SURROGATES.sub(lambda m: m[0] if m["whole"] else rb"\ufffd", text))


def integer(text: str) -> int:
    """A whole number of 64 bits in decimal. Raises ValueError."""
    if len(text) > _LONGEST_INTEGER or int(text) not in _INT64:
        raise ValueError("out of range")
    return int(text)


@cache
def _type_of(kind: Hashable) -> inspect.Type:
    return inspect.type_info(kind)


@cache
def _fields_of(kind: type) -> dict[str, inspect.Field]:
    info = _type_of(kind)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name.lower(): field for field in info.fields}


def _shaped(value: Any, kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.UnionType):
        kind = next((k for k in kind.types if _fits(value, k)), inspect.AnyType())
    if isinstance(value, dict) and isinstance(kind, inspect.StructType):
        return _struct(value, kind.cls)
    if isinstance(value, dict) and isinstance(kind, inspect.DictType):
        return {name: _shaped(item, kind.value_type) for name, item in value.items()}
    if isinstance(value, list) and isinstance(kind, inspect.ListType):
        return [_shaped(item, kind.item_type) for item in value]
    if value is None:
        return _ZEROS.get(type(kind))
    if isinstance(value, int) and value not in _INT64:
        raise InvalidDocument(f"number {value if value.bit_length() < 200 else '…'} is out of range")
    return value


def _struct(value: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The fields that *kind* has, by their own names; what is null was not given."""
    fields = _fields_of(kind)
    shaped = {}
    for name, item in value.items():
        field = fields.get(name.lower())
        if field is not None and item is not None:
            shaped[field.encode_name] = _shaped(item, field.type)
    return shaped


def _fits(value: Any, kind: inspect.Type) -> bool:
    if isinstance(value, dict):
        return isinstance(kind, inspect.StructType | inspect.DictType)
    if isinstance(value, list):
        return isinstance(kind, inspect.ListType)
    if isinstance(value, str):
        return isinstance(kind, inspect.StrType)
    return isinstance(kind, inspect.NoneType) if value is None else not isinstance(kind, inspect.NoneType)
