"""What the tests of the gateway share: workflows that a test can hold, and a client that only knows NATS."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from nats.aio.client import Client as Nats
from tests.support.waiting import SOON

from callboard import Terminal, workflow
from callboard.actors.gateway.messages import subject
from callboard.infra import headers as H


class Gates:
    """Lets a test hold workflows where it wants them: they run in the test's own process."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.open = asyncio.Event()


gates = Gates()


@workflow
async def greet(name: str, greeting: str = "Hello") -> str:
    """Greet somebody."""
    return f"{greeting} {name}"


@workflow
async def echo(value: Any = None) -> Any:
    """Give the argument back."""
    return value


@workflow
async def take(blob: bytes, ages: dict[int, str]) -> list[Any]:
    """Take what JSON has no words for."""
    return [len(blob), sorted(ages)]


@workflow
async def hold(name: str) -> str:
    """Wait until the test opens the gate."""
    gates.entered.append(name)
    await gates.open.wait()
    return name


@workflow
async def large(size: int) -> str:
    """Give a text of so many bytes."""
    return "x" * size


@workflow
async def untold() -> dict[tuple[int, int], int]:
    """Give what JSON cannot tell."""
    return {(1, 2): 3}


@workflow
async def fail(text: str) -> None:
    """Fail with an error of its own."""
    raise Terminal(text, why="asked for")


WORKFLOWS = (greet, echo, take, hold, large, untold, fail)


class Answer:
    """What came back.

    Attributes:
        headers, data: as they came; body: decoded by what the headers say.
    """

    def __init__(self, data: bytes, headers: dict[str, str] | None) -> None:
        self.data = data
        self.headers = headers or {}
        msgpack = self.headers.get(H.CONTENT_TYPE) == H.MSGPACK
        self.body: Any = (msgspec.msgpack if msgpack else msgspec.json).decode(data)

    @property
    def code(self) -> str:
        """The code of the error; empty if it is none."""
        return str(self.body.get("error", {}).get("code", ""))


class Asker:
    """A client that knows nothing of Callboard.

    Args:
        connection: nats-py's.
    """

    def __init__(self, connection: Nats) -> None:
        self.connection = connection

    async def __call__(
        self, verb: str, name: str, body: Any = b"", timeout: float = SOON, /, **headers: str
    ) -> Answer:
        """Ask a gateway: bytes as they are, everything else as JSON; ``Cb_Run`` is header ``Cb-Run``."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found = await self.connection.request(
            subject(verb, name), data, timeout=timeout, headers=named or None
        )
        return Answer(found.data, found.headers)
