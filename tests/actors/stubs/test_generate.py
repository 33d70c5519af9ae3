"""Writing stubs from the registry of a real server."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.actors.stubs.support import Load, declared_in, stubs_of

from callboard.actors.declared import declaration
from callboard.actors.host import Host
from callboard.actors.node import Node
from callboard.actors.stubs import generate
from callboard.infra.errors import UnknownActor


async def test_needs_callboard_msgspec_and_the_standard_library_only(board: str) -> None:
    """A driver needs none of the agent's dependencies."""
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else name.name) or ""
        for node in ast.walk(ast.parse(board))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    outside = {module.partition(".")[0] for module in imported} - sys.stdlib_module_names
    assert outside == {"callboard", "msgspec"}


async def test_is_the_same_text_again(node: Node, board: str, market: ModuleType) -> None:
    """The registry alone decides on the text: no time, no order of arrival."""
    assert await generate(node) == board
    again = await generate(node, ["prices", "Analyst", "echo-all", "StockAnalyst"])
    assert again.replace("stubs Analyst StockAnalyst echo-all prices", "stubs") == board


async def test_says_what_it_was_written_from(node: Node, board: str) -> None:
    """The head names versions and how to write it again."""
    head = ast.get_docstring(ast.parse(board)) or ""
    assert re.search(r"agent StockAnalyst version [0-9a-f]{12}", head)
    assert re.search(r"tool  prices       version [0-9a-f]{12}", head)
    assert head.endswith("To write it again: callboard stubs")
    some = ast.get_docstring(ast.parse(await generate(node, ["prices", "Analyst"]))) or ""
    assert some.endswith("To write it again: callboard stubs Analyst prices")


async def test_carries_documentation_defaults_and_kinds_of_parameters(board: str) -> None:
    """What an editor shows is what the agent's author wrote."""
    assert '"""A vector for a text; callers give one each."""' in board
    assert "Args:\n        ticker: as the exchange has it.\n" in board
    assert '"""One field of each type."""' in board
    assert "end: Arg[datetime.date] = datetime.date(2009, 12, 31)," in board
    assert "*,\n        most: Arg[Annotated[int, msgspec.Meta(ge=1)]] = 3," in board
    assert "def embed(texts: Arg[str]) -> Future[list[float]]:" in board


async def test_writes_only_what_was_asked_for(node: Node) -> None:
    """No other actor, and no class that it alone uses."""
    text = await generate(node, ["prices"])
    classes = {one.name for one in ast.parse(text).body if isinstance(one, ast.ClassDef)}
    functions = {one.name for one in ast.parse(text).body if isinstance(one, ast.FunctionDef)}
    assert classes == {"Series", "Point"}
    assert functions == {"prices"}


async def test_workflows_have_no_stub(node: Node, board: str) -> None:
    """They are asked for with a client."""
    assert "nightly" not in board
    with pytest.raises(UnknownActor, match=r"nightly is a workflow.*submit"):
        await generate(node, ["nightly"])


@pytest.mark.parametrize("name", ["StockAnalist", "stockanalyst", "Stock"])
async def test_an_unknown_actor_is_named_with_the_likely_one(node: Node, name: str) -> None:
    """Did you mean."""
    with pytest.raises(UnknownActor, match="did you mean StockAnalyst") as caught:
        await generate(node, ["prices", name])
    assert caught.value.fields == {"actor": name}


async def test_an_unknown_actor_unlike_any_other(node: Node) -> None:
    """All there are are named."""
    with pytest.raises(UnknownActor, match="it has Analyst, StockAnalyst, echo-all, prices"):
        await generate(node, ["zzz"])


async def test_an_empty_registry(nats_url: str) -> None:
    """There is nothing to write about, and a name gets a hint."""
    host = Host([], nats_url)
    await host.node.open()
    try:
        assert "import" in await generate(host.node)
        with pytest.raises(UnknownActor, match="start a host first"):
            await generate(host.node, ["prices"])
    finally:
        await host.node.close()


@pytest.mark.parametrize("width", [88, 110])
def test_is_formatted(market: ModuleType, tmp_path: Path, width: int) -> None:
    """Formatters and linters leave it alone, and would have written it so but for long annotations."""
    board = stubs_of(*(one for one in declared_in(market) if one.kind != "workflow"))
    path = tmp_path / "board.py"
    path.write_text(board)
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", str(path)]
    subprocess.run([*ruff, "check", "--select", "ALL", "--ignore", "PGH004", *options], check=True)
    subprocess.run([*ruff, "format", "--check", f"--line-length={width}", *options], check=True)
    if width >= max(len(line) for line in board.splitlines()):
        path.write_text(board.replace("# fmt: off\n", ""))
        subprocess.run([*ruff, "format", "--check", f"--line-length={width}", *options], check=True)


async def test_can_be_imported(board: str, load: Load) -> None:
    """It has documented functions with signatures, and nothing that a host would take for an actor."""
    module = load("board", board)
    assert module.StockAnalyst.study.__doc__ == "What a series shows."
    assert list(inspect.signature(module.StockAnalyst.study).parameters) == ["series", "options"]
    assert [declaration(one) for one in vars(module).values() if declaration(one)] == []
