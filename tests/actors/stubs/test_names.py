"""Names that clash, texts that would break out, and schemas of others."""

from __future__ import annotations

import ast
from typing import Any

import msgspec
import pytest
from tests.actors.stubs.support import Load

from callboard.actors.stubs.choose import choose
from callboard.actors.stubs.module import write
from callboard.infra.messages.registry import ActorInfo, MethodInfo


def actor(name: str, kind: str, *methods: MethodInfo, doc: str = "") -> ActorInfo:
    """An actor as a host would announce it."""
    return ActorInfo(name=name, kind=kind, version="0" * 12, methods=list(methods), doc=doc)


def method(name: str, arguments: dict[str, Any], doc: str = "", **definitions: Any) -> MethodInfo:
    """A method whose arguments have these schemas; all are required."""
    root = {"title": "Arguments", "type": "object", "properties": arguments, "required": list(arguments)}
    schema = {"$ref": "#/$defs/Arguments", "$defs": {"Arguments": root, **definitions}}
    return MethodInfo(name=name, arguments=schema, result={"type": "string"}, doc=doc)


def struct(**fields: Any) -> dict[str, Any]:
    """A class as msgspec would describe it."""
    return {"type": "object", "properties": fields, "required": list(fields), "x-python": {"type": "struct"}}


TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
DAY = {"type": "string", "format": "date"}


def test_two_classes_of_one_name_are_told_apart(load: Load) -> None:
    """By the actor that uses them; equal ones are one class."""
    one = method("a", {"it": {"$ref": "#/$defs/Item"}}, Item={"title": "Item", **struct(x=TEXT)})
    same = method("b", {"it": {"$ref": "#/$defs/Item"}}, Item={"title": "Item", **struct(x=TEXT)})
    other = method("c", {"it": {"$ref": "#/$defs/Item"}}, Item={"title": "Item", **struct(x=NUMBER)})
    text = write([actor("A", "agent", one, same), actor("B", "agent", other)], everything=False)
    board = load("board", text)
    assert {name for name in vars(board) if "Item" in name} == {"AItem", "BItem"}
    assert board.AItem.__annotations__ == {"x": "str"}
    assert "def b(it: Arg[AItem])" in text
    assert "def c(it: Arg[BItem])" in text


def test_names_of_actors_and_members_hide_nothing(load: Load) -> None:
    """A tool called ``list``, a field called ``datetime`` and a method called ``str`` do no harm."""
    odd = struct(datetime=DAY, list={"type": "array", "items": TEXT}, Any={}, msgspec=NUMBER)
    text = write(
        [
            actor("Future", "agent", method("str", {"x": {"$ref": "#/$defs/S"}}, S={"title": "S", **odd})),
            actor("list", "tool", method("call", {"days": {"type": "array", "items": DAY}})),
            actor("Arg", "tool", method("call", {"x": TEXT})),
        ],
        everything=False,
    )
    board = load("board", text)
    for stub in (board.Future.str, board.list, board.Arg):
        assert stub.method.signature.result_type is str
    fields = {f.name: f.type for f in msgspec.structs.fields(board.S)}
    assert str(fields["list"]) == "list[str]"
    assert fields["datetime"].__name__ == "date"


@pytest.mark.parametrize(
    "evil",
    [
        'x"""\nimport os\n"""',
        "x\\",
        'ends with "',
        '"starts',
        "\x00\r\u2028\U0001f600",
        "'); import os; ('",
        "{{}} {x} %s \"\"\" '''",
        "",
    ],
)
def test_texts_stay_texts(load: Load, evil: str) -> None:
    """No description, pattern, tag or name of an announcement becomes code."""
    item = {
        "title": f"I{evil}",
        "description": evil,
        "type": "object",
        "properties": {
            "t": {"enum": [evil]},
            "p": {**TEXT, "description": evil, "default": evil, "x-python": {"name": evil}},
        },
        "required": ["t"],
        "x-python": {"type": "struct", "tag": "t"},
    }
    side = {"title": "Side", "enum": [evil], "x-python": {"type": "Enum", "members": {evil: evil}}}
    one = method(
        evil, {"a": {"$ref": "#/$defs/Item"}, "s": {"$ref": "#/$defs/Side"}}, evil, Item=item, Side=side
    )
    text = write([actor(evil, "agent", one, doc=evil)], everything=False)
    allowed = ast.ClassDef | ast.Import | ast.ImportFrom | ast.Expr
    body = ast.parse(text).body
    assert all(isinstance(node, allowed) for node in body)
    assert {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names} == {
        "enum",
        "msgspec",
    }
    board = load("board", text)
    assert evil in [member.value for member in board.Side]


def test_what_python_cannot_name_is_left_out(load: Load) -> None:
    """And said to be; the rest of the board is written."""
    text = write(
        [
            actor("A", "agent", method("bad", {"a-b": TEXT}), MethodInfo(name="unknown"), method("ok", {})),
            actor("B", "agent", method("x\nimport os", {"y\nimport os": TEXT})),
            actor("model", "model", method("generate", {"prompt": TEXT}), method("embed", {"text": TEXT})),
            actor("class", "tool", method("call", {"x": TEXT})),
        ],
        everything=False,
    )
    assert "# A.bad is left out: Python has no parameters named a-b" in text
    assert "# A.unknown is left out: it takes what no JSON schema describes" in text
    board = load("board", text)
    assert board.A.ok.method.where == "A.ok"
    assert board.class_.method.where == "class.call"
    assert board.model.embed.method.where == "model.embed"
    assert "# B.x?import os is left out: Python has no parameters named y?import os" in text
    assert not hasattr(board, "os")


def test_schemas_without_hints(load: Load) -> None:
    """A host in another language may announce plain JSON Schema."""
    item = {"type": "object", "properties": {"a": TEXT, "b-c": NUMBER, "d": NUMBER}, "required": ["a", "d"]}
    color = {"enum": ["dark red", "blue"]}
    text = write(
        [
            actor(
                "paint",
                "tool",
                method(
                    "call",
                    {"i": {"$ref": "#/$defs/item"}, "c": {"$ref": "#/$defs/color"}, "o": {"type": "object"}},
                    item=item,
                    color=color,
                ),
            )
        ],
        everything=False,
    )
    board = load("board", text)
    assert msgspec.json.encode(board.item(a="x", d=1)) == b'{"a":"x","d":1}'
    assert msgspec.json.encode(board.item(a="x", d=1, b_c=2)) == b'{"a":"x","b-c":2,"d":1}'
    assert board.color.dark_red.value == "dark red"
    assert "o: Arg[Mapping[str, Arg[Any]]]" in text


def test_a_parameter_behind_an_optional_one_is_given_by_name() -> None:
    """Whatever order the announcement has, the signature is one that Python accepts."""
    info = method("call", {"a": TEXT, "b": TEXT})
    info.arguments["$defs"]["Arguments"]["required"] = ["b"]
    text = write([actor("t", "tool", info)], everything=False)
    assert "def t(a: Arg[str] = DEFAULT, *, b: Arg[str])" in text


def test_choosing_keeps_the_order_of_names() -> None:
    """Whatever order they are asked for in."""
    known = [actor("b", "tool"), actor("a", "agent"), actor("w", "workflow")]
    assert [a.name for a in choose(known, ["b", "a", "b"])] == ["a", "b"]
    assert [a.name for a in choose(known, [])] == ["a", "b"]
