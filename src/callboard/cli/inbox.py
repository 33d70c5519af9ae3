"""``callboard inbox``, ``answer`` and ``signal``: what runs ask people and wait for, and telling them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, UsageError
from callboard.cli.output import clock, table

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.infra.messages.inbox import Question


def inbox(*, to: str | None = None, common: Common = DEFAULTS) -> int:
    """List open questions, the oldest first; 'callboard answer' answers them.

    A run that asks goes on when somebody has answered.

        callboard inbox --to boss
        callboard inbox --json | jq '.[].schema'

    Args:
        to: Only those for this one.
    """

    async def look() -> list[Question]:
        async with common.client() as client:
            return await client.inbox(to)

    found = asyncio.run(look())
    common.output.answer(found, lambda screen: _print(found, screen))
    return Exit.OK


def _print(found: list[Question], screen: Console) -> None:
    from rich.markup import escape

    if not found:
        screen.print("nobody asks anything")
        return
    titles = ("id", "to", "workflow", "since", "until", "question", "takes", "problem")
    listed = table(titles, texts=("question", "problem"))
    for one in found:
        until = clock(one.deadline) if one.deadline else ""
        takes = ", ".join(_takes(one.schema))
        cells = (one.id, one.to, one.workflow, clock(one.since), until, one.question, takes, one.problem)
        listed.add_row(*map(escape, cells))
    screen.print(listed)


def _takes(schema: dict[str, Any]) -> list[str]:
    """What to give, in a word or two."""
    body = _body(schema)
    if "properties" in body:
        return [f"--{name}" for name in body["properties"]]
    if "enum" in body:
        return ["|".join(map(str, body["enum"]))]
    return [str(body.get("type", "anything"))]


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = schema.get("$defs", {}).get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    return body


def answer(
    question: str,
    /,
    *field: Annotated[str, Parameter(allow_leading_hyphen=True)],
    value: str | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Answer a question: the run that asked goes on.

    The first answer that fits counts.

        callboard answer 01JD0000000000000000000000:3 --value true
        callboard answer 01JD0000000000000000000000 --ok --note "go ahead"

    Args:
        question: Its id, or that of a run that has one open question; 'callboard inbox' lists them.
        field: Fields of an answer that has some: --NAME VALUE.
        value: The whole answer, as JSON; text that is no JSON is taken as it is.
    """
    if (value is None) == (not field):
        raise UsageError("give the answer either as --value or by its fields, as --NAME VALUE")

    async def tell() -> str:
        async with common.client() as client:
            from callboard.actors.inbox import find

            asked = await find(client, question)
            given = _fields(asked, field) if value is None else _value(asked, value)
            await client.answer(asked.id, given)
            return asked.id

    answered = asyncio.run(tell())
    common.output.answer({"answered": answered}, lambda screen: screen.print(f"{answered} is answered"))
    return Exit.OK


def _fields(asked: Question, typed: Sequence[str]) -> dict[str, Any]:
    from callboard.cli.arguments import Parameters
    from callboard.infra.messages.registry import ActorInfo, MethodInfo

    if "properties" not in _body(asked.schema):
        takes = ", ".join(_takes(asked.schema))
        raise UsageError(f"question {asked.id} takes one value and no fields: give it as --value ({takes})")
    method = MethodInfo("answer", arguments=asked.schema)
    return Parameters(ActorInfo("the answer", "tool", "", [method])).read(typed, {})


def signal(
    run: str,
    name: str,
    /,
    *,
    value: str | None = None,
    text: str | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Send a run a signal that it waits for.

    A run that waits for it goes on; one that comes to wait for it later finds it then.

        callboard signal 01JD0000000000000000000000 approved
        callboard signal 01JD0000000000000000000000 paid --value 400
        callboard signal 01JD0000000000000000000000 tracking --text 0012345

    Args:
        run: Its id; 'callboard runs --status waiting' lists those that wait, 'callboard show' tells for what.
        name: Of the signal, as the workflow names it.
        value: What it says, as JSON; text that is no JSON is taken as it is. By default nothing.
        text: The same as text, whatever it looks like.
    """
    if value is not None and text is not None:
        raise UsageError("give what the signal says as --value or as --text, not both")
    given = text if value is None else _read(value)

    async def tell() -> None:
        async with common.client() as client:
            await client.signal(run, name, given)

    asyncio.run(tell())
    told = f"{run} is told: {name}"
    common.output.answer({"run": run, "signal": name}, lambda screen: screen.print(told, markup=False))
    return Exit.OK


def _value(asked: Question, text: str) -> Any:
    """What a text says as JSON, or the text where that is what is asked for."""
    from callboard.actors.fits import misfit

    read = _read(text)
    return text if misfit(read, asked.schema) and not misfit(text, asked.schema) else read


def _read(text: str) -> Any:
    """What a text says as JSON, or the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
