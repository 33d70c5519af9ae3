"""Fixtures of the command line: a board with a host on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from callboard.cli.commands import run
from callboard.infra.server import EmbeddedServer

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # so that tests can import what they share, as `tests.support`
    sys.path.append(ROOT)

from tests.cli.terminal import APP, Ran, Running, Typed, environment  # noqa: E402 - needs the path above

STANDIN = Path(__file__).parents[1] / "support" / "standin.py"


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The address of a stand-in for an engine, a process of its own."""
    line = [sys.executable, str(STANDIN), "--port", "0", "--pace", "0.1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture
def typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Typed]:
    """Runs a command in this process, which is quick; not for commands that take signals to end."""

    def typed(*arguments: object, url: str = "", **more: str) -> Ran:
        for name in set(os.environ) - set(environment()):
            monkeypatch.delenv(name)
        for name, value in environment(url, **more).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    yield typed
    structlog.reset_defaults()  # it writes to what was stderr during the test


@pytest.fixture(scope="module")
def board() -> Iterator[str]:
    """The address of a server with a host of the test application on it; shared by a file's tests."""
    with (
        EmbeddedServer() as server,
        Running("host", APP, "--json", "--grace", "0.5", url=server.url) as host,
    ):
        host.until('"event":"host_ready"')
        yield server.url


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What the calls of ``holds`` wait for; touch it to let them go."""
    return tmp_path / "gate"
