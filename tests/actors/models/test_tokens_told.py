"""Tokens that models make are told of in telemetry."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from tests.support.board import Board
from tests.support.waiting import until

from callboard import ChatRequest, Message, model, model_function, workflow
from callboard.actors.models.types import ChatResult, Usage
from callboard.controller.view import View
from callboard.infra import subjects
from callboard.infra.messages.telemetry import Report


@model_function
def counted(request: ChatRequest) -> ChatResult[Any]:
    """Says how many tokens it has made; what is no number is asked for again."""
    text = "7" if len(request.messages) > 1 else "seven"
    return ChatResult(Message("assistant", text), usage=Usage(3, 5, 8))


@workflow
async def number() -> int:
    """Asked twice, because the first answer does not fit; and once more, for a text."""
    found = await model("counted").chat("a number", schema=int)
    await model("counted").complete("anything")
    return found.parsed or 0


async def test_what_a_model_has_made_is_told(board: Board) -> None:
    """Of each call, all that was spent on it; the controller counts them by actor."""
    bodies: list[bytes] = []
    node = await board.node()
    node.connection.subscribe(subjects.telemetry(">"), lambda _s, _r, data, _h: bodies.append(data))
    await node.connection.flush()
    host = await board.host(number, counted)
    assert await board.run(number) == 7

    def told() -> list[int]:
        reports = [msgspec.msgpack.decode(body, type=Report) for body in bodies]
        columns = [one.ended.tokens for one in reports if one.ended is not None]
        return (
            sorted(np.concatenate([np.frombuffer(one, "<u4") for one in columns]).tolist()) if columns else []
        )

    await until(lambda: told() == [5, 10])
    view = View()
    for body in bodies:
        view.read(host.id, body)
    assert view.actors["tokens"][view.actors.row("counted")] == 15


def test_without_a_server_nobody_is_told() -> None:
    """The same code runs."""
    assert number.run_local() == 7
