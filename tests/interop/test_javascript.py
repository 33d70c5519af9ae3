"""The wire is public: a workflow submitted from JavaScript, with plain JSON, gets its result."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.msg import Msg

HERE = Path(__file__).parent
INSTALLED = HERE / "node_modules" / ".package-lock.json"
READY_WITHIN = 60.0  # s
DONE_WITHIN = 60.0  # s


@pytest.fixture(scope="module")
def node() -> str:
    """Node with the locked packages; they are installed beside the script that imports them."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        if "CI" in os.environ:
            pytest.fail("there is no node and npm: .ci/run installs them")
        pytest.skip("there is no node and npm on PATH")
    lock = HERE / "package-lock.json"
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True)
    return program


async def submit(node: str, url: str, workflow: str, arguments: str) -> tuple[int, str]:
    """Run the JavaScript client; returns its exit code and what it printed."""
    client = await asyncio.create_subprocess_exec(
        *(node, "submit.mjs", url, workflow, arguments),
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(DONE_WITHIN):
            printed, _ = await client.communicate()
    finally:
        if client.returncode is None:
            client.kill()
    assert client.returncode is not None
    return client.returncode, printed.decode()


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until the first of these is over; raises what it raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in done:
        task.result()


@pytest.fixture
async def host(nats_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A host of the greeting application that has made the stream which takes requests."""
    watcher = await nats.connect(nats_url)
    made = await watcher.subscribe("$JS.EVENT.ADVISORY.STREAM.CREATED.REQUESTS")
    await watcher.flush()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callboard", "host", "greet_app.py", "--nats", nats_url), cwd=HERE
    )
    try:
        await first_of(made.next_msg(READY_WITHIN), process.wait())
        assert process.returncode is None, "the host has ended, see what it printed"
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await watcher.close()


@pytest.mark.usefixtures("host")
async def test_gets_the_result(node: str, nats_url: str) -> None:
    """Request by JetStream, result from the run's journal, no Callboard at the client."""
    code, printed = await submit(node, nats_url, "greet", '{"name": "Ada"}')
    assert code == 0, printed
    done = json.loads(printed)
    assert (done["workflow"], done["status"], done["value"]) == ("greet", "completed", "Hello Ada")


@pytest.mark.usefixtures("host")
async def test_gets_the_error(node: str, nats_url: str) -> None:
    """A request that does not fit the workflow ends the run with a typed error, not in silence."""
    code, printed = await submit(node, nats_url, "greet", '{"name": 1}')
    assert code == 0, printed
    done = json.loads(printed)
    assert (done["status"], done["error"]["code"]) == ("failed", "invalid_arguments")


@pytest.mark.parametrize("encode", [json.dumps, msgspec.msgpack.encode])
async def test_reads_both_encodings(node: str, nats_url: str, encode: Any) -> None:
    """The client by itself, against a stand-in: what it sends, and what it can read."""
    seen: list[tuple[str, bytes, dict[str, str]]] = []
    client = await nats.connect(nats_url)
    await client.jetstream().add_stream(name="REQUESTS", subjects=["cb.request.*"])

    async def answer(request: Msg) -> None:
        headers = dict(request.headers or {})
        seen.append((request.subject, request.data, headers))
        body = encode({"status": "completed", "value": ["Grüße", 2, None]})
        body = body.encode() if isinstance(body, str) else body
        await client.publish(f"cb.journal.{headers['Cb-Run']}.done", body)

    await client.subscribe("cb.request.*", cb=answer)
    await client.flush()
    code, printed = await submit(node, nats_url, "greet", '{"name": "Ada"}')
    await client.close()

    assert code == 0, printed
    assert json.loads(printed)["value"] == ["Grüße", 2, None]
    ((subject, data, headers),) = seen
    assert (subject, json.loads(data)) == ("cb.request.greet", {"name": "Ada"})
    assert headers["Content-Type"] == "application/json"
    assert headers["Nats-Msg-Id"] == headers["Cb-Run"]


async def test_says_that_nobody_takes_requests(node: str, nats_url: str) -> None:
    """A server without Callboard's streams refuses at once, and the client ends with an error."""
    code, printed = await submit(node, nats_url, "greet", "{}")
    assert code == 1
    assert printed.startswith("greet: ")
