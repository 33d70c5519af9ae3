"""The arguments of a workflow on the command line, by the schema that its host has announced."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from callboard.infra.errors import InvalidArguments
from callboard.infra.messages.registry import ActorInfo

_PYTHON: Final[dict[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}

_EXAMPLES: Final[dict[str, Any]] = {
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}

_FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "decimal": "1.5",
}


class Parameters:
    """The parameters of a workflow.

    Args:
        workflow: as its host has announced it.
    """

    def __init__(self, workflow: ActorInfo) -> None:
        self._workflow = workflow.name
        schema = workflow.methods[0].arguments if workflow.methods else {}
        self._definitions = schema.get("$defs", {})
        body = self._resolved(schema)
        self._properties: dict[str, dict[str, Any]] = body.get("properties", {})
        self._required: list[str] = body.get("required", [])
        self._open = not schema

    def read(self, options: Mapping[str, Sequence[str]], given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments from options, each with the texts it was given, beside those given as JSON.

        Raises:
            InvalidArguments: one is unknown, missing or of another type; the text lists what there is.
        """
        arguments = dict(given)
        for option, texts in options.items():
            name = option if option in self._properties else option.replace("-", "_")
            arguments[name] = self._value(name, texts)
        self._check(arguments)
        return arguments

    def usage(self) -> str:
        """The parameters with their types, one a line."""
        if not self._properties:
            return f"{self._workflow} takes no arguments"
        lines = [
            f"  --{name} {self._named(of)}{self._default(name)}" for name, of in self._properties.items()
        ]
        return "\n".join([f"{self._workflow} takes:", *lines])

    def example(self) -> dict[str, Any]:
        """Arguments of the right types, required ones only."""
        return {name: self._example(self._properties[name]) for name in self._required}

    # -- reading --------------------------------------------------------------------------------------

    def _value(self, name: str, texts: Sequence[str]) -> Any:
        schema = self._properties.get(name)
        if schema is None and not self._open:
            raise self._wrong(f"there is no parameter {name!r}")
        kinds = self._kinds(schema or {})
        if len(texts) == 1:
            return self._parsed(name, texts[0], schema or {}, kinds)
        if kinds and "array" not in kinds:
            raise self._wrong(f"{name} was given {len(texts)} times")
        item = self._resolved((schema or {}).get("items", {}))
        return [self._parsed(name, text, item, self._kinds(item)) for text in texts]

    def _parsed(self, name: str, text: str, schema: Mapping[str, Any], kinds: set[str]) -> Any:
        if kinds == {"string"}:
            return self._bytes(name, text) if self._resolved(schema).get("contentEncoding") else text
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if not kinds or _fits(value, kinds):
            return value
        if "string" in kinds:
            return text
        raise self._wrong(f"{name} is {text!r}, which is no {' or '.join(sorted(kinds))}")

    def _bytes(self, name: str, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise self._wrong(f"{name} must be base64: {error}") from error

    def _check(self, arguments: Mapping[str, Any]) -> None:
        if self._open:
            return
        for name, value in arguments.items():
            schema = self._properties.get(name)
            if schema is None:
                raise self._wrong(f"there is no parameter {name!r}")
            kinds = self._kinds(schema)
            if kinds and not isinstance(value, bytes) and not _fits(value, kinds):
                raise self._wrong(f"{name} is {value!r}, which is no {' or '.join(sorted(kinds))}")
        missing = [name for name in self._required if name not in arguments]
        if missing:
            raise self._wrong(f"{', '.join(missing)} missing")

    def _wrong(self, problem: str) -> InvalidArguments:
        return InvalidArguments(
            f"{self._workflow}: {problem}\n{self.usage()}", actor=self._workflow, method="run"
        )

    # -- the schema -------------------------------------------------------------------------------------

    def _resolved(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        reference = schema.get("$ref")
        if reference is None:
            return dict(schema)
        found: dict[str, Any] = self._definitions.get(str(reference).rpartition("/")[2], {})
        return found

    def _kinds(self, schema: Mapping[str, Any]) -> set[str]:
        """The JSON types a schema allows; none means any."""
        schema = self._resolved(schema)
        if "anyOf" in schema:
            every = [self._kinds(one) for one in schema["anyOf"]]
            return set().union(*every) if all(every) else set()
        if "enum" in schema:
            return {kind for value in schema["enum"] for kind in _kinds_of(value)}
        kind = schema.get("type")
        return {kind} if isinstance(kind, str) else set(kind or ())

    def _named(self, schema: Mapping[str, Any]) -> str:
        """What to type, in a word or two."""
        schema = self._resolved(schema)
        if "anyOf" in schema:
            return "|".join(self._named(one) for one in schema["anyOf"])
        if "enum" in schema:
            return "|".join(str(value) for value in schema["enum"])
        special = schema.get("format") or schema.get("contentEncoding")
        return str(special or "|".join(sorted(self._kinds(schema))) or "anything")

    def _default(self, name: str) -> str:
        if name in self._required:
            return " (required)"
        default = self._properties[name].get("default")
        return "" if default is None else f" (default {json.dumps(default)})"

    def _example(self, schema: Mapping[str, Any]) -> Any:
        schema = self._resolved(schema)
        if schema.get("enum"):
            return schema["enum"][0]
        if "anyOf" in schema:
            return self._example(schema["anyOf"][0])
        kind = schema.get("type", "string")
        if kind == "object" and schema.get("required"):
            return {name: self._example(schema["properties"][name]) for name in schema["required"]}
        if kind == "string":
            return _FORMATS.get(schema.get("format", ""), "...")
        return _EXAMPLES.get(kind, "...")


def _fits(value: Any, kinds: set[str]) -> bool:
    return bool(_kinds_of(value) & kinds)


def _kinds_of(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    return {kind for kind, types in _PYTHON.items() if kind != "boolean" and isinstance(value, types)}
