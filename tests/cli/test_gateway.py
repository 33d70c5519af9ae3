"""`callboard gateway`: submit and wait in one round trip."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import nats

from callboard.infra.server import EmbeddedServer


async def test_it_answers_until_it_is_told_to_end(nats_server: EmbeddedServer) -> None:
    """A plain NATS request gets its reply, and SIGTERM ends the gateway in good order."""
    command = [sys.executable, "-m", "callboard", "gateway", "--json", "--nats", nats_server.url]
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - started before anything else runs
    try:
        assert gateway.stdout is not None
        assert json.loads(gateway.stdout.readline())["event"] == "gateway_ready"
        connection = await nats.connect(nats_server.url)
        reply = await connection.request("cb.api.run.nobody", b"{}", timeout=30)
        assert json.loads(reply.data)["error"]["code"] == "unknown_actor"
        await connection.close()
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(timeout=20) == 0
    finally:
        gateway.kill()
        gateway.communicate()


def test_it_describes_its_subjects() -> None:
    """--describe prints an AsyncAPI document without any server."""
    command = [sys.executable, "-m", "callboard", "gateway", "--describe"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    document = json.loads(printed)
    assert document["asyncapi"].startswith("3.")
    assert any("cb.api.run" in str(channel) for channel in document["channels"].values())
