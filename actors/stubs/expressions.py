"""JSON schemas, with the hints of :mod:`callboard.actors.hints`, as Python type expressions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from callboard.actors.hints import Hint, hint_of
from callboard.actors.stubs.words import Imports, literal, quoted

Schema = Mapping[str, Any]

_REMOTE = "callboard.actors.stubs.remote"
_FORMATS = {
    "date": ("datetime", "date"),
    "date-time": ("datetime", "datetime"),
    "time": ("datetime", "time"),
    "partial-time": ("datetime", "time"),
    "duration": ("datetime", "timedelta"),
    "uuid": ("uuid", "UUID"),
    "decimal": ("decimal", "Decimal"),
}
_HINTED = {"datetime": ("datetime", "datetime"), "time": ("datetime", "time")}
_PLAIN = {"boolean": "bool", "integer": "int", "number": "float", "string": "str"}
_NUMBER = {
    "exclusiveMinimum": "gt",
    "minimum": "ge",
    "exclusiveMaximum": "lt",
    "maximum": "le",
    "multipleOf": "multiple_of",
}
_LENGTH = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "minProperties": "min_length",
    "maxProperties": "max_length",
}


def name_in(reference: str) -> str:
    """The definition that a ``$ref`` names."""
    return reference.rpartition("/")[2]


class Expressions:
    """Type expressions of the schemas in one document.

    Args:
        imports: of the module that they stand in.
        classes: Python names of the document's definitions.
        definitions: the definitions themselves.
    """

    def __init__(self, imports: Imports, classes: Mapping[str, str], definitions: Schema) -> None:
        self._imports = imports
        self._classes = classes
        self._definitions = definitions

    def plain(self, schema: Schema) -> str:
        """The type of a value."""
        return self._annotated(schema, as_argument=False)

    def argument(self, schema: Schema) -> str:
        """The type of an argument: of a value, or of a future, or of a value with futures in it."""
        return f"{self._imports.name(_REMOTE, 'Arg')}[{self._annotated(schema, as_argument=True)}]"

    # -- types -------------------------------------------------------------------------------------

    def _annotated(self, schema: Schema, *, as_argument: bool) -> str:
        kind = self._type(schema, as_argument=as_argument)
        meta = _meta(schema)
        if not meta:
            return kind
        told = ", ".join(f"{key}={value}" for key, value in meta.items())
        annotated = self._imports.name("typing", "Annotated")
        return f"{annotated}[{kind}, {self._imports.dotted('msgspec', 'Meta')}({told})]"

    def _type(self, schema: Schema, *, as_argument: bool) -> str:
        if "$ref" in schema:
            return self._classes.get(name_in(schema["$ref"])) or self._any()
        if "anyOf" in schema:
            return self._union(schema["anyOf"], as_argument=as_argument)
        if "enum" in schema:
            return self._literal(schema["enum"])
        kind = schema.get("type")
        if kind == "array":
            return self._array(schema, as_argument=as_argument)
        if kind == "object":
            return self._object(schema, as_argument=as_argument)
        return self._scalar(schema, hint_of(schema))

    def _scalar(self, schema: Schema, hint: Hint) -> str:
        kind = schema.get("type")
        if kind == "null":
            return "None"
        if kind == "string":
            if schema.get("contentEncoding") == "base64":
                return self._imports.builtin("bytearray" if hint.type == "bytearray" else "bytes")
            known = _HINTED.get(hint.type) or _FORMATS.get(schema.get("format", ""))
            if known:
                return self._imports.name(*known)
        builtin = _PLAIN.get(str(kind))
        return self._imports.builtin(builtin) if builtin else self._any()

    def _union(self, options: list[Schema], *, as_argument: bool) -> str:
        kinds: list[str] = []
        for option in options:
            kind = self._annotated(option, as_argument=as_argument)
            kinds += [one for one in [kind] if one not in kinds]
        return " | ".join(kinds) or self._any()

    def _literal(self, values: list[Any]) -> str:
        if not all(value is None or isinstance(value, str | int) for value in values):
            return self._any()
        return f"{self._imports.name('typing', 'Literal')}[{', '.join(literal(value) for value in values)}]"

    def _array(self, schema: Schema, *, as_argument: bool) -> str:
        if "prefixItems" in schema or schema.get("maxItems") == 0:
            items = [self._part(item, as_argument=as_argument) for item in schema.get("prefixItems", ())]
            return f"{self._imports.builtin('tuple')}[{', '.join(items) or '()'}]"
        hint = hint_of(schema)
        item = self._part(schema.get("items", {}), as_argument=as_argument)
        if hint.type == "tuple":
            return f"{self._imports.builtin('tuple')}[{item}, ...]"
        if schema.get("uniqueItems"):
            if hint.type == "frozenset":
                return f"{self._imports.builtin('frozenset')}[{item}]"
            return f"{self._set(as_argument=as_argument)}[{item}]"
        items_of = self._imports.name(_REMOTE, "Items") if as_argument else self._imports.builtin("list")
        return f"{items_of}[{item}]"

    def _set(self, *, as_argument: bool) -> str:
        return self._imports.name("collections.abc", "Set") if as_argument else self._imports.builtin("set")

    def _object(self, schema: Schema, *, as_argument: bool) -> str:
        keys = hint_of(schema).keys
        key = self._imports.builtin("str") if keys is None else self.plain(keys)
        rest = schema.get("additionalProperties")
        value = self._part(rest if isinstance(rest, Mapping) else {}, as_argument=as_argument)
        if as_argument:
            return f"{self._imports.name('collections.abc', 'Mapping')}[{key}, {value}]"
        return f"{self._imports.builtin('dict')}[{key}, {value}]"

    def _part(self, schema: Schema, *, as_argument: bool) -> str:
        return self.argument(schema) if as_argument else self.plain(schema)

    def _any(self) -> str:
        return self._imports.name("typing", "Any")

    # -- defaults ----------------------------------------------------------------------------------

    def default(self, schema: Schema) -> str | None:
        """The default that stands in a schema, if a plain expression gives it: not a mutable one."""
        return self._value(schema, schema["default"]) if "default" in schema else None

    def converted(self, schema: Schema) -> str:
        """An expression that makes the default of a schema anew."""
        convert = self._imports.dotted("msgspec", "convert")
        value = schema["default"]
        keys = ", str_keys=True" if isinstance(value, dict) else ""
        return f"{convert}({literal(value)}, {self.plain(schema)}{keys})"

    def _value(self, schema: Schema, value: Any) -> str | None:
        if "$ref" in schema:
            return self._member(name_in(schema["$ref"]), value)
        if "anyOf" in schema:
            found = (self._value(option, value) for option in schema["anyOf"])
            return next((expression for expression in found if expression is not None), None)
        if "enum" in schema:
            return literal(value) if value in schema["enum"] else None
        return self._plain_value(schema, value)

    def _plain_value(self, schema: Schema, value: Any) -> str | None:
        kind = schema.get("type")
        if value is None:
            return "None" if kind in {None, "null"} else None
        if kind == "string" and schema.get("format") == "date":
            return self._date(value)
        if "format" in schema or "contentEncoding" in schema or hint_of(schema).type:
            return None
        fits = kind is None or type(value).__name__ == _PLAIN.get(kind)
        if isinstance(value, str | int | float) and (fits or (kind == "number" and isinstance(value, int))):
            return literal(value)
        return None

    def _date(self, value: str) -> str | None:
        try:
            day = dt.date.fromisoformat(value)
        except ValueError:
            return None
        return f"{self._imports.name('datetime', 'date')}({day.year}, {day.month}, {day.day})"

    def _member(self, name: str, value: Any) -> str | None:
        members = hint_of(self._definitions.get(name, {})).members
        found = next((key for key, one in members.items() if one == value), None)
        return f"{self._classes[name]}.{found}" if found is not None and name in self._classes else None


def _meta(schema: Schema) -> dict[str, str]:
    """The arguments of ``msgspec.Meta`` that say again what a schema demands."""
    told: dict[str, str] = {}
    if "$ref" not in schema:
        told |= {ours: literal(schema[key]) for key, ours in _NUMBER.items() if _is_number(schema.get(key))}
        if isinstance(schema.get("pattern"), str):
            told["pattern"] = quoted(schema["pattern"])
        if "prefixItems" not in schema and "contentEncoding" not in schema:
            told |= {
                ours: literal(schema[key]) for key, ours in _LENGTH.items() if _is_number(schema.get(key))
            }
        hint = hint_of(schema)
        if schema.get("format") in {"date-time", "time"}:
            told["tz"] = "True"
        elif hint.naive:
            told["tz"] = "False"
    if isinstance(schema.get("description"), str):
        told["description"] = quoted(schema["description"])
    return told


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
