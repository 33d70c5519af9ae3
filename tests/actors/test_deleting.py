"""A session is deleted: its state at all agents, its routes, its priorities; nothing of others."""

from __future__ import annotations

import base64
from collections import defaultdict

import msgspec
import pytest
from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard import ManagedList, agent, connect_sync, human, method, options, workflow
from callboard.actors.client import Client
from callboard.actors.deleting import Deleted, look
from callboard.infra import subjects
from callboard.infra.errors import StateUnknown
from callboard.infra.messages.policy import Priority


@agent
class Diary:
    """Keeps what it is told."""

    kept: ManagedList[str]

    @method
    async def keep(self, text: str) -> int:
        """How much there is."""
        self.kept.append(text)
        return len(self.kept)


@agent
class Ledger:
    """Keeps what it is told, too."""

    kept: ManagedList[str]

    @method
    async def keep(self, text: str) -> int:
        """How much there is."""
        self.kept.append(text)
        return len(self.kept)


@workflow
async def told(text: str, session: str) -> list[int]:
    """Tell both."""
    with options(session=session):
        return [await Diary.keep(text), await Ledger.keep(text)]


@workflow
async def asking(text: str) -> str:
    """Tell, then ask."""
    await Diary.keep(text)
    return await human.ask(f"Is it {text[:20]}?", timeout=600)


async def found_in(board: Board, *texts: str) -> dict[str, set[str]]:
    """Which streams have which of these texts: in subjects, headers or bodies."""
    node = await board.node()
    found: dict[str, set[str]] = defaultdict(set)
    for one in (await node.topology.api("STREAM.LIST"))["streams"]:
        name = one["config"]["name"]
        for sequence in range(one["state"]["first_seq"], one["state"]["last_seq"] + 1):
            answer = await node.topology.api(f"STREAM.MSG.GET.{name}", {"seq": sequence})
            message = answer.get("message", {"subject": ""})
            raw = [base64.b64decode(message.get(part, "")) for part in ("data", "hdrs")]
            whole = b"".join([message["subject"].encode(), *raw])
            found[name] |= {text for text in texts if text.encode() in whole}
    return {name: texts for name, texts in found.items() if texts}


async def decide(client: Client, session: str) -> None:
    """Give a session a route, and priorities at one actor and at all."""
    await client.route("Diary", "h-1", session=session)
    token = subjects.session_token(session)
    for actor in ("", "Ledger"):
        subject = subjects.actor_priority(token, actor) if actor else subjects.priority(token)
        body = msgspec.msgpack.encode(Priority(session, 3, actor, 1, "test", "why not", term=1))
        await client.node.store.stored(subject, body)


@pytest.mark.parametrize("session", ["chat-7", "chat 7/ü.*>"])
async def test_a_session_is_deleted_at_all_agents(board: Board, session: str) -> None:
    """With what was decided for it; another session and the actor's own route stay, and it may begin anew."""
    host = await board.host(told, Diary, Ledger)
    client = await board.client()
    for one in (session, "other"):
        assert await board.run(told, text="a", session=one) == [1, 1]
        await decide(client, one)
    everybody = await client.route("Ledger", "h-2")
    await until(lambda: len(host.routes) == 3 and len(host.priorities) == 4)
    found = await client.delete_session(session)
    assert found == Deleted(session, ["Diary", "Ledger"], ["Diary"], ["", "Ledger"])
    assert {(one.actor, one.session) for one in await client.state.all()} == {
        ("Diary", "other"),
        ("Ledger", "other"),
    }
    assert [one.session for one in await client.routes()] == ["other", ""]
    await until(lambda: len(host.routes) == 2 and len(host.priorities) == 2)
    assert everybody in host.routes.all()
    with pytest.raises(StateUnknown, match="there is nothing of session"):
        await client.delete_session(session)
    assert await board.run(told, text="b", session=session) == [1, 1]
    assert await board.run(told, text="b", session="other") == [2, 2]


async def test_what_was_only_decided_is_deleted(board: Board) -> None:
    """No agent need keep anything."""
    client = await board.client()
    await decide(client, "s")
    assert await look(client.node, "s") == Deleted("s", [], ["Diary"], ["", "Ledger"])
    await client.delete_session("s")
    with pytest.raises(StateUnknown):
        await look(client.node, "s")


async def test_what_stays_of_a_session(board: Board) -> None:
    """That which docs/state.md names, and nothing else."""
    host = await board.host(asking, Diary, park_after=0.1)
    client = await board.client()
    for text in ("secret", "secret" + "x" * 100_000):
        run = await client.submit("asking", {"text": text}, session="chat-7")
        await board.entries(run, "aside")
    await board.emptied(subjects.REQUESTS)
    await decide(client, "chat-7")
    await until(lambda: len(host.routes) == 1 and len(host.priorities) == 2)
    await client.delete_session("chat-7")
    found = await found_in(board, "chat-7", "secret")
    assert found.pop("TELEMETRY", {"chat-7"}) == {"chat-7"}  # reports come when they come
    assert found == {
        "RUNS": {"chat-7", "secret"},
        "KV_cb_runs": {"chat-7"},
        "OBJ_cb_blobs": {"secret"},
        "KV_cb_inbox": {"chat-7", "secret"},
        "KV_cb_policy": {"chat-7"},
    }
    for question in await client.inbox():
        await client.cancel(question.run)

    async def asked_no_more() -> bool:
        return "KV_cb_inbox" not in await found_in(board, "secret")

    await eventually(asked_no_more)


async def test_what_is_no_session(board: Board) -> None:
    """Nothing is looked for."""
    with pytest.raises(subjects.NameInvalid):
        await (await board.client()).delete_session("")


def test_the_same_for_sync_code(nats_url: str) -> None:
    """It tells what there was."""
    with connect_sync(nats_url) as client:
        client.route("double", "h-1", session="s")
        assert client.delete_session("s") == Deleted("s", routes=["double"])
        assert client.routes() == []
