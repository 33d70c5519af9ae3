"""Arguments on the command line, read by the workflow's schema."""

from __future__ import annotations

import enum
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.terminal import APP

from callboard.actors.app import load
from callboard.actors.declare import workflow
from callboard.actors.declared import Workflow
from callboard.actors.registry import describe
from callboard.cli.arguments import Parameters
from callboard.infra.errors import InvalidArguments

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@workflow
async def kinds(
    text: str,
    whole: int,
    real: float,
    *,
    flag: bool,
    items: list[int],
    table: dict[str, int],
    anything: Any,
) -> None:
    """One of each."""


@pytest.fixture(scope="module")
def typed() -> Workflow[..., object]:
    """The workflow with every kind of parameter."""
    return load(str(APP)).workflow("typed")


def read(found: Any, options: dict[str, list[str]], given: dict[str, Any] | None = None) -> dict[str, Any]:
    """The arguments made of these options."""
    return type_in(
        found, *(f"--{name}={text}" for name, texts in options.items() for text in texts), **given or {}
    )


def type_in(found: Any, *words: str, **given: Any) -> dict[str, Any]:
    """The arguments made of these words of a command line."""
    return Parameters(describe(found)).read(words, given)


@given(st.text())
def test_text_stays_as_it_was_typed(text: str) -> None:
    """Also if it looks like JSON."""
    others = {"whole": 1, "real": 1.0, "flag": True, "items": [], "table": {}, "anything": 1}
    assert read(kinds, {"text": [text]}, others)["text"] == text


@given(
    whole=st.integers(),
    real=FLOATS,
    flag=st.booleans(),
    items=st.lists(st.integers()),
    table=st.dictionaries(st.text(), st.integers()),
    anything=JSON.filter(lambda value: not isinstance(value, str)),
)
def test_other_types_are_read_as_json(**values: Any) -> None:
    """What is written as JSON comes out as it went in."""
    options = {name: [json.dumps(value)] for name, value in values.items()}
    assert read(kinds, options, {"text": ""}) == {"text": "", **values}


def decoded_by(found: Workflow[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """What the workflow gets."""
    signature = found.method.signature
    return signature.decode_arguments(signature.from_json(msgspec.json.encode(arguments)))


def test_everything_that_was_read_fits_the_workflow(typed: Workflow[..., object]) -> None:
    """Dates, choices, optional values, structs, bytes, and dashes in names."""
    options = {
        "text": ["7"],
        "count": ["3"],
        "day": ["2026-01-31"],
        "mode": ["safe"],
        "tags": ["a", "b"],
        "raw": ["aGk="],
        "plan": ['{"title": "t", "steps": [1]}'],
        "dashed-name": ["x"],
    }
    arguments = read(typed, options)
    assert arguments["raw"] == "aGk="
    assert arguments["tags"] == ["a", "b"]
    assert arguments["dashed_name"] == "x"
    decoded = decoded_by(typed, arguments)
    assert decoded["raw"] == b"hi"
    assert str(decoded["day"]) == "2026-01-31"
    assert decoded["plan"].steps == [1]


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("tags", '["a", "b"]', ["a", "b"]),
        ("plan", "null", None),
        ("day", "null", None),
        ("ratio", "2", 2),
        ("dashed_name", "5", 5),
        ("on", "true", True),
    ],
)
def test_a_value_of_several_types(
    option: str, text: str, value: object, typed: Workflow[..., object]
) -> None:
    """JSON where it fits one of them, text where only text does."""
    assert read(typed, {option: [text]}, {"text": "", "count": 1})[option] == value


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"text": ["a"]}, "count missing"),
        ({}, "text, count missing"),
        ({"text": ["a"], "count": ["x"]}, "count is 'x', which is no integer"),
        ({"text": ["a"], "count": ["1.5"]}, "count is '1.5'"),
        ({"text": ["a"], "count": ["true"]}, "count is 'true'"),
        ({"text": ["a"], "count": ["1", "2"]}, "count was given 2 times"),
        ({"text": ["a"], "count": ["1"], "on": ["yes"]}, "on is 'yes', which is no boolean"),
        ({"text": ["a"], "count": ["1"], "raw": ["?"]}, "raw is '?', which is no base64"),
        ({"text": ["a"], "count": ["1"], "mode": ["quick"]}, "mode is 'quick', which is no fast|safe"),
        ({"text": ["a"], "count": ["1"], "cuont": ["1"]}, "there is no parameter 'cuont'"),
    ],
)
def test_a_wrong_argument_is_named_and_all_are_listed(
    options: dict[str, list[str]], problem: str, typed: Workflow[..., object]
) -> None:
    """Nothing is sent: the error says what is wrong and what the workflow takes."""
    with pytest.raises(InvalidArguments) as caught:
        read(typed, options)
    message = caught.value.message
    assert problem in message
    assert "--count integer (required)" in message
    assert "--ratio number (default 0.5)" in message
    assert "--mode fast|safe" in message
    assert "--day date" in message


class Color(enum.Enum):
    """Text."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """Numbers."""

    LOW = 1
    HIGH = 2


class Leg(msgspec.Struct):
    """A part of an order."""

    ticker: str
    at: datetime
    proof: bytes = b""


@workflow
async def order(
    tickers: list[str],
    *,
    dry_run: bool = False,
    no_fees: bool = False,
    sure: bool | None = None,
    color: Color = Color.RED,
    level: Level = Level.LOW,
    choice: Literal["1", 2] | None = None,
    at: datetime | None = None,
    proof: bytes | None = None,
    days: set[date] | None = None,
    pair: tuple[int, str] = (0, ""),
    grid: list[list[int]] | None = None,
    legs: list[Leg] | None = None,
    table: dict[int, Leg] | None = None,
    wait: timedelta = timedelta(0),
    names: list[str] | str = "",
) -> None:
    """Types as users have them."""


LEG = {"ticker": "AAPL", "at": "2026-01-31T12:00:00Z", "proof": "aGk="}
WHOLE_LEG = Leg("AAPL", datetime(2026, 1, 31, 12, tzinfo=UTC), b"hi")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--tickers", "AAPL"], "tickers", ["AAPL"]),
        (["--tickers", "AAPL", "MSFT"], "tickers", ["AAPL", "MSFT"]),
        (["--tickers", "AAPL", "--tickers", "MSFT"], "tickers", ["AAPL", "MSFT"]),
        (["--tickers", "7", "null"], "tickers", ["7", "null"]),
        (["--tickers", '["AAPL"]'], "tickers", ["AAPL"]),
        (["--tickers=[]"], "tickers", []),
        (["--tickers", "-x"], "tickers", ["-x"]),
        (["--dry-run"], "dry_run", True),
        (["--dry_run", "--tickers", "A"], "dry_run", True),
        (["--no-dry-run"], "dry_run", False),
        (["--dry-run", "false"], "dry_run", False),
        (["--no-fees"], "no_fees", True),
        (["--no-no-fees"], "no_fees", False),
        (["--sure"], "sure", True),
        (["--no-sure"], "sure", False),
        (["--sure", "null"], "sure", None),
        (["--color", "blue"], "color", Color.BLUE),
        (["--level", "2"], "level", Level.HIGH),
        (["--choice", "1"], "choice", "1"),
        (["--choice", "2"], "choice", 2),
        (["--choice", "null"], "choice", None),
        (["--at", "2026-01-31T12:00:00Z"], "at", WHOLE_LEG.at),
        (["--proof", "aGk="], "proof", b"hi"),
        (["--proof", "null"], "proof", None),
        (["--days", "2026-01-31"], "days", {date(2026, 1, 31)}),
        (["--pair", "3", "x"], "pair", (3, "x")),
        (["--pair", '[3, "x"]'], "pair", (3, "x")),
        (["--grid", "[1, 2]"], "grid", [[1, 2]]),
        (["--grid", "[[1], [2]]"], "grid", [[1], [2]]),
        (["--grid", "[1]", "[2]"], "grid", [[1], [2]]),
        (["--grid", "1"], "grid", [[1]]),
        (["--legs", json.dumps(LEG)], "legs", [WHOLE_LEG]),
        (["--legs", json.dumps([LEG])], "legs", [WHOLE_LEG]),
        (["--table", json.dumps({"1": LEG})], "table", {1: WHOLE_LEG}),
        (["--wait", "PT5M"], "wait", timedelta(minutes=5)),
        (["--names", "Ada"], "names", "Ada"),
        (["--names", "Ada", "Bob"], "names", ["Ada", "Bob"]),
    ],
)
def test_what_is_typed_is_what_the_workflow_gets(words: list[str], name: str, value: object) -> None:
    """One value or several for a list, flags, enums, choices, times, and structs within anything."""
    others = {} if any("tickers" in word for word in words) else {"tickers": ["A"]}
    assert decoded_by(order, type_in(order, *words, **others))[name] == value


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--tickers"], "tickers has no value"),
        (
            ["--tickers", "A", "--at", "--dry-run"],
            "at has no value; one that begins with '--' is written --at=",
        ),
        (["--tickers", "A", "--level", "3"], "level is '3', which is no 1|2"),
        (["--tickers", "A", "--no-tickers"], "there is no parameter 'no_tickers'"),
        (["--tickers", "A", "--pair", "x", "y"], "pair holds 'x', which is no integer"),
        (["--tickers", "A", "--at", "x", "y"], "'y' belongs to no option"),
        (["A"], "'A' belongs to no option"),
        (["--tickers", "A", "--dry-run", "yes"], "dry_run is 'yes', which is no boolean"),
    ],
)
def test_what_cannot_be_meant(words: list[str], problem: str) -> None:
    """Is told with the word that is wrong."""
    with pytest.raises(InvalidArguments) as caught:
        type_in(order, *words)
    assert problem in caught.value.message


def test_arguments_given_as_json_are_checked_too(typed: Workflow[..., object]) -> None:
    """``--args`` is no way around; an option goes before it."""
    assert read(typed, {"count": ["2"]}, {"text": "a", "count": 1}) == {"text": "a", "count": 2}
    with pytest.raises(InvalidArguments, match="count is 'x'"):
        read(typed, {}, {"text": "a", "count": "x"})
    with pytest.raises(InvalidArguments, match="no parameter 'odd'"):
        read(typed, {}, {"text": "a", "count": 1, "odd": 1})


class Stop(msgspec.Struct):
    """A part of a journey."""

    to: str
    days: int = 1


class Journey(msgspec.Struct):
    """Holds parts."""

    legs: list[Stop]
    by: Literal["train", "ship"] = "train"


@workflow
async def travels(journey: Journey, back: Journey | None = None) -> None:
    """Takes what has parts."""


GOOD = '{"legs": [{"to": "Rome"}]}'


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--journey", '{"legs": [{"to": 7}]}'], "journey.legs[0].to is 7, expected string"),
        (["--journey", '{"legs": [{"days": 7}]}'], "journey.legs[0] lacks to"),
        (["--journey", '{"legs": [], "by": "car"}'], "journey.by is 'car', expected one of 'ship', 'train'"),
        (["--journey", GOOD, "--back", '{"legs": [{"to": 7}]}'], "back.legs[0].to is 7, expected string"),
    ],
)
def test_parts_are_checked_too(words: list[str], problem: str) -> None:
    """Before anything is sent, with the place of what does not fit."""
    with pytest.raises(InvalidArguments) as caught:
        type_in(travels, *words)
    assert problem in caught.value.message
    assert type_in(travels, "--journey", GOOD)["journey"] == {"legs": [{"to": "Rome"}]}


def test_examples_can_be_run_as_they_are(typed: Workflow[..., object]) -> None:
    """What `callboard dev` suggests to type fits the workflow."""
    for found in (typed, kinds):
        example = Parameters(describe(found)).example()
        decoded_by(found, example)
        assert set(example) == {"text", "count"} or found is kinds
