"""MCP servers at an address that forget their sessions, or answer what the protocol does not know."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.support.waiting import eventually

from callboard.actors.mcp.link import Link
from callboard.infra.errors import InvalidResult, McpServerLost

HELLO = {"content": [{"type": "text", "text": "hi"}]}


class OldServer(ThreadingHTTPServer):
    """Speaks the protocol of 2025-06-18 over streamable HTTP, with sessions.

    Attributes:
        sessions: that it knows; begun: how many there were.
        answer: of its only tool; calls: of it.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sessions: set[str] = set()
        self.begun = self.calls = 0
        self.answer: dict[str, Any] = HELLO


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OldServer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _out(self, status: int, body: dict[str, Any] | None = None, session: str = "") -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if session:
            self.send_header("Mcp-Session-Id", session)
        if data:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """No stream of its own."""
        self._out(405)

    def do_DELETE(self) -> None:
        """The session is over."""
        self._out(200)

    def do_POST(self) -> None:
        """A message."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {"jsonrpc": "2.0", "id": message.get("id")}
        if message.get("method") == "initialize":
            session = uuid.uuid4().hex
            self.server.sessions.add(session)
            self.server.begun += 1
            about = {"name": "old", "version": "1"}
            told = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
            self._out(200, known | {"result": told}, session)
        elif self.headers.get("Mcp-Session-Id") not in self.server.sessions:
            self._out(404, known | {"error": {"code": -32001, "message": "Session not found"}})
        elif "id" not in message:
            self._out(202)
        elif message["method"] == "tools/list":
            tools = [{"name": "hello", "inputSchema": {"type": "object"}}]
            self._out(200, known | {"result": {"tools": tools}})
        elif message["method"] == "tools/call":
            self.server.calls += 1
            self._out(200, known | {"result": self.server.answer})
        else:
            self._out(200, known | {"error": {"code": -32601, "message": "no such method"}})


@pytest.fixture
async def server() -> AsyncIterator[OldServer]:
    """A server in a thread."""
    with OldServer() as one:
        serving = threading.Thread(target=one.serve_forever, daemon=True)
        serving.start()
        yield one
        one.shutdown()


@pytest.fixture
async def link(server: OldServer) -> AsyncIterator[Link]:
    """Connected to it."""
    one = Link(f"http://127.0.0.1:{server.server_port}/mcp?key=secret")
    await one.start()
    yield one
    await one.stop()


async def test_a_server_that_forgets_its_sessions(server: OldServer, link: Link) -> None:
    """One call is lost, before it was made; then a new session is begun."""
    assert await link.call("hello", {}, "old.hello") == "hi"
    server.sessions.clear()
    with pytest.raises(McpServerLost) as lost:
        await link.call("hello", {}, "old.hello")
    assert "secret" not in str(lost.value)

    async def again() -> Any:
        try:
            return await link.call("hello", {}, "old.hello")
        except McpServerLost:
            return None

    assert await eventually(again) == "hi"
    assert (server.begun, server.calls) == (2, 2)


@pytest.mark.parametrize("odd", [{"content": "hi"}, {"content": [{"type": "hologram", "x": 1}]}, {}])
async def test_a_result_that_cannot_be_read(server: OldServer, link: Link, odd: dict[str, Any]) -> None:
    """The tool has run: nobody is told to call again, and the session goes on."""
    server.answer = odd
    with pytest.raises(InvalidResult, match="none that the protocol knows"):
        await link.call("hello", {}, "old.hello")
    server.answer = HELLO
    assert await link.call("hello", {}, "old.hello") == "hi"
    assert (server.begun, server.calls) == (1, 2)
