"""Schemas of MCP tools: as the registry has them, and arguments held against them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from callboard.actors.mcp.schemas import SchemaError, SchemaSignature, announced
from callboard.actors.stubs.module import write
from callboard.infra.errors import InvalidArguments
from callboard.infra.messages.registry import ActorInfo, MethodInfo

POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}


def obj(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "properties": properties, **more}


def refused(schema: dict[str, Any], arguments: dict[str, Any]) -> str:
    """Why arguments do not fit."""
    with pytest.raises(InvalidArguments) as error:
        SchemaSignature("odd.tool", schema, None).check(msgspec.msgpack.encode(arguments))
    return error.value.message


def test_classes_stay_and_all_else_goes_where_it_is_named() -> None:
    """Stubs make a class of each definition, so those that are none are written out; also of older drafts."""
    given = obj(
        {"at": {"$ref": "#/definitions/Point"}, "tint": {"$ref": "#/$defs/Tint", "description": "of it"}},
        definitions={"Point": POINT},
        **{"$defs": {"Tint": {"enum": ["red", "blue"]}}},
    )
    told = announced(given, "Point")
    assert told["$ref"] == "#/$defs/Point_"
    assert set(told["$defs"]) == {"Point", "Point_"}
    properties = told["$defs"]["Point_"]["properties"]
    assert properties["at"] == {"$ref": "#/$defs/Point"}
    assert properties["tint"] == {"enum": ["red", "blue"], "description": "of it"}


def test_what_refers_to_itself_ends() -> None:
    """A class may; what is none says nothing where it names itself."""
    tree = obj({"left": {"$ref": "#/$defs/Tree"}})
    json = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/Json"}}]}
    given = obj(
        {"tree": {"$ref": "#/$defs/Tree"}, "json": {"$ref": "#/$defs/Json"}},
        **{"$defs": {"Tree": tree, "Json": json}},
    )
    told = announced(given, "Arguments")
    assert told["$defs"]["Tree"] == tree
    assert told["$defs"]["Arguments"]["properties"]["json"]["anyOf"][1] == {"type": "array", "items": {}}
    told_of = ActorInfo("odd", "agent", "1", [MethodInfo("tool", told, {})])
    compile(write([told_of], everything=True), "stubs.py", "exec")


def test_expressions_of_other_languages() -> None:
    """They are left out, here and in the registry: the server knows them."""
    given = obj({"name": {"type": "string", "pattern": "\\p{L}+"}, "pattern": {"type": "string"}})
    signature = SchemaSignature("odd.tool", given, given)
    signature.check(msgspec.msgpack.encode({"name": "a"}))
    for told, root in zip(signature.schemas(), ("Arguments", "ToolResult"), strict=True):
        properties = told["$defs"][root]["properties"]
        assert properties == {"name": {"type": "string"}, "pattern": {"type": "string"}}


def test_nothing_is_fetched() -> None:
    """A reference to an address is refused, not followed."""
    given = obj({"a": {"$ref": "http://127.0.0.1:9/schema.json"}})
    assert "its schema cannot be followed" in refused(given, {"a": 1})


def test_arguments() -> None:
    """What is missing, of another type, or has no place."""
    given = obj({"n": {"type": "integer"}}, required=["n"], additionalProperties=False)
    assert "'n' is a required property" in refused(given, {})
    assert "n: 'x' is not of type 'integer'" in refused(given, {"n": "x"})
    assert "'m' was unexpected" in refused(given, {"n": 1, "m": 1})
    signature = SchemaSignature("odd.tool", given, None)
    assert signature.bind((1,), {}) == {"n": 1}
    with pytest.raises(InvalidArguments, match="has no parameter 'm'"):
        signature.bind((), {"m": 1})
    with pytest.raises(InvalidArguments, match="missing required arguments `n`"):
        signature.check_some({}, [])
    with pytest.raises(InvalidArguments, match="n: 'x' is not of type"):
        signature.check_some({"n": "x"}, ["n"])
    anything = SchemaSignature("odd.tool", {"type": "object"}, None)
    assert anything.bind((), {"what": 1}) == {"what": 1}


def test_what_is_no_schema() -> None:
    """It is said at once."""
    with pytest.raises(SchemaError):
        SchemaSignature("odd.tool", {"type": "objekt"}, None)
