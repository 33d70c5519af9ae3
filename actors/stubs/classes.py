"""The definitions in a schema as Python classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from callboard.actors.hints import Hint, hint_of
from callboard.actors.stubs.expressions import Expressions, Schema
from callboard.actors.stubs.kinds import Kind, members
from callboard.actors.stubs.layout import INDENT, bracketed
from callboard.actors.stubs.words import Imports, docstring, identifier, literal, quoted

_BASES = {
    "StrEnum": ("StrEnum",),
    "IntFlag": ("IntFlag",),
    "IntEnum": ("IntEnum",),
    "Flag": ("Flag",),
    "str": ("str", "Enum"),
    "int": ("int", "Enum"),
}


def is_enum(kind: Kind) -> bool:
    """Whether a class is an enum; those stand first, since defaults name their members."""
    return "enum" in kind.schema


def write_class(kind: Kind, imports: Imports) -> list[str]:
    """The lines of a class."""
    if is_enum(kind):
        return _enum(kind, imports)
    hint = hint_of(kind.schema)
    fields = _Fields(kind, imports)
    if hint.type == "typeddict" and fields.are_names:
        return fields.as_typed_dict()
    if hint.type == "namedtuple" and fields.are_plain:
        return fields.as_named_tuple()
    return fields.as_struct(hint)


def _enum(kind: Kind, imports: Imports) -> list[str]:
    hint = hint_of(kind.schema)
    members_by_name = hint.members or {identifier(str(v)): v for v in kind.schema["enum"]}
    names = _BASES.get(hint.type, ("Enum",))
    bases = [imports.builtin(n) if n in {"str", "int"} else imports.dotted("enum", n) for n in names]
    body = [f"{INDENT}{identifier(name)} = {literal(value)}" for name, value in members_by_name.items()]
    return _class(kind, bases, body)


def _class(kind: Kind, bases: Sequence[str], body: Sequence[str]) -> list[str]:
    doc = docstring(str(kind.schema.get("description", "")), INDENT)
    between = [""] if doc and body else []
    lines = [*bracketed(f"class {kind.name}", bases, ":"), *doc, *between, *body]
    return lines if doc or body else [*lines, f"{INDENT}pass"]


class _Fields:
    """The fields of a class, as they are written in each kind of class.

    Attributes:
        are_names: the names on the wire can be attributes.
        are_plain: the defaults can be written as plain expressions.
    """

    def __init__(self, kind: Kind, imports: Imports) -> None:
        self._kind = kind
        self._imports = imports
        self._fields = list(members(kind.schema))
        self._required = self._names_required()
        document = kind.document
        self._expressions = Expressions(imports, document.classes, document.definitions)
        self.are_names = all(attribute == name for attribute, name, _ in self._fields)
        self.are_plain = all(
            attribute in self._required or self._plain_default(schema) is not None
            for attribute, _, schema in self._fields
        )

    def _names_required(self) -> set[str]:
        schema = self._kind.schema
        if "prefixItems" in schema:
            least = schema.get("minItems", 0) - (1 if hint_of(schema).tag else 0)
            return {attribute for attribute, _, _ in self._fields[:least]}
        required = schema.get("required", ())
        return {attribute for attribute, name, _ in self._fields if name in required}

    def as_typed_dict(self) -> list[str]:
        body = []
        for attribute, _, schema in self._fields:
            kind = self._expressions.plain(schema)
            if attribute not in self._required:
                kind = f"{self._imports.name('typing', 'NotRequired')}[{kind}]"
            body.append(f"{INDENT}{attribute}: {kind}")
        return _class(self._kind, [self._imports.name("typing", "TypedDict")], body)

    def as_named_tuple(self) -> list[str]:
        body = []
        for attribute, _, schema in self._fields:
            default = "" if attribute in self._required else f" = {self._plain_default(schema)}"
            body.append(f"{INDENT}{attribute}: {self._expressions.plain(schema)}{default}")
        return _class(self._kind, [self._imports.name("typing", "NamedTuple")], body)

    def as_struct(self, hint: Hint) -> list[str]:
        body = [line for one in self._fields for line in self._struct_field(*one)]
        options = list(self._struct_options(hint))
        return _class(self._kind, [self._imports.dotted("msgspec", "Struct"), *options], body)

    def _struct_options(self, hint: Hint) -> Iterable[str]:
        schema = self._kind.schema
        if hint.tag:
            place = schema["prefixItems"][0] if "prefixItems" in schema else schema["properties"][hint.tag]
            yield f"tag={literal(place['enum'][0])}"
            if hint.tag != "type":
                yield f"tag_field={quoted(hint.tag)}"
        if "prefixItems" in schema:
            yield "array_like=True"
        if schema.get("additionalProperties") is False:
            yield "forbid_unknown_fields=True"
        if hint.frozen or hint.type == "namedtuple":
            yield "frozen=True"
        required = [attribute in self._required for attribute, _, _ in self._fields]
        if hint.keyword_only or required != sorted(required, reverse=True):
            yield "kw_only=True"

    def _struct_field(self, attribute: str, name: str, schema: Schema) -> list[str]:
        kind = self._expressions.plain(schema)
        options = [f"name={quoted(name)}"] if name not in {"", attribute} else []
        plain = self._plain_default(schema)
        if attribute in self._required:
            plain = None
        elif plain is None and "default" in schema:
            options.append(f"default_factory=lambda: {self._expressions.converted(schema)}")
        elif plain is None and hint_of(schema).factory:
            options.append(f"default_factory=lambda: {kind}()")  # it may stand further down
        elif plain is None:
            unset = self._imports.dotted("msgspec", "UNSET")
            kind, plain = f"{kind} | {self._imports.dotted('msgspec', 'UnsetType')}", unset
        start = f"{INDENT}{attribute}: {kind}"
        if not options:
            return [f"{start} = {plain}" if plain is not None else start]
        options += [f"default={plain}"] if plain is not None else []
        return bracketed(f"{start} = {self._imports.dotted('msgspec', 'field')}", options, "")

    def _plain_default(self, schema: Schema) -> str | None:
        """The default as an expression that needs no factory; msgspec copies empty lists, dicts and sets."""
        value = schema.get("default")
        hint = hint_of(schema)
        if value == [] and schema.get("type") == "array" and "prefixItems" not in schema and not hint.type:
            return f"{self._imports.builtin('set')}()" if schema.get("uniqueItems") else "[]"
        if value == {} and schema.get("type") == "object":
            return "{}"
        return self._expressions.default(schema)
