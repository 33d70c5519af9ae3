"""The arguments of a workflow on the command line, by the schema that its host has announced."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from callboard.actors.fits import misfit
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

_NOTHING: Final = object()

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

    def read(self, typed: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as JSON can say them: those typed as options, beside those given as JSON.

        Args:
            typed: ``--name value``, ``--name=value``, ``--flag`` and ``--no-flag``. A list is an option with
                several values, an option given several times, or JSON.

        Raises:
            InvalidArguments: one is unknown, missing or of another type; the text lists what there is.
        """
        arguments = dict(given)
        for name, texts in self._options(typed).items():
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

    def _options(self, typed: Sequence[str]) -> dict[str, list[str]]:
        """What was typed for each parameter."""
        found: dict[str, list[str]] = {}
        left = deque(typed)
        while left:
            option = left.popleft()
            if len(option) < 3 or not option.startswith("--"):
                raise self._wrong(f"{option!r} belongs to no option")
            written, equals, text = option[2:].partition("=")
            name, turned_off = self._name(written)
            if turned_off and not equals:
                texts = ["false"]
            else:
                texts = [text] if equals else self._following(name, left)
            found.setdefault(name, []).extend(texts)
        return found

    def _name(self, written: str) -> tuple[str, bool]:
        """The parameter that an option is for, and whether it is the option that turns a flag off."""
        for name in (written, written.replace("-", "_")):
            if name in self._properties:
                return name, False
            flag = name[3:]
            if name.startswith(("no-", "no_")) and "boolean" in self._kinds(self._properties.get(flag, {})):
                return flag, True
        if self._open:
            return written.replace("-", "_"), False
        raise self._wrong(f"there is no parameter {written.replace('-', '_')!r}")

    def _following(self, name: str, left: deque[str]) -> list[str]:
        """Take the values that stand behind an option."""
        kinds = self._kinds(self._properties.get(name, {}))
        if not left or left[0].startswith("--"):
            if "boolean" in kinds or not kinds:
                return ["true"]
            raise self._wrong(f"{name} has no value; one that begins with '--' is written --{name}=--...")
        texts = [left.popleft()]
        while "array" in kinds and left and not left[0].startswith("--"):
            texts.append(left.popleft())
        return texts

    def _value(self, name: str, texts: Sequence[str]) -> Any:
        schema = self._properties.get(name, {})
        if len(texts) == 1:
            for value in self._readings(texts[0], schema):
                return value
            raise self._wrong(f"{name} is {texts[0]!r}, which is no {self._named(schema)}")
        arrays = [one for one in self._alternatives(schema) if "array" in self._kinds(one)]
        if not arrays and self._kinds(schema):
            raise self._wrong(f"{name} was given {len(texts)} times")
        items: list[Any] = []
        for place, text in enumerate(texts):
            item = _item(arrays[0] if arrays else {}, place)
            value = next(self._readings(text, item), _NOTHING)
            if value is _NOTHING:
                raise self._wrong(f"{name} holds {text!r}, which is no {self._named(item)}")
            items.append(value)
        return items

    def _readings(self, text: str, schema: Mapping[str, Any]) -> Iterator[Any]:
        """What a text can mean, the likeliest first: what is no text goes first, since any text is a text."""
        alternatives = sorted(self._alternatives(schema), key=lambda one: "string" in self._kinds(one))
        for one in alternatives:
            for value in (text,) if self._kinds(one) == {"string"} else (_json(text), text):
                if self._fits(value, one):
                    yield value
        for one in alternatives:
            item = _item(self._resolved(one), 0)
            whole = isinstance(_json(text), list) and "array" not in self._kinds(item)
            if "array" in self._kinds(one) and not whole:
                yield from ([value] for value in self._readings(text, item))

    def _fits(self, value: Any, schema: Mapping[str, Any]) -> bool:
        """Whether a value is what a schema allows, as far as a command line needs to know."""
        alternatives = self._alternatives(schema)
        if len(alternatives) > 1:
            return any(self._fits(value, one) for one in alternatives)
        schema = self._resolved(schema)
        if "enum" in schema:
            return any(type(value) is type(one) and value == one for one in schema["enum"])
        kinds = self._kinds(schema)
        if kinds and not _kinds_of(value) & kinds:
            return False
        if isinstance(value, list):
            return all(self._fits(one, _item(schema, place)) for place, one in enumerate(value))
        return not (schema.get("contentEncoding") == "base64" and isinstance(value, str)) or _is_base64(value)

    def _check(self, arguments: Mapping[str, Any]) -> None:
        if self._open:
            return
        for name, value in arguments.items():
            schema = self._properties.get(name)
            if schema is None:
                raise self._wrong(f"there is no parameter {name!r}")
            if not self._fits(value, schema):
                raise self._wrong(f"{name} is {value!r}, which is no {self._named(schema)}")
            if problem := misfit(value, {**schema, "$defs": self._definitions}, name):
                raise self._wrong(problem)
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

    def _alternatives(self, schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The schemas of a union; else the one."""
        found: list[Mapping[str, Any]] = self._resolved(schema).get("anyOf") or [schema]
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


def _item(array: Mapping[str, Any], place: int) -> Mapping[str, Any]:
    """The schema of an item of an array."""
    first: list[Mapping[str, Any]] = array.get("prefixItems") or []
    item: Mapping[str, Any] = first[place] if place < len(first) else array.get("items") or {}
    return item


def _json(text: str) -> Any:
    """What a text says as JSON; itself if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _kinds_of(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    return {kind for kind, types in _PYTHON.items() if kind != "boolean" and isinstance(value, types)}
