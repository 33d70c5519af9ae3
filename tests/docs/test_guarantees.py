"""docs/guarantees.md names tests that exist, and states, directives and defaults as they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise

import msgspec
import pytest
from tests.docs.pages import DOCS, ROOT, blocks, prose, table, tables

from callboard.actors.directives import Directives
from callboard.actors.future import FutureInfo
from callboard.actors.patience import ENOUGH
from callboard.actors.slots import PREEMPTIONS
from callboard.controller.provisioning.roster import SILENT
from callboard.infra.messages import run
from callboard.infra.settings import DAY, Settings
from callboard.state.charging import RESERVED_FOR, SETTLED

PAGE = DOCS / "guarantees.md"
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
_STATES = re.compile(r"``(\w+)``")
_EDGE = re.compile(r"^\s*(\S+) --> (\w+)", re.MULTILINE)
_BEGINS = re.compile(r"#|\||[-*] |\d+\. ")
_RULE = re.compile(r"\|[-|: ]+\|")
_END = re.compile(r"[.!?](?=\s|$)")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def named() -> list[tuple[str, str]]:
    """All tests that the page names, each once."""
    return list(dict.fromkeys(found for line in prose(PAGE) for found in _TEST.findall(line)))


@cache
def functions(file: str) -> set[str]:
    """The tests in a file."""
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    found = (n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in found if name.startswith("test_")}


@pytest.mark.parametrize(("file", "function"), named())
def test_every_named_test_exists(file: str, function: str) -> None:
    """A promise without its test is a wish."""
    assert function in functions(file)


def statements(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Rows of tables, items of lists and paragraphs; and whether each stands directly below a heading."""
    gathered: list[str] = []
    below = False
    for line in [*lines, ""]:
        apart = _BEGINS.match(line) or not line.strip() or "".join(gathered[:1]).startswith("|")
        if apart and gathered:
            yield " ".join(gathered), below
            gathered, below = [], False
        if line.startswith("#"):
            below = True
        elif line.strip():
            gathered.append(line.strip())


def introduces(statement: str) -> bool:
    """Whether it is a paragraph of one sentence, which says what a section is about."""
    plain = _LINK.sub(r"\1", re.sub(r"`[^`]*`", "it", statement))
    return not _BEGINS.match(statement) and len(_END.findall(plain)) <= 1


def bare(lines: list[str]) -> list[str]:
    """What would have to name a test and does not.

    All do but heads of tables, and one sentence directly below a heading.
    """
    heads = {line for line, rule in pairwise(lines) if _RULE.fullmatch(rule.strip())}
    return [
        statement
        for statement, below in statements(lines)
        if not _TEST.search(statement)
        and not (statement in heads or _RULE.fullmatch(statement))
        and not (below and introduces(statement))
    ]


def test_every_statement_names_a_test() -> None:
    """Each row of a table, item of a list and paragraph, but for one sentence at the beginning of a section."""
    assert bare(list(prose(PAGE))) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# Page\n\nOne sentence, with `a. b` and a [link](x.md).\n", 0),
        ("# Page\n\nTwo sentences. They promise something.\n", 1),
        ("# Page\n\nTwo sentences. They promise something (`docs/test_x.py::test_y`).\n", 0),
        ("# Page\n\nOne sentence.\n\nAnother paragraph.\n", 1),
        ("# Page\n\n- An item\n  that goes on.\n- And another: `docs/test_x.py::test_y`.\n", 1),
        ("# Page\n\n| a | test |\n|---|---|\n| b | `docs/test_x.py::test_y` |\n", 0),
        ("# Page\n\n| a | test |\n|---|---|\n| b | |\n| c | d |\n", 2),
        ("# Page\n\n| a | test |\n|---|---|\n| b | `docs/test_x.py::test_y` |\nAnd a promise.\n", 1),
        ("# Page\n\n1. One\n2. `docs/test_x.py::test_y`\n", 1),
    ],
)
def test_statements_without_a_test_are_found(text: str, found: int) -> None:
    """Wherever they stand."""
    assert len(bare(text.splitlines())) == found


def charts() -> tuple[str, str]:
    """The two charts: of a future's states, and of a run's."""
    future, whole = (block.text for block in blocks(PAGE) if block.language == "mermaid")
    return future, whole


def states(chart: str) -> set[str]:
    """The states in a chart."""
    return {state for pair in _EDGE.findall(chart) for state in pair} - {"[*]"}


@pytest.mark.parametrize(
    ("number", "heading", "begin"),
    [(0, "The states of a future", "called"), (1, "The states of a run", "stored")],
)
def test_every_step_of_a_chart_names_a_test(number: int, heading: str, begin: str) -> None:
    """The table below a chart has all of its steps, and no others."""
    steps = [f"{begin if one == '[*]' else one} → {other}" for one, other in _EDGE.findall(charts()[number])]
    assert tables(PAGE, heading)[0].column("step") == steps


def test_states_of_a_future() -> None:
    """They are those that the metadata can tell."""
    told = str(FutureInfo.__doc__).partition("state:")[2].partition("dependencies:")[0]
    assert states(charts()[0]) == set(_STATES.findall(told))


def test_states_of_a_run() -> None:
    """They are those of a summary, and what is before and beside them."""
    told = str(run.RunSummary.__doc__).partition("status:")[2].partition("started,")[0]
    assert states(charts()[1]) == set(_STATES.findall(told)) | {"accepted", "deadletter"}


def test_directives() -> None:
    """All directives are told of, and nothing else as such."""
    names = {name for cell in directives() for name in re.findall(r"\w+", cell)}
    assert names - {"with", "without", "and", "snapshot", "restore"} == set(Directives.__struct_fields__)


def directives() -> list[str]:
    """The first column of the table of directives."""
    return table(PAGE, "Directives: enforced, and announced only").column("directive")


def test_defaults() -> None:
    """The figures in the text are the defaults of the settings."""
    settings = Settings()
    assert msgspec.structs.asdict(settings) | {
        "journal_max_age": 45 * DAY,
        "blob_max_age": 90 * DAY,
        "dead_max_age": 30 * DAY,
        "inline_limit": 64 << 10,
        "value_limit": 256 << 20,
        "durability": "development",
        "timeout_factor": 10.0,
        "timeout_least": 30.0,
        "timeout_last": False,
    } == msgspec.structs.asdict(settings)


def test_figures() -> None:
    """Other figures in the text are what the code has."""
    assert (PREEMPTIONS, ENOUGH, SETTLED, RESERVED_FOR, SILENT) == (3, 100, 500, 3600.0, 10.0)
