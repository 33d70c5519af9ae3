"""Values that go through generated types: what is encoded by one side is the same on the other."""

from __future__ import annotations

import datetime as dt
import decimal
import typing
import uuid
from types import ModuleType
from typing import Any

import msgspec
import pytest
from tests.actors.stubs.support import Load, declared_in, stubs_of


@pytest.fixture
def board(market: ModuleType, load: Load) -> ModuleType:
    """The stubs of the market, imported."""
    return load("board", stubs_of(*(one for one in declared_in(market) if one.kind != "workflow")))


def everything(m: ModuleType) -> Any:
    """One value of each type, in the classes of a module."""
    return m.Everything(
        text="\u00e9",
        day=dt.date(2004, 1, 1),
        at=dt.datetime(2004, 1, 1, 2, 3, 4, 5),  # noqa: DTZ001 - one without a zone
        zoned=dt.datetime(2004, 1, 1, tzinfo=dt.UTC),
        clock=dt.time(1, 2, 3),
        took=dt.timedelta(days=1, seconds=2),
        id=uuid.UUID(int=7),
        price=decimal.Decimal("1.50"),
        raw=b"\x00\xff",
        buffer=bytearray(b"\x01"),
        by_number={1: "a", -2: "b"},
        by_day={dt.date(2004, 1, 1): 1.5},
        by_side={m.Side.SELL: 3},
        pair=(1, "a"),
        many=(1, 2, 3),
        names={"a"},
        fixed=frozenset({1}),
        anything={"a": [1, None]},
        order=m.Sell(2, urgent=True),
        maybe=m.Buy(1),
        array=m.Pair("A"),
        tree=m.Node("root", [m.Node("leaf")]),
        page=(m.Page if hasattr(m, "Page") else m.Page_int)([1, 2], 3),
        options={"window": 3},
        point=m.Point(dt.date(2004, 1, 1), 2.5),
        finding=m.Finding("A", 1.5, tags={"x"}, limits=m.Limits(days=[2])),
        side=m.Side.BUY,
        grade=m.Grade.HIGH,
        word=None,
        bounded="abc",
    )


def test_every_type_survives_the_way_there_and_back(market: ModuleType, board: ModuleType) -> None:
    """Encoded with the agent's types, decoded with the stub's, and the other way round, nothing changes."""
    theirs, ours = everything(market), everything(board)
    encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
    assert decode(encode(ours), type=market.Everything).order == theirs.order
    here = decode(encode(theirs), type=board.Everything)
    back = decode(encode(here), type=market.Everything)
    assert back == theirs
    for name in board.Everything.__struct_fields__:
        if name not in {"left_out", "default"}:
            assert getattr(here, name) == getattr(ours, name), name
            assert type(getattr(here, name)).__name__ == type(getattr(ours, name)).__name__, name


def test_what_is_left_out_takes_the_agents_default(market: ModuleType, board: ModuleType) -> None:
    """Also a default that only the agent's code can make."""
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(board.Limits()), type=market.Limits)
    assert there == market.Limits()
    assert board.Limits().days is msgspec.UNSET
    assert board.Finding("A", 1.0).limits.budget == decimal.Decimal("1.50")


@pytest.mark.parametrize(
    ("of", "value"),
    [
        ("Everything", {"bounded": "toolong"}),
        ("Everything", {"bounded": "A"}),
        ("Everything", {"word": "c"}),
        ("Everything", {"at": "no time"}),
        ("Everything", {"order": {"type": "Hold", "count": 1}}),
        ("Buy", {"count": 0}),
    ],
)
def test_constraints_hold_on_both_sides(
    market: ModuleType, board: ModuleType, of: str, value: dict[str, Any]
) -> None:
    """What the agent's types refuse, the stub's refuse with the same words."""
    plain = {**msgspec.to_builtins(everything(market)), **value} if of == "Everything" else value
    if of == "Buy":
        plain = {"type": "Buy", **value}
    refusals = []
    for module in (market, board):
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.convert(plain, getattr(module, of), str_keys=True)
        refusals.append(str(caught.value))
    assert refusals[0] == refusals[1]


def test_arguments_are_checked_as_the_declaration_checks_them(market: ModuleType, board: ModuleType) -> None:
    """The signature of a stub has the parameters of the declaration, their kinds and their types."""
    for where in ("StockAnalyst.study", "StockAnalyst.trade", "Analyst.report", "Analyst.plan"):
        name, _, key = where.partition(".")
        theirs = getattr(getattr(market, name), key).method.signature
        ours = getattr(getattr(board, name), key).method.signature
        assert ours.names == theirs.names
        assert ours.keyword_only == theirs.keyword_only
        assert ours.where == theirs.where
        required = [f.required for f in msgspec.structs.fields(theirs.arguments_type)]
        assert [f.required for f in msgspec.structs.fields(ours.arguments_type)] == required
    assert board.StockAnalyst.embed.method.signature.result_type == list[float]


ODD = """
import msgspec
from callboard import tool
from numbers import Number as Odd

@tool
def odd(thing: object, other: Odd, many: list[Odd], more: msgspec.Raw) -> Odd:
    return other

@tool
def kept(day: "__import__('datetime').date", ext: msgspec.msgpack.Ext) -> None:
    pass
"""


def test_a_type_that_no_schema_describes_is_anything(load: Load) -> None:
    """The call can be made; the host checks what the stub cannot."""
    text = stubs_of(*declared_in(load("odd", ODD)))
    assert "# kept.call is left out: it takes what no JSON schema describes" in text
    hints = typing.get_type_hints(load("board", text).odd.method.function)
    assert [hints[name] for name in ("thing", "other", "many", "more")] == [Any, Any, list[Any], Any]
