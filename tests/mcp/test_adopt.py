"""``callboard host --mcp``: the tools of MCP servers as actors, whatever the servers do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cli.terminal import ENDS_WITHIN, Running, callboard, eventually, free_port

from callboard import connect_sync
from callboard.cli.exits import Exit
from callboard.infra.errors import (
    InvalidArguments,
    McpServerLost,
    RunFailed,
    ToolFailed,
)
from callboard.infra.server import EmbeddedServer

APP = Path(__file__).with_name("app.py")
ODD = Path(__file__).with_name("odd_server.py")
READY = '"event":"host_ready"'


def real(module: str) -> str:
    """How a published server is started."""
    return f"{sys.executable} -m {module}"


def odd(notes: Path) -> str:
    """How the server that misbehaves is started."""
    return f"odd={sys.executable} {ODD} {notes}"


def noted(notes: Path) -> list[str]:
    """What the odd server has noted down."""
    return notes.read_text().split("\n")[:-1] if notes.exists() else []


def pids(notes: Path) -> list[int]:
    """Every process of the odd server so far."""
    return [int(line.split()[1]) for line in noted(notes) if line.startswith("pid")]


def alive(pid: int) -> bool:
    """Whether a process lives; what is dead and not collected yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def listens(port: int) -> bool:
    """Whether somebody answers at a port."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def call(url: str, server: str, name: str, **arguments: Any) -> Any:
    """Call a tool from a workflow."""
    with connect_sync(url) as client:
        given = {"server": server, "name": name, "arguments": arguments}
        return client.run("call", given, timeout=ENDS_WITHIN)


def failure(url: str, server: str, name: str, **arguments: Any) -> BaseException:
    """How such a call fails."""
    with pytest.raises(RunFailed) as failed:
        call(url, server, name, **arguments)
    assert failed.value.__cause__ is not None
    return failed.value.__cause__


@pytest.fixture(scope="module")
def published() -> Iterator[str]:
    """The address of a board with the published time and git servers on it."""
    servers = ("--mcp", real("mcp_server_time"), "--mcp", f"repo={real('mcp_server_git')}")
    with EmbeddedServer() as server, Running("host", APP, *servers, "--json", url=server.url) as host:
        host.until(READY)
        yield server.url


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """What the odd server writes."""
    return tmp_path / "notes"


@pytest.fixture
def odd_host(nats_url: str, notes: Path) -> Iterator[Running]:
    """A host with the odd server."""
    with Running("host", APP, "--mcp", odd(notes), "--json", url=nats_url) as host:
        host.until(READY)
        yield host


def test_a_published_server_is_called(published: str, tmp_path: Path) -> None:
    """Structured results come as such, text as text, whatever name the server was given."""
    told = call(published, "time", "get_current_time", timezone="UTC")
    assert told["timezone"] == "UTC"
    assert set(told) == {"timezone", "datetime", "day_of_week", "is_dst"}
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "new.txt").touch()
    assert "new.txt" in call(published, "repo", "git_status", repo_path=str(tmp_path))


def test_errors_are_typed(published: str) -> None:
    """Arguments that do not fit are refused before the server sees them; what it refuses is its own text."""
    failed = failure(published, "time", "get_current_time", timezone="Nowhere")
    assert isinstance(failed, ToolFailed)
    assert "Nowhere" in failed.message
    assert failed.fields["actor"] == "time"
    missing = failure(published, "time", "get_current_time")
    assert isinstance(missing, InvalidArguments)
    assert "'timezone' is a required property" in missing.message
    wrong = failure(published, "repo", "git_log", repo_path="/", max_count="many")
    assert isinstance(wrong, InvalidArguments)
    assert "max_count: 'many' is not of type 'integer'" in wrong.message
    with connect_sync(published) as client, pytest.raises(RunFailed, match="by name"):
        client.run("by_position", {"server": "time", "name": "get_current_time"}, timeout=ENDS_WITHIN)


def test_the_registry_knows_their_schemas(published: str, tmp_path: Path) -> None:
    """``callboard actors`` lists them; ``callboard stubs`` writes typed Python, which is checked at the caller."""
    rows = {row["name"]: row for row in callboard("actors", "--json", url=published).json}
    assert rows["time"]["methods"] == ["get_current_time", "convert_time"]
    assert len(rows["time"]["hosts"]) == 1
    stubs = tmp_path / "stubs.py"
    stubs.write_text(callboard("stubs", "time", "repo", url=published).out)
    (tmp_path / "typed.py").write_text(
        "from stubs import TimeResult, repo, time\n"
        "from callboard import workflow\n"
        "@workflow\nasync def day() -> str:\n    return (await time.get_current_time('UTC')).day_of_week\n"
        "@workflow\nasync def log() -> str:\n    return await repo.git_log(repo_path='/', max_count='many')\n"
    )
    with Running("host", "typed.py", "--json", url=published, cwd=tmp_path) as host:
        host.until(READY)
        with connect_sync(published) as client:
            assert client.run("day", timeout=ENDS_WITHIN).endswith("day")
            with pytest.raises(RunFailed) as failed:
                client.run("log", timeout=ENDS_WITHIN)
    cause = failed.value.__cause__
    assert isinstance(cause, InvalidArguments)
    assert "typed.py" in cause.fields["called_at"]  # it was found where the call was made


def test_odd_names_rubbish_and_secrets(odd_host: Running, nats_url: str, notes: Path) -> None:
    """Names become valid ones, other parameters stay; lines that are no messages are told; no environment."""
    given = {"where": "here", "much-more": 2}
    assert call(nats_url, "odd", "get_path", **given) == f"get-path: {given}"
    assert call(nats_url, "odd", "import_") == "import: {}"
    assert call(nats_url, "odd", "add", a=1) == {"sum": 3}
    assert call(nats_url, "odd", "picture") == [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]
    assert "NATS_URL" not in call(nats_url, "odd", "secrets")
    assert isinstance(failure(nats_url, "odd", "get_path", where="HERE"), InvalidArguments)
    refused = failure(nats_url, "odd", "refuse")
    assert isinstance(refused, ToolFailed)
    assert "not on a Sunday" in refused.message
    odd_host.send(signal.SIGTERM)
    assert odd_host.wait() == Exit.OK
    assert '"event": "mcp_rubbish"' in odd_host.output
    eventually(lambda: not any(map(alive, pids(notes))))


def test_cancelling_a_run_tells_the_server(odd_host: Running, nats_url: str, notes: Path) -> None:
    """MCP's cancelled notification reaches the tool; the server goes on."""
    with connect_sync(nats_url) as client:
        run = client.submit("call", {"server": "odd", "name": "hang", "arguments": {}})
        eventually(lambda: "hangs" in noted(notes))
        client.cancel(run)
        eventually(lambda: "cancelled" in noted(notes))
    assert call(nats_url, "odd", "add", a=1) == {"sum": 3}
    assert len(pids(notes)) == 2  # it is the same process, and the one that it has left


def test_a_call_that_takes_too_long_is_given_up(nats_url: str, notes: Path) -> None:
    """The server is told, as of a cancellation."""
    limits = ("--mcp", odd(notes), "--mcp-timeout", "3")
    with Running("host", APP, *limits, "--json", url=nats_url) as host:
        host.until(READY)
        assert getattr(failure(nats_url, "odd", "hang"), "code", "") == "call_timeout"
        eventually(lambda: "cancelled" in noted(notes))


def test_a_server_that_dies_is_started_again(odd_host: Running, nats_url: str, notes: Path) -> None:
    """The call that it had fails with an error that says that it may be repeated; the next one is served."""
    with connect_sync(nats_url) as client:
        run = client.submit("call", {"server": "odd", "name": "hang", "arguments": {}})
        eventually(lambda: "hangs" in noted(notes))
        first = pids(notes)
        os.kill(first[0], signal.SIGKILL)
        with pytest.raises(RunFailed) as failed:
            client.result(run, timeout=ENDS_WITHIN)
    assert isinstance(failed.value.__cause__, McpServerLost)
    assert failed.value.__cause__.retryable
    assert call(nats_url, "odd", "add", a=1) == {"sum": 3}
    eventually(lambda: not any(map(alive, first)))


def test_nothing_outlives_a_killed_host(nats_url: str, notes: Path) -> None:
    """After kill -9 of the host its servers end, with what they have started."""
    with Running("host", APP, "--mcp", odd(notes), "--json", url=nats_url) as host:
        host.until(READY)
        assert all(map(alive, pids(notes)))
        host.send(signal.SIGKILL)
        eventually(lambda: not any(map(alive, pids(notes))))


def test_a_server_at_an_address(nats_url: str) -> None:
    """Streamable HTTP; when it comes back after an absence it is used again."""
    port = free_port()
    serving = ("mcp", "serve", "double", "--http", port, "--json")
    with Running("host", f"{APP}:double", "--json", url=nats_url) as tools:
        tools.until(READY)
        with Running(*serving, url=nats_url) as server:
            server.until("mcp_ready")
            eventually(lambda: listens(port))
            address = f"far=http://127.0.0.1:{port}/mcp"
            host = Running("host", f"{APP}:call", "--mcp", address, "--json", url=nats_url)
            with host:
                host.until(READY)
                assert call(nats_url, "far", "double", n=21) == "42"
                server.send(signal.SIGKILL)
                server.wait()
                assert isinstance(failure(nats_url, "far", "double", n=21), McpServerLost)
                with Running(*serving, url=nats_url) as again:
                    again.until("mcp_ready")
                    eventually(lambda: listens(port))
                    assert call(nats_url, "far", "double", n=4) == "8"


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        (["no-such-command"], "there is no command 'no-such-command'"),
        (["'"], "is no command line"),
        ([f"{sys.executable} -c pass"], "cannot be adopted"),
        (["http://127.0.0.1:9/mcp"], "cannot be adopted"),
        ([f"a={real('mcp_server_time')}", f"a={real('mcp_server_time')}"], "give one another name"),
    ],
)
def test_what_cannot_be_adopted_is_told(nats_url: str, servers: list[str], why: str) -> None:
    """The host does not start, and nothing is left."""
    options = [part for server in servers for part in ("--mcp", server)]
    ended = callboard("host", *options, url=nats_url)
    assert ended.code == Exit.FAILED
    assert why in ended.err


def test_there_must_be_something_to_host(nats_url: str) -> None:
    """An application or a server."""
    ended = callboard("host", url=nats_url)
    assert ended.code == Exit.USAGE
    assert "--mcp" in ended.err
