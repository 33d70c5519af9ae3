"""What README.md shows works: the workflow, the commands, the requests of other clients."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nats
import pytest
from tests.docs.pages import ROOT, Block, blocks
from tests.docs.session import Shell, commands

import callboard
from callboard.actors.app import load
from callboard.actors.host import Host
from callboard.infra.settings import Settings

PAGE = ROOT / "README.md"
INTEROP = ROOT / "tests/interop"
BOTH = {"tickers": ["AAPL", "MSFT"]}
ANSWER = "AAPL +181%\nMSFT +12%"


def titled(title: str) -> Block:
    """The block that stands for a file."""
    return next(block for block in blocks(PAGE) if block.title == title)


def shell_lines(program: str) -> list[list[str]]:
    """The words of every shown command of a program."""
    text = "\n".join(block.text for block in blocks(PAGE) if block.language == "sh")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith(program)]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The workflow of the page, as a module."""
    path = tmp_path / "readme_app.py"
    path.write_text(titled("app.py").text, "utf-8")
    spec = importlib.util.spec_from_file_location("readme_app", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "readme_app", module)
    spec.loader.exec_module(module)
    return module


def test_the_workflow_is_short() -> None:
    """About twenty lines of code."""
    code = [line for line in titled("app.py").text.splitlines() if line.strip()]
    assert len(code) <= 20


async def test_the_workflow_runs_locally(app: ModuleType) -> None:
    """As an ordinary function."""
    assert await app.research(BOTH["tickers"]) == ANSWER


@pytest.fixture
async def board(app: ModuleType, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server with a host of the page's workflow."""
    monkeypatch.setitem(sys.modules, "app", app)
    declared = [app.prices, app.Analyst.__callboard__, app.research]
    host = Host(declared, Settings(nats_url=nats_url))
    await host.start()
    yield nats_url
    await host.stop(grace=0.1)


async def test_the_workflow_runs_over_nats(board: str) -> None:
    """With the same result."""
    async with callboard.connect(board) as client:
        assert await client.run("research", BOTH, timeout=30) == ANSWER


async def test_requests_by_the_nats_tool(board: str) -> None:
    """What ``nats req`` and ``nats stream get`` would send, word for word."""
    (request, get) = shell_lines("nats ")
    _, _, subject, body, _, header = request
    name, _, run = header.partition(":")
    client = await nats.connect(board)
    outcome = await client.subscribe(f"cb.journal.{run}.done")
    accepted = await client.request(subject, body.encode(), headers={name: run}, timeout=30)
    assert json.loads(accepted.data)["stream"] == "REQUESTS"
    await outcome.next_msg(30)
    assert get[:3] == ["nats", "stream", "get"]
    stored = await client.jetstream().get_last_msg(get[3], get[5])
    await client.close()
    assert json.loads(stored.data or b"")["value"] == "AAPL +181%"


async def test_a_request_from_javascript(board: str, tmp_path: Path) -> None:
    """The script of the page, as it stands."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        assert "CI" not in os.environ, "there is no node and npm: .ci/run installs them"
        pytest.skip("there is no node and npm on PATH")
    if not (INTEROP / "node_modules/.package-lock.json").exists():
        await asyncio.to_thread(
            subprocess.run, [npm, "ci", "--no-audit", "--no-fund"], cwd=INTEROP, check=True
        )
    (tmp_path / "node_modules").symlink_to(INTEROP / "node_modules")
    (tmp_path / "ask.mjs").write_text(titled("ask.mjs").text, "utf-8")
    script = await asyncio.create_subprocess_exec(
        *(node, "ask.mjs"),
        cwd=tmp_path,
        env={**os.environ, "NATS_URL": board},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        printed, _ = await script.communicate()
    assert printed.decode() == "MSFT +12%\n"


def test_the_local_command(tmp_path: Path) -> None:
    """It prints what is shown."""
    local, _ = (block for block in blocks(PAGE) if block.language == "console")
    with Shell(tmp_path, {}) as shell:
        shell.write(titled("app.py"))
        for command in commands(local):
            shell.run(command)


@pytest.mark.slow
def test_the_two_terminals(tmp_path: Path) -> None:
    """``callboard dev`` in one, ``callboard run`` in the other."""
    _, both = (block for block in blocks(PAGE) if block.language == "console")
    dev, run = (shlex.split(command.text, comments=True) for command in commands(both))
    (tmp_path / "app.py").write_text(titled("app.py").text, "utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "NATS_URL"}
    program = [sys.executable, "-m"]
    with subprocess.Popen(
        [*program, *dev], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = next(found[0] for line in server.stdout if (found := re.search(r"nats://\S+", line)))
        assert any(line.startswith("ready") for line in server.stdout)
        ran = subprocess.run(
            [*program, *run, "--nats", url],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        server.terminate()
        server.stdout.read()
    assert ran.stdout == f"{ANSWER}\n"


def test_hosts_that_are_shown_can_be_started(app: ModuleType, tmp_path: Path) -> None:
    """The parts of the application that the commands name are there."""
    specs = [word for words in shell_lines("callboard host") for word in words if word.startswith("app.py:")]
    assert specs
    for spec in specs:
        names = spec.partition(":")[2]
        assert load(f"{tmp_path / 'readme_app.py'}:{names}").declarations
