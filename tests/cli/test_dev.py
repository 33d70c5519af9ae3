"""``callboard dev``: from nothing to a first result, reloads, crashes, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest
from tests.cli.terminal import (
    APP,
    ENDS_WITHIN,
    Running,
    callboard,
    command,
    environment,
    eventually,
    free_port,
    wait_for,
)

from callboard import connect_sync
from callboard.cli.exits import Exit
from callboard.controller.dev import ended_by
from callboard.controller.restarts import HEALTHY_AFTER
from callboard.infra.errors import CallboardError

PUBLISH = """
import asyncio, nats, sys

async def main():
    client = await nats.connect(sys.argv[1])
    await client.publish(sys.argv[2], sys.argv[3].encode())
    await client.drain()

asyncio.run(main())
"""

ECHO = """
from callboard import tool, workflow

@tool
async def version() -> str:
    return {version!r}

@workflow
async def ask() -> str:
    return await version()
"""


MODELLED = """
from callboard import model, model_at, tool, workflow

writer = model_at("writer", url={url!r})

@tool
async def version() -> str:
    return {version!r}

@workflow
async def ask() -> str:
    return await version() + (await model("writer").chat("x")).text
"""


class Dev(Running):
    """``callboard dev --json`` of an application that can be rewritten."""

    def __init__(self, path: Path | str, *options: object) -> None:
        port = free_port()
        self.url = f"nats://127.0.0.1:{port}"
        super().__init__("dev", path, "--port", port, "--json", *options)

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event."""
        told: dict[str, Any] = json.loads(self.until(f'"event":"{name}"'))
        return told

    def ask(self) -> Any:
        """Run the workflow."""
        with connect_sync(self.url) as client:
            return client.run("ask", timeout=ENDS_WITHIN)

    def hosts(self, kind: str = "host") -> list[psutil.Process]:
        """The host processes there are, or the gateway."""
        children = psutil.Process(self.pid).children(recursive=True)
        found = []
        for child in children:
            with contextlib.suppress(psutil.Error):  # it may end while it is looked at
                if {"--supervised", kind} <= set(child.cmdline()):
                    found.append(child)
        return found


def save(path: Path, text: str) -> None:
    """Replace a file in one step: nobody who watches sees it half written, or twice."""
    fresh = path.parents[2] / f"saving-{os.getpid()}-{path.name}"  # in no folder that is watched
    fresh.write_text(text)
    fresh.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An application that can be rewritten."""
    path = tmp_path / "echo_app.py"
    path.write_text(ECHO.format(version="one"))
    return path


@pytest.fixture
def dev(path: Path) -> Iterator[Dev]:
    """It runs."""
    with Dev(path) as dev:
        dev.event("ready")
        yield dev


def test_from_nothing_to_a_first_result(path: Path) -> None:
    """Server and all; how soon is for the benchmark ``dev_start``."""
    with Dev(path) as dev:
        dev.event("ready")
        assert dev.ask() == "one"


def test_it_says_what_to_type_next() -> None:
    """The lines that it prints work as they are: `callboard run`, and a publish with any NATS client."""
    port = free_port()
    with Running("dev", f"{APP}:greet", "--port", port) as dev:
        dev.until("ready")
        run_line = dev.until("callboard run greet").strip()
        pub_line = dev.until("nats pub").strip()
        words = shlex.split(run_line)
        assert words[:2] == ["callboard", "run"]
        assert callboard(*words[1:]).out == "Hello ...\n"
        _, _, option, url, subject, body = shlex.split(pub_line)
        assert (option, url) == ("-s", f"nats://127.0.0.1:{port}")
        with connect_sync(url) as client:
            before = len(client.runs())
            subprocess.run(
                [sys.executable, "-c", PUBLISH, url, subject, body],
                check=True,
                timeout=ENDS_WITHIN,
                env=environment(),
            )
            eventually(lambda: [one.status for one in client.runs()][before:] == ["completed"])


def test_a_saved_change_is_taken_over(dev: Dev, path: Path) -> None:
    """New code answers as soon as it is said to; saving twice in a second is no trouble."""
    for version in ("two", "six"):  # of the same length: Python's cache would not see a difference
        save(path, ECHO.format(version=version))
        assert dev.event("changed")["files"] == [str(path)]
        reloaded = dev.event("reloaded")
        assert [actor["name"] for actor in reloaded["actors"]] == ["version", "ask"]
        assert dev.ask() == version


def test_models_have_a_process_of_their_own(path: Path, engine: str) -> None:
    """Which stays when something else is changed: an engine may take minutes to start."""
    path.write_text(MODELLED.format(url=engine, version="one "))
    with Dev(path) as dev:
        assert dev.event("models_ready")["models"] == ["writer"]
        assert dev.ask() == "one x "
        (before,) = dev.hosts("model")
        save(path, MODELLED.format(url=engine, version="two "))
        dev.event("reloaded")
        assert dev.ask() == "two x "
        assert dev.hosts("model") == [before]
        save(path, MODELLED.format(url=f"{engine}/", version="three "))
        dev.event("models_ready")
        eventually(lambda: before not in dev.hosts("model"))
        assert dev.ask() == "three x "


def test_models_that_could_not_be_started_get_another_chance(path: Path, engine: str) -> None:
    """When something is saved."""
    good = MODELLED.format(url=engine, version="one ")
    path.write_text(f"{good}\nimport sys\nif '--kind' in sys.argv: raise ValueError\n")
    with Dev(path) as dev:
        dev.event("models_broken")
        save(path, good)
        dev.event("models_ready")
        assert dev.ask() == "one x "


def test_named_actors_are_apart_as_well(path: Path, engine: str) -> None:
    """Each kind in its process."""
    path.write_text(MODELLED.format(url=engine, version="one "))
    with Dev(f"{path}:ask,version,writer") as dev:
        assert dev.event("models_ready")["models"] == ["writer"]
        assert dev.ask() == "one x "


def test_what_an_application_imports_is_watched_too(tmp_path: Path) -> None:
    """Also where it came in by the last reload."""
    helper = tmp_path / "lib" / "words.py"
    helper.parent.mkdir()
    (helper.parent / "__init__.py").touch()
    helper.write_text("WORD = 'old'\n")
    path = tmp_path / "importing_app.py"
    path.write_text(ECHO.format(version="one"))
    with Dev(path) as dev:
        dev.event("ready")
        text = f"from lib.words import WORD\n{ECHO}".replace("{version!r}", "WORD")
        save(path, text)
        dev.event("reloaded")
        assert dev.ask() == "old"
        save(helper, "WORD = 'new'\n")
        dev.event("reloaded")
        assert dev.ask() == "new"


def test_code_that_cannot_be_imported_is_shown_and_the_old_goes_on(dev: Dev, path: Path) -> None:
    """Until it can be imported again."""
    (before,) = dev.hosts()
    save(path, "def (:\n")
    broken = dev.event("broken")
    assert broken["kept"] is True
    assert "SyntaxError" in broken["error"]["message"]
    assert str(path) in broken["error"]["fields"]["traceback"]
    assert dev.ask() == "one"
    assert dev.hosts() == [before]
    save(path, ECHO.format(version="two"))
    dev.event("reloaded")
    assert dev.ask() == "two"


def test_it_can_begin_with_code_that_is_broken(path: Path) -> None:
    """It waits for the change that helps."""
    path.write_text("1 / 0\n")
    with Dev(path) as dev:
        assert dev.event("broken")["kept"] is False
        save(path, ECHO.format(version="two"))
        dev.event("ready")
        assert dev.ask() == "two"


def test_the_error_is_readable(path: Path) -> None:
    """For people: the traceback, the error, and what goes on."""
    path.write_text("1 / 0\n")
    with Running("dev", path, "--port", free_port()) as dev:
        dev.until("waiting for a change")
        assert f'File "{path}", line 1' in dev.output
        assert "ZeroDivisionError" in dev.output


def test_a_call_that_runs_is_finished_by_the_old_host(tmp_path: Path, gate: Path) -> None:
    """A reload drains: the call is neither lost nor started again."""
    path = tmp_path / "slow_app.py"
    path.write_text(APP.read_text())
    with Dev(path, "--grace", "20") as dev:
        dev.event("ready")
        with connect_sync(dev.url) as client:
            run = client.submit("holds", {"gate": str(gate)})
            wait_for(Path(f"{gate}.started"))
            (old,) = dev.hosts()
            save(path, path.read_text() + "\n# changed\n")
            dev.event("reloaded")
            assert len(dev.hosts()) == 2
            gate.touch()
            assert client.result(run, timeout=ENDS_WITHIN) == "let go"
            psutil.wait_procs([old], ENDS_WITHIN)
            assert not old.is_running()
    assert not Path(f"{gate}.cancelled").exists()


def test_a_host_that_crashes_is_started_again(dev: Dev) -> None:
    """Each time a little later."""
    waits, lived = [], 0.0
    for _ in range(2):
        (host,) = dev.hosts()
        lived = time.time() - host.create_time()
        host.kill()
        crashed = dev.event("crashed")
        assert crashed["code"] == -signal.SIGKILL
        waits.append(crashed["retry_in"])
        dev.event("restarted")
        assert dev.ask() == "one"
    assert waits[1] == waits[0] * (2 if lived < HEALTHY_AFTER else 1)


def test_several_hosts(path: Path) -> None:
    """``-n``: all of them are replaced on a change."""
    with Dev(path, "-n", 2) as dev:
        dev.event("ready")
        before = dev.hosts()
        assert len(before) == 2
        save(path, ECHO.format(version="two"))
        dev.event("reloaded")
        eventually(lambda: len(dev.hosts()) == 2)
        assert not set(dev.hosts()) & set(before)
        assert dev.ask() == "two"


def test_without_reload(path: Path) -> None:
    """``--no-reload`` keeps the code, and broken code is an error that ends it."""
    with Dev(path, "--no-reload") as dev:
        dev.event("ready")
        save(path, ECHO.format(version="two"))
        assert dev.ask() == "one"
        (host,) = dev.hosts()
        host.kill()
        dev.event("restarted")  # takes longer than a change goes unnoticed
        dev.send(signal.SIGTERM)
        assert dev.wait() == Exit.OK
        assert '"changed"' not in dev.output
    path.write_text("1 / 0\n")
    with Dev(path, "--no-reload") as dev:
        assert dev.wait() == Exit.FAILED


@pytest.mark.parametrize(("spec", "says"), [("nowhere.py", "no application"), (f"{APP}:gret", "'greet'")])
def test_a_mistyped_application_ends_it(spec: str, says: str) -> None:
    """Saving a file would hardly help."""
    ended = callboard("dev", spec, "--port", free_port())
    assert ended.code == Exit.NOT_FOUND
    assert says in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_gently_and_leaves_nothing(number: signal.Signals, path: Path) -> None:
    """Hosts and server are gone, and the temporary store with them."""
    with Dev(path) as dev:
        dev.event("ready")
        children = psutil.Process(dev.pid).children(recursive=True)
        (server,) = [child for child in children if "nats-server" in child.name()]
        store = Path(server.cwd())
        assert store.is_dir()
        dev.send(number)
        assert dev.wait() == Exit.OK
    psutil.wait_procs(children, ENDS_WITHIN)  # whoever has them now may not have looked after them yet
    assert not any(child.is_running() for child in children)
    assert not store.exists()


def draining(url: str) -> bool:
    """Whether a host says that it is."""
    return "is draining" in callboard("doctor", url=url).out


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path, gate: Path) -> None:
    """Although a call still runs."""
    path = tmp_path / "stuck_app.py"
    path.write_text(APP.read_text())
    with Dev(path, "--grace", "60") as dev:
        dev.event("ready")
        with connect_sync(dev.url) as client:
            client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        children = psutil.Process(dev.pid).children(recursive=True)
        dev.send(signal.SIGINT)
        eventually(lambda: draining(dev.url))
        dev.send(signal.SIGINT)
        assert dev.wait() == Exit.INTERRUPTED
    psutil.wait_procs(children, ENDS_WITHIN)
    assert not any(child.is_running() for child in children)


def test_nothing_outlives_a_kill(path: Path) -> None:
    """Kill -9 of the command ends its hosts and its server."""
    with Dev(path) as dev:
        dev.event("ready")
        children = psutil.Process(dev.pid).children(recursive=True)
        assert len(children) >= 3
        dev.send(signal.SIGKILL)
        _, left = psutil.wait_procs(children, ENDS_WITHIN)
        assert left == []


def requested(url: str, subject: str, body: bytes) -> Any:
    """The answer to a request with nothing but a NATS client."""

    async def ask() -> Any:
        client = await nats.connect(url)
        try:
            return json.loads((await client.request(subject, body, timeout=ENDS_WITHIN)).data)
        finally:
            await client.close()

    return asyncio.run(ask())


def test_it_runs_a_gateway(dev: Dev) -> None:
    """One that crashes is replaced; it goes on while the code changes, and ends with the command."""
    dev.event("gateway_ready")
    assert requested(dev.url, "cb.api.run.ask", b"{}")["value"] == "one"
    (first,) = dev.hosts("gateway")
    first.kill()
    assert dev.event("gateway_crashed")["code"] == -signal.SIGKILL
    dev.event("gateway_ready")
    assert requested(dev.url, "cb.api.run.ask", b"{}")["value"] == "one"
    (second,) = dev.hosts("gateway")
    dev.send(signal.SIGTERM)
    assert dev.wait() == Exit.OK
    assert not second.is_running()


def test_a_gateway_is_not_for_everybody(path: Path) -> None:
    """``--no-gateway`` leaves it out."""
    with Dev(path, "--no-gateway") as dev:
        dev.event("ready")
        assert dev.ask() == "one"
        save(path, ECHO.format(version="two"))
        dev.event("reloaded")  # by when it would have been begun
        assert dev.hosts("gateway") == []


def test_it_runs_a_controller_that_follows_policies(path: Path) -> None:
    """One that crashes is replaced; it ends with the command."""
    with Dev(path, "--policy", "srtf") as dev:
        dev.event("controller_ready")
        (first,) = dev.hosts("controller")
        first.kill()
        assert dev.event("controller_crashed")["code"] == -signal.SIGKILL
        dev.event("controller_ready")

        def decides() -> bool:
            running = callboard("policy", "list", "--json", url=dev.url).json["running"]
            return [(one["name"], one["state"]) for one in (running or {}).get("policies", [])] == [
                ("srtf", "deciding")
            ]

        eventually(decides)
        (second,) = dev.hosts("controller")
        dev.send(signal.SIGTERM)
        assert dev.wait() == Exit.OK
        assert not second.is_running()


def test_a_server_that_dies_is_started_again(dev: Dev) -> None:
    """On the same port with what it had stored."""
    dev.ask()
    (server,) = [
        child for child in psutil.Process(dev.pid).children(recursive=True) if "nats-server" in child.name()
    ]
    server.kill()
    assert dev.event("server_died")["url"] == dev.url

    def answers() -> bool:
        try:
            return bool(dev.ask() == "one")
        except (OSError, CallboardError):
            return False

    eventually(answers)
    with connect_sync(dev.url) as client:
        eventually(lambda: len(client.runs()) >= 2)  # summaries come after their outcomes


def test_a_running_server_is_used(path: Path, nats_url: str) -> None:
    """With --nats or NATS_URL no other one is started, and it is left running."""
    with Running("dev", path, "--json", "--nats", nats_url) as dev:
        assert json.loads(dev.until('"server_ready"'))["url"] == nats_url
        dev.until('"event":"ready"')
        names = [child.name() for child in psutil.Process(dev.pid).children(recursive=True)]
        assert not any("nats-server" in name for name in names)
        assert callboard("run", "ask", url=nats_url).out == "one\n"
        dev.send(signal.SIGTERM)
        assert dev.wait() == Exit.OK
    assert callboard("runs", "--json", url=nats_url).code == Exit.OK


def test_what_the_application_prints_is_shown(path: Path, tmp_path: Path) -> None:
    """On stderr, at once; it does not disturb what is said between the processes."""
    text = ECHO.format(version="one").replace("return 'one'", "print('called!'); return 'one'")
    path.write_text(f"print('imported!')\n{text}")
    port, errors = free_port(), tmp_path / "stderr.txt"
    line = command("dev", path, "--port", port, "--json")
    with (
        errors.open("w") as stderr,
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment()) as dev,
    ):
        try:
            assert dev.stdout is not None
            events = [json.loads(dev.stdout.readline())["event"] for _ in range(2)]
            assert set(events) == {"server_ready", "ready"}
            assert "imported!" in errors.read_text()
            assert callboard("run", "ask", url=f"nats://127.0.0.1:{port}").out == "one\n"
            eventually(lambda: "called!" in errors.read_text())
        finally:
            dev.terminate()


def test_the_store_can_be_kept(path: Path, tmp_path: Path) -> None:
    """``--store``: runs of yesterday are there today."""
    for number in range(2):
        with Dev(path, "--store", tmp_path / "data") as dev:
            dev.event("ready")
            with connect_sync(dev.url) as client:
                assert len(client.runs()) == number
            dev.ask()
            dev.send(signal.SIGTERM)
            assert dev.wait() == Exit.OK


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "has ended (exit code 1)"),
        (-signal.SIGSEGV, "was ended by SIGSEGV"),
        (-signal.SIGKILL, "was ended by SIGKILL, as the system does for want of memory"),
        (-63, "was ended by signal 63"),
    ],
)
def test_how_a_host_has_ended(code: int, said: str) -> None:
    """By name, not by a negative number."""
    assert ended_by(code) == said
