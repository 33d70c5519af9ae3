"""docs/guarantees.md names tests that exist, and states, directives and defaults as they are."""

from __future__ import annotations

import ast
import re

import msgspec
import pytest
from tests.docs.pages import DOCS, ROOT, blocks, prose, table, tables

from callboard.actors.directives import Directives
from callboard.actors.future import FutureInfo
from callboard.infra.messages import run
from callboard.infra.settings import DAY, Settings

PAGE = DOCS / "guarantees.md"
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
_STATES = re.compile(r"``(\w+)``")


def named() -> list[tuple[str, str]]:
    """All tests that the page names."""
    return [found for line in prose(PAGE) for found in _TEST.findall(line)]


@pytest.mark.parametrize(("file", "function"), named())
def test_every_named_test_exists(file: str, function: str) -> None:
    """A promise without its test is a wish."""
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    functions = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert function in functions


def test_every_promise_names_its_test() -> None:
    """No row of a table of promises is without one."""
    rows = [line for line in prose(PAGE) if line.startswith("|") and line.rstrip(" |").endswith("`")]
    assert len(named()) == len([row for row in rows if "::" in row])
    for heading in ("Runs", "Calls", "Values, errors, connections"):
        assert all(test for test in table(PAGE, heading).column("test"))


def charts() -> tuple[str, str]:
    """The two charts: of a future's states, and of a run's."""
    future, whole = (block.text for block in blocks(PAGE) if block.language == "mermaid")
    return future, whole


def states(chart: str) -> set[str]:
    """The states in a chart."""
    ends = re.findall(r"^\s*(\S+) --> (\w+)", chart, re.MULTILINE)
    return {state for pair in ends for state in pair} - {"[*]"}


def test_states_of_a_future() -> None:
    """They are those that the metadata can tell."""
    told = str(FutureInfo.__doc__).partition("state:")[2].partition("dependencies:")[0]
    assert states(charts()[0]) == set(_STATES.findall(told))


def test_states_of_a_run() -> None:
    """They are those of a summary, and what is before and beside them."""
    told = str(run.RunSummary.__doc__).partition("status:")[2].partition("started,")[0]
    assert states(charts()[1]) == set(_STATES.findall(told)) | {"accepted", "deadletter"}


def test_directives() -> None:
    """Only directives are named as such."""
    names = {name for cell in directives() for name in re.findall(r"\w+", cell)}
    assert names - {"all", "others"} <= set(Directives.__struct_fields__)


def directives() -> list[str]:
    """The first column of the table of directives."""
    return tables(PAGE, "Directives: enforced, and announced only")[0].column("directive")


def test_defaults() -> None:
    """The figures in the text are the defaults of the settings."""
    settings = Settings()
    assert msgspec.structs.asdict(settings) | {
        "journal_max_age": 45 * DAY,
        "blob_max_age": 90 * DAY,
        "dead_max_age": 30 * DAY,
        "inline_limit": 64 << 10,
        "value_limit": 256 << 20,
    } == msgspec.structs.asdict(settings)
