"""Arguments on the command line, read by the workflow's schema."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.terminal import APP

from callboard.actors.app import load
from callboard.actors.declare import Workflow, workflow
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
    return Parameters(describe(found)).read(options, given or {})


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
    assert arguments["raw"] == b"hi"
    assert arguments["tags"] == ["a", "b"]
    assert arguments["dashed_name"] == "x"
    decoded = typed.method.signature.decode_arguments(msgspec.msgpack.encode(arguments))
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
        ({"text": ["a"], "count": ["1"], "raw": ["?"]}, "raw must be base64"),
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


def test_arguments_given_as_json_are_checked_too(typed: Workflow[..., object]) -> None:
    """``--args`` is no way around; an option goes before it."""
    assert read(typed, {"count": ["2"]}, {"text": "a", "count": 1}) == {"text": "a", "count": 2}
    with pytest.raises(InvalidArguments, match="count is 'x'"):
        read(typed, {}, {"text": "a", "count": "x"})
    with pytest.raises(InvalidArguments, match="no parameter 'odd'"):
        read(typed, {}, {"text": "a", "count": 1, "odd": 1})


def test_examples_can_be_run_as_they_are(typed: Workflow[..., object]) -> None:
    """What `callboard dev` suggests to type fits the workflow."""
    for found in (typed, kinds):
        example = Parameters(describe(found)).example()
        body = msgspec.json.encode(example)
        found.method.signature.decode_arguments(found.method.signature.from_json(body))
        assert set(example) == {"text", "count"} or found is kinds
