"""Asking for the board: what there is, and how it is."""

from __future__ import annotations

import json

import msgspec
import pytest
from nats.aio.client import Client as Nats
from tests.actors.gateway.support import WORKFLOWS, Asker
from tests.support.board import Board
from tests.support.waiting import SOON, until

from callboard.actors.gateway import Gateway
from callboard.actors.gateway.discovery import NAME
from callboard.actors.gateway.document import VERBS
from callboard.actors.gateway.messages import GROUP
from callboard.infra.messages.registry import ActorInfo


@pytest.mark.usefixtures("gateway")
async def test_actors(ask: Asker) -> None:
    """Everything announced, with schemas, and which living host runs it."""
    body = (await ask("actors", "all")).body
    actors = msgspec.convert(body["actors"], list[ActorInfo])
    names = sorted(one.name for one in WORKFLOWS)
    assert [actor.name for actor in actors] == names
    assert list(body["hosts"].values()) == [names]
    (greet,) = (actor for actor in actors if actor.name == "greet")
    assert greet.methods[0].arguments["$defs"]["Arguments"]["required"] == ["name"]


async def test_health(ask: Asker, board: Board) -> None:
    """Well with a host, degraded without, and it says which."""
    host = await board.host(*WORKFLOWS)
    async with Gateway(board.settings(dead_after=SOON)) as gateway:
        body = (await ask("health", "all")).body
        assert (body["status"], body["gateway"], body["hosts"]) == ("ok", gateway.id, 1)
        assert "greet" in body["workflows"]
        await host.stop()
        body = (await ask("health", "all")).body
        assert (body["status"], body["problems"]) == ("degraded", ["no living host drives a workflow"])


class Services:
    """Asks as ``nats micro`` does."""

    def __init__(self, connection: Nats) -> None:
        self._connection = connection

    async def __call__(self, verb: str, kind: str = f".{NAME}") -> dict[str, object]:
        """The answer of whichever service is first."""
        found = await self._connection.request(f"$SRV.{verb}{kind}", b"", timeout=SOON)
        answer: dict[str, object] = json.loads(found.data)
        return answer


async def test_discovery(ask: Asker, gateway: Gateway) -> None:
    """The gateway is a NATS service: found, described, and counting what its verbs do."""
    services = Services(ask.connection)
    ping = await services("PING", "")
    assert (ping["name"], ping["metadata"]) == (NAME, {"gateway": gateway.id})
    info = await services("INFO")
    endpoints = {e["name"]: e for e in msgspec.convert(info["endpoints"], list[dict[str, object]])}
    assert {name: e["subject"] for name, e in endpoints.items()} == {v: f"cb.api.{v}.*" for v in VERBS}
    assert {e["queue_group"] for e in endpoints.values()} == {GROUP}
    await ask("run", "greet", {"name": "Ada"})
    await ask("run", "gret")
    stats = await services("STATS", f".{NAME}.{ping['id']}")
    counted = {e["name"]: e for e in msgspec.convert(stats["endpoints"], list[dict[str, object]])}
    assert (counted["run"]["num_requests"], counted["run"]["num_errors"]) == (2, 1)
    assert str(counted["run"]["last_error"]).startswith("unknown_actor")
    assert counted["submit"]["num_requests"] == 0


async def test_leaves_discovery(ask: Asker, board: Board) -> None:
    """A gateway that has stopped is found no more."""
    gateway = Gateway(board.settings())
    await gateway.start()
    inbox = ask.connection.new_inbox()
    heard = await ask.connection.subscribe(inbox)
    await ask.connection.publish("$SRV.PING", reply=inbox)
    await until(lambda: heard.delivered == 1)
    await gateway.stop()
    await ask.connection.publish("$SRV.PING", reply=inbox)
    await until(lambda: heard.delivered == 2)
    first, status = await heard.next_msg(), await heard.next_msg()
    assert json.loads(first.data)["name"] == NAME
    assert (status.headers or {}).get("Status") == "503"
