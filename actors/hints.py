"""JSON schemas of Python types, with what JSON Schema has no words for.

A schema made by msgspec does not tell a naive datetime from a string, a tuple from a list, the names of
an enum's members, or the type of a dict's keys. What it leaves out stands beside it under the keyword
``x-python`` (:class:`Hint`), so that ``callboard stubs`` can write the same types again. Any other
reader of the schema ignores the keyword, as JSON Schema demands.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import inspect as mi

KEYWORD = "x-python"

_SIMPLE = {
    mi.DateTimeType: "datetime",
    mi.TimeType: "time",
    mi.ByteArrayType: "bytearray",
    mi.FrozenSetType: "frozenset",
    mi.VarTupleType: "tuple",
}
_KINDS = {
    mi.StructType: "struct",
    mi.DataclassType: "dataclass",
    mi.TypedDictType: "typeddict",
    mi.NamedTupleType: "namedtuple",
}
_KEYS: dict[type[mi.Type], dict[str, Any]] = {
    mi.IntType: {"type": "integer"},
    mi.FloatType: {"type": "number"},
    mi.BytesType: {"type": "string", "contentEncoding": "base64"},
    mi.DateType: {"type": "string", "format": "date"},
    mi.DateTimeType: {"type": "string", KEYWORD: {"type": "datetime"}},
    mi.TimeDeltaType: {"type": "string", "format": "duration"},
    mi.UUIDType: {"type": "string", "format": "uuid"},
    mi.DecimalType: {"type": "string", "format": "decimal"},
}
_ENUMS: tuple[tuple[type, str], ...] = (
    (enum.StrEnum, "StrEnum"),
    (enum.IntFlag, "IntFlag"),
    (enum.IntEnum, "IntEnum"),
    (enum.Flag, "Flag"),
    (str, "str"),
    (int, "int"),
    (enum.Enum, "Enum"),
)


class Hint(msgspec.Struct, omit_defaults=True):
    """What a schema cannot tell of the type that it describes.

    Attributes:
        type: ``datetime``, ``time``, ``bytearray``, ``frozenset`` or ``tuple`` (of any length); of a
            class ``struct``, ``dataclass``, ``typeddict`` or ``namedtuple``; of an enum its base; else
            empty: the schema tells.
        naive: a datetime or time without a zone.
        name: of a property, the attribute's where it differs.
        names: the attributes of what travels as an array, in order.
        tag: the property that holds the tag.
        keys: schema of a dict's keys; ``{}`` for any.
        members: of an enum, values by name.
        frozen: instances are immutable, and can be members of sets.
        keyword_only: what cannot be given by position.
        factory: the default is what the class makes without arguments.
    """

    type: str = ""
    naive: bool = False
    name: str = ""
    names: list[str] = []
    tag: str = ""
    keys: dict[str, Any] | None = None
    members: dict[str, str | int] = {}
    frozen: bool = False
    keyword_only: list[str] = []
    factory: bool = False


def hint_of(schema: Mapping[str, Any]) -> Hint:
    """The hint that stands in a schema; an empty one where there is none, or one of another make."""
    try:
        return msgspec.convert(schema.get(KEYWORD, {}), Hint)
    except msgspec.ValidationError:
        return Hint()


def schema_of(kind: Any) -> dict[str, Any]:
    """JSON schema of a type, with hints; empty where the type has none."""
    try:
        made = msgspec.json.schema(kind, schema_hook=_custom)
    except TypeError:
        return {}
    _Annotator(made.get("$defs", {})).annotate(made, mi.type_info(kind))
    return made


def arguments_schema(
    kind: type[msgspec.Struct], keyword_only: Iterable[str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """JSON schema of a method's arguments, with hints.

    Args:
        kind: the struct that they travel in.
        keyword_only: names of parameters that cannot be given by position.
        defaults: values by parameter; one that cannot travel is left out.
    """
    made = schema_of(kind)
    if made:
        root = made["$defs"][made["$ref"].rpartition("/")[2]]
        for name, value in defaults.items():
            try:
                root["properties"][name]["default"] = msgspec.to_builtins(value, str_keys=True)
            except (TypeError, ValueError):
                continue
        _put(root, Hint(keyword_only=sorted(keyword_only)))
    return made


def _custom(_: type) -> dict[str, Any]:
    """Of a type that msgspec does not know: anything may stand there."""
    return {KEYWORD: {}}


def _put(schema: dict[str, Any], hint: Hint) -> None:
    schema.pop(KEYWORD, None)
    told = msgspec.to_builtins(hint)
    if told:
        schema[KEYWORD] = told


class _Annotator:
    """Walks a schema beside the type that it was made from."""

    def __init__(self, components: dict[str, Any]) -> None:
        self._components = components
        self._seen: set[str] = set()

    def annotate(self, schema: dict[str, Any], kind: mi.Type) -> None:
        """Put a hint on every part that needs one."""
        kind = _bare(kind)
        if "$ref" in schema:
            self._component(schema["$ref"].rpartition("/")[2], kind)
            return
        hint = Hint(type=_SIMPLE.get(type(kind), ""))
        if isinstance(kind, mi.DateTimeType | mi.TimeType):
            hint.naive = kind.tz is False
        elif isinstance(kind, mi.DictType):
            hint.keys = self._keys(_bare(kind.key_type))
        self._parts(schema, kind)
        _put(schema, hint)

    def _parts(self, schema: dict[str, Any], kind: mi.Type) -> None:
        if isinstance(kind, mi.CollectionType) and "items" in schema:
            self.annotate(schema["items"], kind.item_type)
        elif isinstance(kind, mi.TupleType):
            for item, item_type in zip(schema.get("prefixItems", ()), kind.item_types, strict=True):
                self.annotate(item, item_type)
        elif isinstance(kind, mi.DictType) and "additionalProperties" in schema:
            self.annotate(schema["additionalProperties"], kind.value_type)
        elif isinstance(kind, mi.UnionType):
            for option, one in zip(_options(schema), _in_order(kind), strict=False):
                self.annotate(option, one)

    def _keys(self, kind: mi.Type) -> dict[str, Any] | None:
        if isinstance(kind, mi.StrType):
            return None
        if isinstance(kind, mi.EnumType):
            name = re.sub(r"[^a-zA-Z0-9.\-_]", "_", kind.cls.__name__)
            if name not in self._components:  # two classes of one name: msgspec writes out their modules
                name = re.sub(r"[^a-zA-Z0-9.\-_]", "_", f"{kind.cls.__module__}.{kind.cls.__qualname__}")
            self._component(name, kind)
            return {"$ref": f"#/$defs/{name}"}
        if isinstance(kind, mi.LiteralType):
            return {"enum": list(kind.values)}
        return _KEYS.get(type(kind), {})

    def _component(self, name: str, kind: mi.Type) -> None:
        if name in self._seen:
            return
        self._seen.add(name)
        schema = self._components[name]
        if isinstance(kind, mi.EnumType):
            base = next(label for base, label in _ENUMS if issubclass(kind.cls, base))
            members = {key: member.value for key, member in kind.cls.__members__.items()}
            _put(schema, Hint(type=base, members=members))
        elif isinstance(kind, mi.StructType | mi.DataclassType | mi.TypedDictType | mi.NamedTupleType):
            self._class(schema, kind)

    def _class(
        self,
        schema: dict[str, Any],
        kind: mi.StructType | mi.DataclassType | mi.TypedDictType | mi.NamedTupleType,
    ) -> None:
        cls = getattr(kind.cls, "__origin__", kind.cls)
        hint = Hint(type=_KINDS[type(kind)], frozen=_is_frozen(cls))
        if isinstance(kind, mi.StructType | mi.DataclassType):
            hint.keyword_only = _keyword_only(cls)
        if isinstance(kind, mi.StructType) and kind.tag_field is not None:
            hint.tag = kind.tag_field
        if "prefixItems" in schema:
            hint.names = [field.name for field in kind.fields]
            places = schema["prefixItems"][1 if hint.tag else 0 :]
        else:
            places = [schema["properties"][field.encode_name] for field in kind.fields]
        for place, field in zip(places, kind.fields, strict=True):
            self._field(place, field)
        _put(schema, hint)

    def _field(self, schema: dict[str, Any], field: mi.Field) -> None:
        self.annotate(schema, field.type)
        hint = hint_of(schema)
        if field.name != field.encode_name:
            hint.name = field.name
        made = field.default_factory
        if made is list or made is set or made is dict:
            schema["default"] = {} if made is dict else []
        elif isinstance(made, type) and made is getattr(_bare(field.type), "cls", None):
            hint.factory = True
        _put(schema, hint)


def _bare(kind: mi.Type) -> mi.Type:
    while isinstance(kind, mi.Metadata):
        kind = kind.type
    return kind


def _options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of a union; msgspec puts two or more structs in a union of their own."""
    flat: list[dict[str, Any]] = []
    for option in schema.get("anyOf", ()):
        flat += _options(option) if "discriminator" in option else [option]
    return flat


def _in_order(union: mi.UnionType) -> list[mi.Type]:
    """The members in the order in which msgspec writes them: structs behind others, None last."""

    def place(kind: mi.Type) -> int:
        kind = _bare(kind)
        if isinstance(kind, mi.NoneType):
            return 2
        return 1 if isinstance(kind, mi.StructType) and not kind.array_like else 0

    return sorted(union.types, key=place)


def _is_frozen(cls: type) -> bool:
    config = getattr(cls, "__struct_config__", None) or getattr(cls, "__dataclass_params__", None)
    return bool(getattr(config, "frozen", False))


def _keyword_only(cls: type) -> list[str]:
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
