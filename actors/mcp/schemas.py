"""JSON schemas of MCP tools: as the registry holds schemas, and as codecs of a method."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from jsonschema import SchemaError, ValidationError, validators
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

from callboard.actors.schema import Signature

_DEFINITIONS = ("$defs", "definitions")
_PLACES = tuple(f"#/{name}/" for name in _DEFINITIONS)


def announced(schema: Mapping[str, Any], root: str) -> dict[str, Any]:
    """A tool's schema as the registry has schemas: classes in ``$defs``, the whole one among them.

    What else stands in the tool's definitions (texts with a pattern, enumerations) goes where it is named.

    Args:
        root: the name of the whole one; another is taken if there is a definition of that name.
    """
    known = {key: one for name in _DEFINITIONS for key, one in (schema.get(name) or {}).items()}
    classes = {key: one for key, one in known.items() if isinstance(one, dict) and one.get("properties")}
    while root in classes:
        root += "_"
    places = _Places(known, frozenset(classes))
    body = {key: places.moved(value) for key, value in schema.items() if key not in _DEFINITIONS}
    found = {key: places.moved(one) for key, one in classes.items()}
    return {"$ref": f"#/$defs/{root}", "$defs": {**found, root: {**body, "title": root}}}


class _Places:
    """Where the definitions of a schema go: classes into ``$defs``, all others to where they are named."""

    def __init__(self, known: Mapping[str, Any], classes: frozenset[str]) -> None:
        self._known = known
        self._classes = classes

    def moved(self, part: Any, within: frozenset[str] = frozenset()) -> Any:
        """A part of the schema with its references as they are there.

        A reference to what it is part of, and that is no class, says nothing any more.
        """
        if isinstance(part, list):
            return [self.moved(one, within) for one in part]
        if not isinstance(part, dict):
            return part
        name = _named(part.get("$ref"))
        rest = {key: self.moved(value, within) for key, value in part.items() if key != "$ref"}
        if "$ref" not in part:
            return rest
        if name in self._classes:
            return {**rest, "$ref": f"#/$defs/{name}"}
        if name not in self._known or name in within:
            return rest
        named = self.moved(self._known[name], within | {name})
        return {**named, **rest} if isinstance(named, dict) else rest


def _known(part: Any) -> Any:
    """A part of a schema without the regular expressions that Python does not know.

    The server that told it holds arguments against them itself.
    """
    if isinstance(part, list):
        return [_known(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {key: _known(value) for key, value in part.items() if key != "pattern" or _compiles(value)}


def _compiles(pattern: Any) -> bool:
    try:
        re.compile(pattern if isinstance(pattern, str) else "")  # a property may have that name
    except re.error:
        return False
    return True


def _named(reference: Any) -> str:
    """The definition that a reference names; empty if it is of another kind."""
    for place in _PLACES:
        if isinstance(reference, str) and reference.startswith(place):
            return reference.removeprefix(place)
    return ""


class SchemaSignature(Signature):
    """Arguments and result of a tool, of which there is a JSON schema and no Python function.

    Args:
        where: ``actor.method``, for error texts.
        arguments: schema of the argument object; result: of the result, None for what nothing is said of.

    Raises:
        SchemaError: the schema is none.
    """

    def __init__(self, where: str, arguments: Mapping[str, Any], result: Mapping[str, Any] | None) -> None:
        self.where = where
        self._arguments: dict[str, Any] = _known(dict(arguments))
        self._result: dict[str, Any] | None = None if result is None else _known(dict(result))
        self._validator = _validator(self._arguments)
        properties = self._arguments.get("properties") or {}
        self._required = frozenset(self._arguments.get("required") or ())
        self._more = bool(self._arguments.get("additionalProperties", not properties))
        self._parts = {name: _part(self._arguments, of) for name, of in properties.items()}
        self.names = tuple(properties)
        self.result_type = Any
        self.keyword_only = frozenset()
        self._positional = len(self.names)
        self._defaults = {name: None for name in properties if name not in self._required}

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """As for any method; a schema may allow more names than it lists."""
        more = {name: kwargs[name] for name in kwargs if self._more and name not in self.names}
        bound = super().bind(args, {name: value for name, value in kwargs.items() if name not in more})
        return {**bound, **more}

    def check(self, body: bytes) -> None:
        """Hold encoded arguments against the schema.

        Raises:
            InvalidArguments: they do not fit.
        """
        self.decode_arguments(body)

    def check_some(self, given: dict[str, Any], bound: Collection[str]) -> None:
        """Hold those arguments that are there already against their schemas.

        Raises:
            InvalidArguments: one does not fit or is missing.
        """
        missing = sorted(self._required - set(bound))
        if missing:
            raise self._invalid(f"missing required arguments {', '.join(f'`{name}`' for name in missing)}")
        for name, value in given.items():
            if name in self._parts:
                self._validate(self._parts[name], _plain(value), name)

    def decode_arguments(self, body: bytes) -> dict[str, Any]:
        """The arguments by name, as JSON has them; defaults are the server's to fill in.

        Raises:
            InvalidArguments: they do not fit the schema.
        """
        try:
            arguments = _plain(msgspec.msgpack.decode(body))
        except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
            raise self._invalid(str(error)) from error
        self._validate(self._validator, arguments, "")
        found: dict[str, Any] = arguments
        return found

    def _validate(self, validator: Validator, value: Any, at: str) -> None:
        try:
            validator.validate(value)
        except ValidationError as error:
            path = ".".join(str(part) for part in [*([at] if at else []), *error.absolute_path])
            raise self._invalid(f"{path}: {error.message}" if path else error.message) from error
        except (Unresolvable, RecursionError, re.error) as error:
            raise self._invalid(f"its schema cannot be followed: {error}") from error

    def decode_result(self, value: bytes | msgspec.Raw) -> Any:
        """The value of a result; the SDK has held it against its schema."""
        return msgspec.msgpack.decode(value)

    def schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The schemas as the registry holds them."""
        if self._result is None:
            return announced(self._arguments, "Arguments"), {}
        title = self._result.get("title")
        name = title if isinstance(title, str) and title.isidentifier() else f"{_camel(self.where)}Result"
        return announced(self._arguments, "Arguments"), announced(self._result, name)


def _camel(where: str) -> str:
    """``odd.get_path`` is ``GetPath``."""
    return "".join(part.capitalize() for part in where.rpartition(".")[2].split("_"))


def _plain(value: Any) -> Any:
    """A value as JSON can say it."""
    return msgspec.to_builtins(value, str_keys=True)


def _validator(schema: Mapping[str, Any]) -> Validator:
    """A validator that fetches nothing: a schema may name addresses, and they are no concern of ours."""
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    kind.check_schema(schema, format_checker=None)
    return kind(schema, registry=Registry())


def _part(schema: Mapping[str, Any], of: Any) -> Validator:
    known = {name: schema[name] for name in (*_DEFINITIONS, "$schema") if name in schema}
    return _validator({**known, **of} if isinstance(of, dict) else {**known})


__all__ = ["SchemaError", "SchemaSignature", "announced"]
