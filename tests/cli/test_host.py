"""``callboard host``: it works, it drains, and it ends with a code that says how."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal import (
    APP,
    ENDS_WITHIN,
    Running,
    callboard,
    environment,
    eventually,
    wait_for,
)

from callboard import connect_sync
from callboard.cli.exits import Exit
from callboard.infra.server import EmbeddedServer

READY = '"event":"host_ready"'


def test_it_says_when_it_is_ready(nats_url: str) -> None:
    """Once, as a JSON line on stdout; without --json stdout stays empty and stderr has the event."""
    with Running("host", f"{APP}:greet,Scarce", "--json", "--nats", nats_url) as host:
        ready = json.loads(host.until(READY))
        assert ready["actors"] == ["greet", "Scarce"]
        assert ready["host"].startswith("h-")


def test_a_path_in_a_package_reaches_other_processes(tmp_path: Path, nats_url: str) -> None:
    """A cpu handler runs in a spawned process, which imports the module again by its dotted name."""
    package = tmp_path / "shop" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "calc.py").write_text(
        "from callboard import tool, workflow\n"
        "@tool(cpu=True)\ndef name_here(n: int) -> str: return __name__\n"
        "@workflow\nasync def named() -> str: return await name_here(1)\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Running("host", "../shop/inner/calc.py", "--json", url=nats_url, cwd=elsewhere) as host:
        host.until(READY)
        with connect_sync(nats_url) as client:
            assert client.run("named", timeout=ENDS_WITHIN) == "shop.inner.calc"


def test_a_call_outside_of_any_run_is_refused(tmp_path: Path, nats_url: str) -> None:
    """A thread of one's own does not know whose calls it makes: they must not run here, beside the board."""
    (tmp_path / "stray.py").write_text(
        "import asyncio\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from callboard import tool, workflow\n"
        "@tool\ndef one(n: int) -> int: return n\n"
        "@workflow\nasync def inner(n: int) -> int: return await one(n)\n"
        "def told(called) -> str:\n"
        "    with ThreadPoolExecutor() as pool:\n"
        "        return type(pool.submit(called, 1).exception()).__name__\n"
        "@workflow\ndef strays() -> list[str]: return [told(one), told(inner)]\n"
        "@workflow\nasync def lends() -> int: return await asyncio.to_thread(lambda: one(3).value())\n"
    )
    with Running("host", "stray.py", "--json", url=nats_url, cwd=tmp_path) as host:
        host.until(READY)
        with connect_sync(nats_url) as client:
            assert client.run("strays", timeout=ENDS_WITHIN) == ["CallMisplaced"] * 2
            assert client.run("lends", timeout=ENDS_WITHIN) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_drains(number: signal.Signals, nats_url: str, gate: Path) -> None:
    """On a signal it finishes what runs, within its grace, and ends with 0."""
    with (
        Running("host", f"{APP}:holds", "--json", url=nats_url) as driver,
        Running("host", f"{APP}:hold", "--json", "--grace", "20", url=nats_url) as host,
        connect_sync(nats_url) as client,
    ):
        driver.until(READY)
        host.until(READY)
        run = client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        host.send(number)
        assert '"grace_s": 20.0' in host.until('"event": "draining"')
        gate.touch()
        assert client.result(run, timeout=ENDS_WITHIN) == "let go"
        assert host.wait() == Exit.OK
    assert not Path(f"{gate}.cancelled").exists()


def test_what_does_not_finish_in_time_is_given_back(nats_url: str, gate: Path) -> None:
    """After the grace the call runs again elsewhere."""
    with (
        Running("host", f"{APP}:holds", "--json", url=nats_url) as driver,
        Running("host", f"{APP}:hold", "--json", "--grace", "0.1", url=nats_url) as host,
        connect_sync(nats_url) as client,
    ):
        driver.until(READY)
        host.until(READY)
        run = client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        host.send(signal.SIGTERM)
        assert host.wait() == Exit.OK
        wait_for(Path(f"{gate}.cancelled"))
        gate.touch()
        with Running("host", f"{APP}:hold", "--json", url=nats_url) as other:
            other.until(READY)
            assert client.result(run, timeout=ENDS_WITHIN) == "let go"


def test_a_second_interrupt_ends_it_at_once(nats_url: str, gate: Path) -> None:
    """Nobody has to wait for the grace of half a minute."""
    with Running("host", APP, "--json", url=nats_url) as host, connect_sync(nats_url) as client:
        host.until(READY)
        client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        host.send(signal.SIGINT)
        host.until('"event": "draining"')
        host.send(signal.SIGINT)
        assert host.wait() == Exit.INTERRUPTED
        assert not Path(f"{gate}.cancelled").exists()


def test_a_thread_that_never_returns_does_not_hold_it(nats_url: str, gate: Path) -> None:
    """After the grace the process ends although a handler's thread is stuck."""
    host_arguments = ("host", APP, "--json", "--grace", "0.1")
    with Running(*host_arguments, url=nats_url) as host, connect_sync(nats_url) as client:
        host.until(READY)
        client.submit("sticks", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        host.send(signal.SIGTERM)
        assert host.wait() == Exit.OK


def test_a_connection_that_is_closed_for_good_ends_it(nats_url: str) -> None:
    """With the exit code for a missing server, so that whoever supervises it starts it again."""
    code = f"""
import asyncio, sys
from callboard.actors.resources import place_app
from callboard.cli.exits import exit_for
from callboard.cli.serving import run_loop, serve
from callboard.infra.errors import CallboardError
from callboard.infra.settings import Settings

closing = []

def on_ready(host):
    closing.append(asyncio.ensure_future(host.node.connection.client.close()))

settings = Settings.load(nats_url={nats_url!r})
try:
    run_loop(serve(place_app([{str(APP)!r}], settings), settings, on_ready))
except CallboardError as error:
    print(error.code)
    sys.exit(exit_for(error))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=ENDS_WITHIN, env=environment(), check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (Exit.NO_SERVER, "connection_lost")


def test_it_outlives_its_server(nats_server: EmbeddedServer) -> None:
    """A server that is started again finds the host working."""
    with Running("host", f"{APP}:greet", "--json", url=nats_server.url) as host:
        host.until(READY)
        nats_server.restart()
        with connect_sync(nats_server.url) as client:
            assert client.run("greet", {"name": "again"}, timeout=ENDS_WITHIN) == "Hello again"


def test_what_cannot_be_imported_is_shown(tmp_path: Path) -> None:
    """With the user's traceback and exit code 1, before any server is asked for."""
    path = tmp_path / "bad.py"
    path.write_text("from callboard import agent\n\n@agent\nclass Silent: ...\n")
    ended = callboard("host", path, "--nats", "nats://127.0.0.1:1")
    assert ended.code == Exit.FAILED
    assert f'File "{path}", line 3' in ended.err
    assert "has no public method" in ended.err.splitlines()[-1]


def test_an_agent_that_cannot_be_made_is_shown(tmp_path: Path, nats_url: str) -> None:
    """With the user's lines, and none of Callboard's."""
    path = tmp_path / "needy.py"
    text = (
        "class Needy:\n    def __init__(self):\n        raise OSError('no model')\n    def work(self): ...\n"
    )
    path.write_text(f"from callboard import agent\n\n@agent\n{text}")
    ended = callboard("host", path, url=nats_url)
    assert ended.code == Exit.FAILED
    assert f'File "{path}", line 6' in ended.err
    assert "actors/host.py" not in ended.err
    assert ended.err.splitlines()[-1] == "error: agent Needy cannot be made: OSError: no model"


def test_an_application_that_exits_is_no_end_of_its_own(tmp_path: Path) -> None:
    """Its exit code would be taken for one of Callboard's."""
    path = tmp_path / "quits.py"
    path.write_text("import sys\nsys.exit(3)\n")
    ended = callboard("host", path, "--nats", "nats://127.0.0.1:1")
    assert ended.code == Exit.FAILED
    assert ended.err.splitlines()[-1] == f"error: {path} cannot be imported: SystemExit: 3"


def test_annotations_that_cannot_work_are_found_at_the_start(tmp_path: Path, nats_url: str) -> None:
    """Not at the first call."""
    path = tmp_path / "odd.py"
    path.write_text("from callboard import tool\n@tool\ndef odd(*args: int) -> int: return 1\n")
    ended = callboard("host", path, url=nats_url)
    assert ended.code == Exit.FAILED
    assert "odd.call: *args cannot be declared" in ended.err


def test_several_applications_in_one_host(tmp_path: Path, nats_url: str) -> None:
    """Their actors are run side by side."""
    path = tmp_path / "more.py"
    path.write_text("from callboard import tool\n@tool\ndef more() -> int: return 1\n")
    with Running("host", f"{APP}:greet", path, "--json", url=nats_url) as host:
        assert json.loads(host.until(READY))["actors"] == ["greet", "more"]


def test_loops_are_uvloops_where_there_is_one(nats_url: str, tmp_path: Path) -> None:
    """The fast one that is a dependency on every system that has it."""
    pytest.importorskip("uvloop")
    path = tmp_path / "looper.py"
    path.write_text(
        "import asyncio\nfrom callboard import workflow\n@workflow\n"
        "async def loop_name() -> str: return type(asyncio.get_running_loop()).__module__\n"
    )
    with Running("host", path, "--json", url=nats_url) as host:
        host.until(READY)
        ran = callboard("run", "loop_name", url=nats_url)
        assert ran.out.strip() == "uvloop"


def test_the_file_is_not_left_in_the_registry(nats_url: str) -> None:
    """A host that has said goodbye is gone from `actors` at once."""
    with Running("host", f"{APP}:greet", "--json", url=nats_url) as host:
        host.until(READY)
        host.send(signal.SIGTERM)
        assert host.wait() == Exit.OK
    (greet,) = callboard("actors", "--json", url=nats_url).json
    assert greet["hosts"] == {}


def test_no_process_is_left_behind(nats_url: str) -> None:
    """The processes of cpu handlers end with their host."""
    import psutil

    with Running("host", APP, "--json", url=nats_url) as host:
        host.until(READY)
        with connect_sync(nats_url) as client:
            client.run("totals", {"numbers": [1]}, timeout=ENDS_WITHIN)
        children = psutil.Process(host.pid).children(recursive=True)
        assert children
        host.send(signal.SIGTERM)
        assert host.wait() == Exit.OK
    eventually(lambda: not any(child.is_running() for child in children))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [("host", f"{APP}:greet"), ("gateway",)])
def test_it_ends_at_once_while_it_waits_for_a_server(
    command: tuple[object, ...], number: signal.Signals
) -> None:
    """Told to stop before it works, it has nothing to finish; it does not give up waiting first (code 3)."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Running(*command, "--json", url=f"nats://127.0.0.1:{silent.getsockname()[1]}") as starting,
    ):
        silent.settimeout(ENDS_WITHIN)
        connection, _ = silent.accept()
        with connection:
            starting.send(number)
            assert starting.wait() == Exit.OK, starting.output
            assert "Traceback" not in starting.output


def test_a_route_to_a_name_survives_a_kill_and_a_restart(tmp_path: Path, nats_url: str) -> None:
    """While a host lives nobody else gets its name; once it was killed the next one has it, and its calls."""
    app = tmp_path / "placed.py"
    app.write_text(
        "import os\nfrom callboard import tool, workflow\n"
        "@tool\nasync def where() -> int: return os.getpid()\n"
        "@workflow\nasync def placed() -> int: return await where()\n"
    )
    named = ("host", f"{app}:where", "--name", "left", "--json")
    patient: Any = {
        "CALLBOARD_DEAD_AFTER": "5"
    }  # else one that gets no time would lose its calls to the other
    with Running("host", app, "--json", url=nats_url, **patient) as other, connect_sync(nats_url) as client:
        other.until(READY)
        client.route("where", "left")
        with Running(*named, url=nats_url, **patient) as first:
            first.until(READY)
            eventually(lambda: client.run("placed", timeout=ENDS_WITHIN) == first.pid)
            refused = callboard(*named, url=nats_url, **patient)
            assert (refused.code, "has the name left, and lives" in refused.err) == (Exit.FAILED, True)
            assert client.run("placed", timeout=ENDS_WITHIN) == first.pid
            first.send(signal.SIGKILL)
            with Running(*named, url=nats_url, **patient) as second:
                second.until(READY)
                eventually(lambda: client.run("placed", timeout=ENDS_WITHIN) == second.pid)
                assert [client.run("placed", timeout=ENDS_WITHIN) for _ in range(5)] == [second.pid] * 5
