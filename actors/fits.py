"""Whether a value fits a JSON schema, as far as the schemas go that annotations give."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from callboard.actors.hints import KEYWORD

_DEEPEST = 64

_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: (isinstance(v, int) and not isinstance(v, bool)) or _is_finite(v),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
    "null": lambda v: v is None,
}


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _is_multiple(value: float, of: float) -> bool:
    if isinstance(value, int) and isinstance(of, int):
        return of == 0 or value % of == 0
    return of == 0 or math.isclose(math.remainder(value, of), 0.0, abs_tol=1e-9)


_BOUNDS: dict[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool], str]] = {
    "minimum": ((int, float), lambda v, b: v >= b, "is less than"),
    "maximum": ((int, float), lambda v, b: v <= b, "is more than"),
    "exclusiveMinimum": ((int, float), lambda v, b: v > b, "is not more than"),
    "exclusiveMaximum": ((int, float), lambda v, b: v < b, "is not less than"),
    "minLength": (str, lambda v, b: len(v) >= b, "is shorter than"),
    "maxLength": (str, lambda v, b: len(v) <= b, "is longer than"),
    "minItems": (list, lambda v, b: len(v) >= b, "has fewer items than"),
    "maxItems": (list, lambda v, b: len(v) <= b, "has more items than"),
    "multipleOf": ((int, float), _is_multiple, "is no multiple of"),
    "pattern": (str, lambda v, b: re.search(b, v) is not None, "does not match"),
}

_FORMATS: dict[str, type] = {
    "date": dt.date,
    "date-time": dt.datetime,
    "datetime": dt.datetime,
    "time": dt.time,
    "duration": dt.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "base64": bytes,
}


def misfit(value: Any, schema: Mapping[str, Any], name: str = "it") -> str:
    """Why a value does not fit a schema; empty if it does. Of formats, those of annotations are known.

    Args:
        name: what the value is called in the answer.
    """
    known = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    return _misfit(value, schema, known, name, _DEEPEST)


def _misfit(value: Any, schema: Mapping[str, Any], known: Mapping[str, Any], at: str, depth: int) -> str:
    if not depth:
        return f"{at} is nested too deep"
    reference = schema.get("$ref")
    if reference is not None:
        return _misfit(value, known.get(str(reference).rpartition("/")[2], {}), known, at, depth - 1)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        found = [_misfit(value, option, known, at, depth - 1) for option in options]
        if not all(found):
            return ""
        meant = [why for why, option in zip(found, options, strict=True) if _is_kind(value, option, known)]
        if len(meant) == 1:
            return meant[0]
        return f"{at} is {_short(value)}, expected {' or '.join(_named(one, known) for one in options)}"
    also = (_misfit(value, one, known, at, depth - 1) for one in schema.get("allOf", ()))
    return (
        _plain(value, schema, at)
        or _parts(value, schema, known, at, depth - 1)
        or next(filter(None, also), "")
    )


def _named(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """What a schema asks for, in a word or a few."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    of = known.get(name, {}) if name else schema
    allowed = [of["const"]] if "const" in of else of.get("enum")
    if allowed is not None:
        return " or ".join(map(_short, allowed))
    kinds = of.get("type", "anything")
    plain = kinds if isinstance(kinds, str) else " or ".join(kinds)
    return str(of.get("format") or (name if plain == "object" else "") or plain)


def _is_kind(value: Any, schema: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether a value fits a schema but for its parts."""
    reference = schema.get("$ref")
    of = schema if reference is None else known.get(str(reference).rpartition("/")[2], {})
    return not _plain(value, of, "")


def _plain(value: Any, schema: Mapping[str, Any], at: str) -> str:
    """Why a value does not fit, its parts left aside."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind](value) for kind in kinds if kind in _TYPES):
        return f"{at} is {_short(value)}, expected {' or '.join(kinds)}"
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and not any(type(value) is type(one) and value == one for one in allowed):
        return f"{at} is {_short(value)}, expected one of {', '.join(map(_short, allowed))}"
    for name, (types, holds, words) in _BOUNDS.items():
        if name in schema and isinstance(value, types) and not holds(value, schema[name]):
            return f"{at} is {_short(value)}, which {words} {schema[name]}"
    form = schema.get("format") or schema.get("contentEncoding") or schema.get(KEYWORD, {}).get("type")
    if isinstance(value, str) and form in _FORMATS and not _reads(value, _FORMATS[form]):
        return f"{at} is {_short(value)}, which is no {form}"
    return ""


def _reads(text: str, kind: type) -> bool:
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return False
    return True


def _parts(value: Any, schema: Mapping[str, Any], known: Mapping[str, Any], at: str, depth: int) -> str:
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        rest = schema.get("items", {})
        for place, item in enumerate(value):
            of = first[place] if place < len(first) else rest if isinstance(rest, dict) else {}
            if problem := _misfit(item, of, known, f"{at}[{place}]", depth):
                return problem
    if isinstance(value, dict):
        if missing := [name for name in schema.get("required", []) if name not in value]:
            return f"{at} lacks {', '.join(missing)}"
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, part in value.items():
            of = properties.get(name, others)
            if of is False:
                return f"{at} has {name}, which is not asked for"
            if problem := _misfit(part, of if isinstance(of, dict) else {}, known, f"{at}.{name}", depth):
                return problem
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
