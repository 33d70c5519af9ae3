"""``callboard doctor``: finds what was planted, and nothing on a board that is well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import nats
import pytest

from callboard.cli.exits import Exit
from callboard.controller.doctor import CHECKS, Finding, Look
from callboard.infra.messages.registry import ActorInfo, InstanceInfo, Pulse
from callboard.infra.server import EmbeddedServer
from callboard.infra.settings import GIB, Settings
from callboard.infra.topology import declared
from tests.cli.terminal import APP, Running, Typed, eventually

SETTINGS = Settings(nats_url="nats://127.0.0.1:1")


# -- on a real board --------------------------------------------------------------------------------


def api(url: str, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to JetStream's API."""

    async def ask() -> dict[str, Any]:
        client = await nats.connect(url)
        answer = await client.request(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"")
        await client.close()
        found: dict[str, Any] = json.loads(answer.data)
        return found

    return asyncio.run(ask())


def publish(url: str, subject: str) -> None:
    """Store an empty message."""

    async def store() -> None:
        client = await nats.connect(url)
        await client.jetstream().publish(subject, b"")
        await client.close()

    asyncio.run(store())


def problems(url: str, typed: Typed) -> dict[str, dict[str, str]]:
    """What the doctor finds to be wrong, by check; its exit code must agree."""
    ran = typed("doctor", "--json", url=url)
    found = {one["check"]: one for one in ran.json if one["level"] == "problem"}
    assert ran.code == (Exit.FAILED if found else Exit.OK)
    assert all(one["fix"] for one in found.values())
    return found


@pytest.fixture
def hosted(nats_url: str) -> Any:
    """A board with a host of one tool and one workflow, without the agent that wants company."""
    with Running("host", f"{APP}:add,greet", "--json", url=nats_url) as host:
        host.until('"event":"host_ready"')
        yield nats_url


def test_a_board_that_is_well(hosted: str, typed: Typed) -> None:
    """Exit code 0, and the facts."""
    assert problems(hosted, typed) == {}
    text = typed("doctor", url=hosted).out
    assert "all is well" in text
    assert "8 of 8 streams exist" in text
    assert "alive: h-" in text


def test_an_empty_server(nats_url: str, typed: Typed) -> None:
    """There are no streams yet; looking does not make them."""
    assert set(problems(nats_url, typed)) == {"streams"}
    assert api(nats_url, "STREAM.NAMES")["total"] == 0


def test_no_server(typed: Typed) -> None:
    """Says what to start, with an exit code of its own."""
    ran = typed("doctor", "--nats", "nats://127.0.0.1:1")
    assert ran.code == Exit.NO_SERVER
    assert "callboard up" in ran.err


def test_a_server_that_is_no_server(typed: Typed) -> None:
    """One without JetStream is named as such."""
    import subprocess
    import tempfile
    from pathlib import Path

    from callboard.infra.server import find_binary

    with tempfile.TemporaryDirectory() as folder:
        plain = subprocess.Popen([find_binary(), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder])
        try:
            eventually(lambda: any(file.stat().st_size for file in Path(folder).glob("*.ports")))
            (ports,) = Path(folder).glob("*.ports")
            url = json.loads(ports.read_text())["nats"][0]
            ran = typed("doctor", "--nats", url)
        finally:
            plain.terminate()
            plain.wait()
    assert ran.code == Exit.NO_SERVER
    assert "without JetStream" in ran.err


def test_a_stream_that_was_changed(hosted: str, typed: Typed) -> None:
    """It is named with what it has and what is declared; the doctor does not touch it."""
    config = api(hosted, "STREAM.INFO.DEAD")["config"]
    api(hosted, "STREAM.UPDATE.DEAD", config | {"max_age": 3_600_000_000_000})
    for _ in range(2):
        found = problems(hosted, typed)
        assert set(found) == {"streams"}
        assert "stream DEAD has max_age 3600000000000" in found["streams"]["what"]


def test_a_stream_that_is_missing(hosted: str, typed: Typed) -> None:
    """Somebody has deleted it."""
    api(hosted, "STREAM.DELETE.TELEMETRY")
    assert problems(hosted, typed)["streams"]["what"] == "stream TELEMETRY is missing"


def test_calls_that_nobody_serves(hosted: str, typed: Typed) -> None:
    """Calls and requests for what no host runs; the fix names it."""
    publish(hosted, "cb.call.hold.any.1")
    publish(hosted, "cb.call.hold.any.0")
    found = problems(hosted, typed)
    assert found["waiting"]["what"] == "2 messages for hold wait, and no host runs it"
    assert found["waiting"]["fix"] == "callboard host APP:hold"
    publish(hosted, "cb.request.totals")
    every = typed("doctor", "--json", url=hosted).json
    assert "1 messages for totals wait, and no host runs it" in [one["what"] for one in every]


def test_an_actor_whose_hosts_are_gone(hosted: str, typed: Typed) -> None:
    """Its consumers without hosts are worth a note; it is no problem while nobody calls it."""
    with Running("host", f"{APP}:broken,fails", "--json", url=hosted) as host:
        host.until('"event":"host_ready"')
    every = typed("doctor", "--json", url=hosted).json
    notes = [one["what"] for one in every if (one["check"], one["level"]) == ("waiting", "note")]
    assert notes == ["known, but run by no host: broken, fails"]


def test_dead_letters(hosted: str, typed: Typed) -> None:
    """They wait for somebody to decide."""
    publish(hosted, "cb.call.add.any.1")
    eventually(lambda: "dead letters" in problems(hosted, typed))
    assert "callboard dead list" in problems(hosted, typed)["dead letters"]["fix"]


def test_too_few_instances(hosted: str, typed: Typed) -> None:
    """Of an actor that says how many it wants."""
    with Running("host", f"{APP}:Scarce", "--json", url=hosted) as host:
        host.until('"event":"host_ready"')
        eventually(lambda: "actors" in problems(hosted, typed))
        assert "1 of at least 2" in problems(hosted, typed)["actors"]["what"]


def test_hosts_with_different_code(hosted: str, typed: Typed, tmp_path: Any) -> None:
    """Both versions are named with their hosts."""
    other = tmp_path / "other_app.py"
    other.write_text("from callboard import tool\n@tool\nasync def add(a: int, b: int) -> int:\n    return b + a\n")
    with Running("host", other, "--json", url=hosted) as host:
        name = json.loads(host.until('"event":"host_ready"'))["host"]
        found = problems(hosted, typed)["versions"]
    assert "different code of add" in found["what"]
    assert name in found["what"]


def test_a_host_that_vanished(nats_url: str, typed: Typed) -> None:
    """After kill -9 of the only one, nobody is there to take over."""
    import signal

    with Running("host", f"{APP}:add", "--json", url=nats_url) as host:
        name = json.loads(host.until('"event":"host_ready"'))["host"]
        host.send(signal.SIGKILL)
        host.wait()
    eventually(lambda: "hosts" in problems(nats_url, typed))
    assert name in problems(nats_url, typed)["hosts"]["what"]


def test_messages_that_are_too_small(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose max_payload is below what an inline value needs."""
    with EmbeddedServer() as server, Running("host", f"{APP}:add", "--json", url=server.url) as host:
        host.until('"event":"host_ready"')
        monkeypatch.setattr(
            "tests.cli.terminal.os.environ", {**__import__("os").environ}
        )  # pragma: no cover - replaced below
