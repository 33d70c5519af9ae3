"""``callboard up``: a server, and what to type next."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

from tests.cli.terminal import APP, ENDS_WITHIN, Running, callboard, free_port

from callboard import connect_sync
from callboard.cli.exits import Exit
from callboard.infra.server import EmbeddedServer


def test_it_says_where_it_is_and_what_comes_next() -> None:
    """The commands that it names are the right ones: what they reach is this server."""
    port = free_port()
    with Running("up", "--port", port) as up:
        assert f"nats://127.0.0.1:{port}" in up.until("NATS server at")
        hint = up.until("callboard host")
        assert f"--nats nats://127.0.0.1:{port}" in hint
        with Running("host", f"{APP}:greet", "--json", "--nats", f"nats://127.0.0.1:{port}") as host:
            host.until('"event":"host_ready"')
            with connect_sync(f"nats://127.0.0.1:{port}") as client:
                assert client.run("greet", {"name": "x"}, timeout=ENDS_WITHIN) == "Hello x"
        up.send(signal.SIGTERM)
        assert up.wait() == Exit.OK


def test_a_store_is_kept_and_a_temporary_one_is_not(tmp_path: Path) -> None:
    """What was stored is there the next time; without --store nothing stays."""
    for expected in ([], ["kept"]):
        with Running("up", "--port", free_port(), "--store", tmp_path / "data", "--json") as up:
            url = json.loads(up.until('"server_ready"'))["url"]
            with connect_sync(url) as client:
                assert [run.run for run in client.runs()] == expected
                if not expected:
                    with Running("host", f"{APP}:greet", "--json", url=url) as host:
                        host.until('"event":"host_ready"')
                        client.run("greet", {"name": "x"}, run="kept", timeout=ENDS_WITHIN)
    with Running("up", "--port", free_port(), "--json") as up:
        store = Path(json.loads(up.until('"server_ready"'))["store"])
        assert store.is_dir()
        up.send(signal.SIGINT)
        assert up.wait() == Exit.OK
    assert not store.exists()


def test_production_syncs_every_write(tmp_path: Path) -> None:
    """As the server's configuration says, and as its clients can see."""
    for durability, syncs in (("production", True), ("development", False)):
        store = tmp_path / durability
        arguments = ("--port", free_port(), "--store", store, "--durability", durability, "--json")
        with Running("up", *arguments) as up:
            url = json.loads(up.until('"server_ready"'))["url"]
            assert ("sync_interval: always" in (store / "nats-server.conf").read_text()) is syncs
            told = callboard("doctor", "--json", url=url, CALLBOARD_DURABILITY="production").json
            levels = {one["check"]: one["level"] for one in told}
            assert (levels["durability"] == "ok") is syncs


def test_a_port_that_is_taken() -> None:
    """A given one is an error with its own exit code; the usual one gives way to a free one."""
    with EmbeddedServer() as server:
        port = server.url.rpartition(":")[2]
        ended = callboard("up", "--port", port)
        assert ended.code == Exit.NO_SERVER
        assert f"Port {port} on 127.0.0.1 is taken" in ended.err
    with socket.socket() as usual:
        usual.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            usual.bind(("127.0.0.1", 4222))
            usual.listen()
        except OSError:
            pass  # somebody else has it, which does as well
        with Running("up", "--json") as up:
            url = json.loads(up.until('"server_ready"'))["url"]
            assert not url.endswith(":4222")


def test_a_server_that_somebody_ends(tmp_path: Path) -> None:
    """The command ends too, and says why."""
    import psutil

    with Running("up", "--port", free_port(), "--store", tmp_path / "data", "--json") as up:
        pid = json.loads(up.until('"server_ready"'))["pid"]
        psutil.Process(pid).kill()
        assert up.wait() == Exit.NO_SERVER
        assert "ended by somebody else" in up.output
