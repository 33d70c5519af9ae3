"""Values held against JSON schemas."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import pytest

from callboard.actors.fits import misfit
from callboard.actors.hints import schema_of


class Level(enum.Enum):
    """Of something."""

    LOW = "low"
    HIGH = "high"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """Something small."""

    level: Level
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5


class Whole(msgspec.Struct):
    """Something with parts."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=5)]
    parts: list[Part] = []
    by_name: dict[str, int] = {}
    inner: Whole | None = None
    pair: tuple[int, str] | None = None
    mode: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    "value",
    [
        {"name": "x"},
        {"name": "x", "parts": [{"level": "low", "share": 1}], "by_name": {"k": 1}, "more": []},
        {"name": "x", "inner": {"name": "y", "inner": None}, "pair": [1, "b"], "mode": "b"},
    ],
)
def test_what_fits(value: Any) -> None:
    """What msgspec takes for the type fits its schema."""
    assert isinstance(msgspec.convert(value, Whole), Whole)
    assert misfit(value, schema_of(Whole)) == ""


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("x", "expected object"),
        ({}, "lacks name"),
        ({"name": ""}, "shorter than 1"),
        ({"name": "too long"}, "longer than 5"),
        ({"name": "x", "parts": [{"level": "middle"}]}, "it.parts[0].level is 'middle'"),
        ({"name": "x", "parts": [{"level": "low", "share": 2}]}, "more than 1"),
        ({"name": "x", "parts": [{"level": "low", "other": 2}]}, "has other"),
        ({"name": "x", "by_name": {"k": True}}, "expected integer"),
        ({"name": "x", "inner": {"name": 3}}, "it.inner.name is 3, expected string"),
        ({"name": "x", "mode": "c"}, "expected one of"),
    ],
)
def test_what_does_not_fit(value: Any, says: str) -> None:
    """What msgspec refuses does not fit, and the text says where and why."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, Whole)
    assert says in misfit(value, schema_of(Whole))


@pytest.mark.parametrize(
    ("kind", "fits", "does_not"),
    [
        (dt.date, "2026-01-31", "2026-02-31"),
        (dt.datetime, "2026-01-31T10:00:00Z", "tomorrow"),
        (dt.time, "10:00:00", "25:00:00"),
        (dt.timedelta, "PT5M", "5 minutes"),
        (uuid.UUID, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f81d4fae"),
        (decimal.Decimal, "1.50", "one"),
        (dt.date | None, "2026-01-31", "soon"),
        (bytes, "aGk=", "???"),
    ],
)
def test_texts_of_a_format(kind: Any, fits: str, does_not: str) -> None:
    """A text that stands for something else must be one that does."""
    assert misfit(fits, schema_of(kind)) == ""
    assert misfit(does_not, schema_of(kind))
    assert misfit("anything", {"type": "string", "format": "of somebody else"}) == ""


def test_what_fits_none_of_several_kinds() -> None:
    """The text says what there is to choose from."""
    assert misfit("soon", schema_of(dt.date | None), "day") == "day is 'soon', expected date or null"
    assert misfit(True, schema_of(int | str | None)) == "it is True, expected integer or string or null"
    told = misfit(3, schema_of(Whole | list[int] | Literal["a", "b"]))
    assert told == "it is 3, expected array or 'a' or 'b' or Whole"


def test_a_schema_without_end() -> None:
    """A schema by somebody else that refers to itself ends."""
    assert "too deep" in misfit(1, {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})


@pytest.mark.parametrize(
    ("of", "fits", "does_not"), [(2, 4, 3), (2, 2**60, 2**60 + 1), (0.1, 0.3, 0.35), (0.5, 3, 3.25)]
)
def test_multiples(of: float, fits: float, does_not: float) -> None:
    """Whole numbers exactly, others as far as floats are exact."""
    schema = {"type": "number", "multipleOf": of}
    assert misfit(fits, schema) == ""
    assert f"is no multiple of {of}" in misfit(does_not, schema)


def test_schemas_of_other_makes() -> None:
    """Parts that all have to fit, and definitions under their older name."""
    schema = {
        "type": "object",
        "properties": {"n": {"allOf": [{"$ref": "#/definitions/Count"}, {"maximum": 5}]}},
        "definitions": {"Count": {"type": "integer"}},
    }
    assert misfit({"n": 5}, schema) == ""
    assert misfit({"n": "5"}, schema) == "it.n is '5', expected integer"
    assert misfit({"n": 6}, schema) == "it.n is 6, which is more than 5"
