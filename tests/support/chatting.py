"""Multi-turn chats with a model, many at a time, as several workflows would have them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from callboard import Message, Sampling, model, options, workflow
from callboard.actors.client import Client
from callboard.actors.prefixes.chain import Chain, of_chat

ON = Sampling(extra={"ignore_eos": True}, temperature=0.0)
"""The answer has ``max_tokens`` tokens, and is always the same."""


@workflow
async def converse(name: str, messages: list[dict[str, Any]], tokens: int, host: str = "") -> str:
    """One turn of a conversation, at a host if one is named."""
    asked = [Message(one["role"], one["content"]) for one in messages]
    with options(host=host):
        return (await model(name).chat(asked, max_tokens=tokens, sampling=ON)).text


class Chat:
    """A conversation that grows turn by turn.

    Args:
        name: of the model; opening: the first things said; tokens: of each answer.
    """

    def __init__(self, name: str, opening: Sequence[tuple[str, str]], tokens: int) -> None:
        self._name = name
        self._tokens = tokens
        self.messages = [{"role": role, "content": content} for role, content in opening]

    async def turn(self, client: Client, text: str, timeout: float, host: str = "") -> str:
        """Say something, and hear the answer, of a host if one is named; gives the run's id."""
        self.messages.append({"role": "user", "content": text})
        given = {"name": self._name, "messages": self.messages, "tokens": self._tokens, "host": host}
        run = await client.submit(converse.name, given)
        answer = await client.result(run, timeout)
        self.messages.append({"role": "assistant", "content": answer})
        return run


def chain_of(chat: Chat) -> Chain:
    """The prompt of its next turn, as far as it is known."""
    return of_chat([Message(one["role"], one["content"]) for one in chat.messages])


def words(about: str, count: int) -> str:
    """So many words that nobody else says."""
    return " ".join(f"{about}{number}" for number in range(count))


async def talk(
    client: Client, chats: Sequence[Chat], turns: int, timeout: float, by_chance: Sequence[str] = ()
) -> list[list[str]]:
    """All have so many turns, in step; gives the runs of each turn.

    Args:
        by_chance: hosts, of which each call has one drawn for it.
    """
    said: list[list[str]] = []
    chance = random.Random(7)
    for turn in range(turns):
        hosts = [chance.choice(by_chance) if by_chance else "" for _ in chats]
        text = f"turn {turn}?"
        runs = (chat.turn(client, text, timeout, host) for chat, host in zip(chats, hosts, strict=True))
        said.append(await asyncio.gather(*runs))
    return said
