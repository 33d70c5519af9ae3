"""A stand-in for an engine: a real HTTP server that speaks the OpenAI API, and says what a test tells it to.

It is no model and no emulator: it has neither batching nor costs. Run as a script it stands in for
``vllm serve``: it takes a model and ``--port``, and dies when it is asked for the model's last words.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

MODEL = "stand-in"


@dataclass
class Reply:
    """What the next request gets.

    Attributes:
        pieces: of the text, streamed one by one.
        status, headers, body: for one that is refused, or is no stream at all.
        calls: deltas of tool calls, after the text.
        finish: the reason; empty: the stream breaks off after the pieces.
        hold_after: so many pieces are said, then it waits for ``go``.
    """

    pieces: list[str] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str = "stop"
    hold_after: int | None = None
    go: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Asked:
    """A request that has come.

    Attributes:
        left: set when whoever asked has closed the connection before the end.
        at: when, by ``monotonic()``.
    """

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    left: asyncio.Event = field(default_factory=asyncio.Event)
    at: float = field(default_factory=time.monotonic)


def refusal(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    """An error in the API's shape; ``retry_after="2"`` is the header Retry-After."""
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, body=body, headers=named)


class StandIn:
    """The server. Use with ``async with``; what is not told to it echoes the last message, word by word.

    Args:
        port: 0: any.
        pace: seconds before each piece.
    """

    def __init__(self, port: int = 0, pace: float = 0.0) -> None:
        self._port = port
        self._pace = pace
        self.metrics: dict[str, float] = {}
        """What it tells of itself, by vLLM's names; empty: nothing."""
        self.paths: dict[str, bytes] = {}
        """What it answers elsewhere."""
        self.statuses: dict[str, int] = {}
        """With which error it answers there."""
        self.per_second: int | None = None
        """Requests that it takes within a second; others get 429 and ``Retry-After: 1``."""
        self.refused = 0
        self._taken: deque[float] = deque()
        self.replies: deque[Reply] = deque()
        self.asked: list[Asked] = []
        self.connections = 0
        self.come = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Up to and with ``/v1``."""
        return f"http://127.0.0.1:{self._port}/v1"

    @staticmethod
    def hold() -> Reply:
        """A reply that comes when it is told to go."""
        return Reply(["at last"], hold_after=0)

    @property
    def chats(self) -> list[Asked]:
        """The requests for chats."""
        return [one for one in self.asked if one.path.endswith("/chat/completions")]

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._tasks.add(task)
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                self.come.set()
                await self._answer(asked, reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass  # whoever asked has left, or the test is over
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked.path in self.statuses:
            _whole(writer, self.statuses[asked.path], b"")
        elif asked.path == "/health":
            _whole(writer, 200, b"")
        elif asked.path == "/metrics":
            _whole(writer, 200 if self.metrics else 404, _metrics(self.metrics))
        elif asked.path == "/v1/models":
            _whole(writer, 200, json.dumps({"object": "list", "data": [_listed()]}).encode())
        elif asked.path in self.paths:
            _whole(writer, 200, self.paths[asked.path])
        elif asked.path == "/v1/embeddings":
            texts = asked.body["input"]
            data = [{"index": i, "embedding": [float(len(t)), 1.0]} for i, t in enumerate(texts)]
            usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
            _whole(writer, 200, json.dumps({"data": data, "model": MODEL, "usage": usage}).encode())
        else:
            reply = self._too_many(asked) or (self.replies.popleft() if self.replies else _echo(asked))
            if reply.status != 200 or reply.body:
                _whole(writer, reply.status, reply.body, reply.headers)
            else:
                watching = asyncio.ensure_future(reader.read(1))
                watching.add_done_callback(lambda _: asked.left.set())
                try:
                    await self._stream(asked, reply, writer)
                finally:
                    watching.cancel()
                    with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                        await watching
        await writer.drain()

    def _too_many(self, asked: Asked) -> Reply | None:
        if self.per_second is None:
            return None
        while self._taken and self._taken[0] <= asked.at - 1.0:
            self._taken.popleft()
        if len(self._taken) < self.per_second:
            self._taken.append(asked.at)
            return None
        self.refused += 1
        return refusal(429, "too many requests", retry_after="1")

    async def _stream(self, asked: Asked, reply: Reply, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        async for event in _events(asked, reply):
            await asyncio.sleep(self._pace)
            data = b"data: " + event + b"\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        if not reply.finish:
            raise ConnectionError
        writer.write(b"0\r\n\r\n")


async def _events(asked: Asked, reply: Reply) -> AsyncIterator[bytes]:
    chat = asked.path.endswith("/chat/completions")

    def event(said: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": said, "finish_reason": reason}
        if not chat:
            choice = {"index": 0, "text": said.get("content", ""), "finish_reason": reason}
        return json.dumps({"id": "c1", "model": MODEL, "choices": [choice]}).encode()

    for place, piece in enumerate(reply.pieces):
        if place == reply.hold_after:
            await reply.go.wait()
        yield event({"content": piece})
    if reply.hold_after is not None and reply.hold_after >= len(reply.pieces):
        await reply.go.wait()
    for call in reply.calls:
        yield event({"tool_calls": [call]})
    if reply.finish:
        yield event({}, reply.finish)
        used = {
            "prompt_tokens": 3,
            "completion_tokens": len(reply.pieces),
            "total_tokens": 3 + len(reply.pieces),
        }
        yield json.dumps({"id": "c1", "model": MODEL, "choices": [], "usage": used}).encode()
        yield b"[DONE]"


def _echo(asked: Asked) -> Reply:
    said = asked.body.get("prompt") or asked.body["messages"][-1]["content"]
    return Reply([f"{word} " for word in said.split()])


def _metrics(told: dict[str, float]) -> bytes:
    lines = [f'vllm:{name}{{engine="0",model_name="{MODEL}"}} {value}\n' for name, value in told.items()]
    return "".join(["# HELP vllm:num_requests_running Requests.\n", *lines]).encode()


def _listed() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": "nobody"}


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    line = await reader.readline()
    if not line:
        return None
    headers: dict[str, str] = {}
    while (header := await reader.readline()) not in {b"\r\n", b""}:
        name, _, value = header.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(line.split()[1].decode(), headers, json.loads(body) if body else {})


def _whole(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None
) -> None:
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    writer.write(head.encode() + body)


async def _serve(port: int, pace: float) -> None:
    """Serve until SIGTERM, at any port if it is 0, and say where; a chat whose last message is ``die`` ends the process at once."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    server = StandIn(port, pace)
    async with server:
        if not port:
            sys.stdout.write(f"{server.url}\n")
            sys.stdout.flush()
        ending = asyncio.ensure_future(over.wait())
        while not over.is_set():
            coming = asyncio.ensure_future(server.come.wait())
            await asyncio.wait((ending, coming), return_when=asyncio.FIRST_COMPLETED)
            coming.cancel()
            server.come.clear()
            if any(one.body["messages"][-1]["content"] == "die" for one in server.chats):
                os._exit(9)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="*")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pace", type=float, default=0.0)
    given, _ = parser.parse_known_args()
    asyncio.run(_serve(given.port, given.pace))
