"""The router: what is classified as code goes to the coder; a model in the environment is asked."""

from __future__ import annotations

import pytest
from tests.examples.loading import load
from tests.support.standin import Reply, StandIn

from callboard import options

NO_MODEL = "a scripted function, no model"


async def test_chat_or_code() -> None:
    """By what is asked; and it is said that no model answers."""
    app = load("router")
    chat = await app.ask("Good morning")
    assert (chat.kind, chat.by, chat.model) == ("chat", "talker", NO_MODEL)
    code = await app.ask("Write a function that reverses a list")
    assert (code.kind, code.by, code.model) == ("code", "coder", NO_MODEL)
    assert code.text.startswith("```python\ndef reverse(")


async def test_it_remembers_a_session() -> None:
    """The talker does; the classifier judges each question by itself."""
    app = load("router")
    with options(session="router-anna"):
        await app.ask("Write me a poem, and no program")
        again = await app.ask("Good morning")
    assert again.kind == "chat"
    with options(session="router-anna"):
        third = await app.ask("Good night")
    assert "Before, you said: 'Good morning'." in third.text


async def test_with_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any server with the OpenAI API."""
    pytest.importorskip("openai")
    async with StandIn() as engine:
        monkeypatch.setenv("MODEL", engine.url)
        app = load("router")
        engine.replies += [Reply(['{"kind": "chat"}']), Reply(["Good ", "morning!"])]
        answer = await app.ask("Good morning")
        assert (answer.text, answer.model) == ("Good morning!", engine.url)
        assert engine.chats[0].body["response_format"]["json_schema"]["schema"]["required"] == ["kind"]
