"""``callboard dead``: messages that nobody could handle."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from cyclopts import App, Parameter

from callboard.cli.common import DEFAULTS, Common, Count
from callboard.cli.exits import Exit, NotFound, UsageError
from callboard.cli.outcome import explained, shown
from callboard.cli.output import clock, table
from callboard.infra.errors import StoreRefused
from callboard.infra.messages.dead import DeadLetter

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.actors.dead import DeadLetters
    from callboard.actors.node import Node

T = TypeVar("T")

app = App(
    name="dead",
    help="Look at messages that nobody could handle, send them again, or drop them.",
    result_action="return_value",
)


class Listed(msgspec.Struct):
    """A dead letter in a list; ``sequence`` is what the other commands take."""

    sequence: int
    actor: str
    reason: str
    detail: str
    at: float
    delivered: int
    subject: str


@app.command(name="list")
def list_(*, actor: str | None = None, limit: Count = 50, common: Common = DEFAULTS) -> int:
    """List dead letters, the oldest first.

    Args:
        actor: Only this actor's or workflow's.
        limit: How many at most.
    """
    letters = _with_letters(common, lambda dead, _: dead.list(actor or ">", limit))
    rows = [
        Listed(sequence, one.actor, one.reason, one.detail, one.at, one.delivered, one.subject)
        for sequence, one in letters
    ]
    common.output.answer(rows, lambda screen: _print_list(rows, screen))
    return Exit.OK


def _print_list(rows: list[Listed], screen: Console) -> None:
    from rich.markup import escape

    if not rows:
        screen.print("no dead letters")
        return
    titles = ("seq", "actor", "reason", "since", "delivered", "detail")
    listed = table(titles, numbers=("seq", "delivered"), texts=("detail",))
    for row in rows:
        cells = (
            str(row.sequence),
            row.actor,
            row.reason,
            clock(row.at),
            str(row.delivered),
            escape(row.detail),
        )
        listed.add_row(*cells)
    screen.print(listed)


@app.command
def show(sequence: int, /, *, common: Common = DEFAULTS) -> int:
    """Show a dead letter: why it is dead, its headers, its body, and the errors of its attempts.

    Args:
        sequence: As 'callboard dead list' tells it.
    """
    letter = _with_letters(common, lambda dead, _: _letter(dead, sequence))
    data = msgspec.structs.asdict(letter) | {"sequence": sequence, "body": _body(letter)}
    data["origin"] = {"stream": letter.stream, "sequence": letter.sequence}
    common.output.answer(data, lambda screen: _print_letter(letter, screen))
    return Exit.OK


def _print_letter(letter: DeadLetter, screen: Console) -> None:
    lines = [
        f"{letter.reason}: {letter.detail}",
        f"subject {letter.subject}" + (f", {_given_up(letter)}" if letter.host else ""),
        *(f"  {name}: {value}" for name, value in letter.headers.items()),
        f"body: {shown(_body(letter))}",
        *(explained(error, f"attempt {number}") for number, error in enumerate(letter.history, 1)),
    ]
    screen.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _given_up(letter: DeadLetter) -> str:
    times = "once" if letter.delivered == 1 else f"{letter.delivered} times"
    return f"delivered {times}, given up by {letter.host} at {clock(letter.at)}"


def _body(letter: DeadLetter) -> Any:
    """What the body says, in whichever encoding it is; else its bytes as text."""
    for decode in (msgspec.json.decode, msgspec.msgpack.decode):
        try:
            return decode(letter.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return letter.body.decode("utf-8", "backslashreplace")


@app.command
def requeue(
    *sequence: Annotated[int, Parameter(required=True)],
    again: Annotated[bool, Parameter(negative=())] = False,
    common: Common = DEFAULTS,
) -> int:
    """Send dead letters again as they were, and take them off the list.

    Whoever waited for a call was told when the call was given up, so that running it later gives nobody a
    value: that is refused. Start the run again instead, or say --again.

    Args:
        sequence: As 'callboard dead list' tells them.
        again: Also what has its outcome already: a call runs once more for what it does, a request as a
            new run.
    """

    async def send(dead: DeadLetters, node: Node) -> list[dict[str, Any]]:
        letters = [await _letter(dead, number) for number in sequence]
        sent = await dead.requeue(*letters, again=again)
        await _deleted(node, sequence)
        return [{"sequence": number, "id": id_} for number, id_ in zip(sequence, sent, strict=True)]

    done = _with_letters(common, send)
    lines = [f"sent again: {one['sequence']}{_as(one['id'])}" for one in done]
    common.output.answer({"requeued": done}, lambda screen: screen.print("\n".join(lines), highlight=False))
    return Exit.OK


def _as(id_: str) -> str:
    return f" ({id_})" if id_ else ""


@app.command
def purge(
    *sequence: int,
    actor: str | None = None,
    yes: Annotated[bool, Parameter(alias="-y", negative=())] = False,
    common: Common = DEFAULTS,
) -> int:
    """Drop dead letters for good: all, or those that are named.

    On a terminal it asks first.

        callboard dead purge 3 4
        callboard dead purge --actor search --yes

    Args:
        sequence: As 'callboard dead list' tells them.
        actor: Only this actor's or workflow's.
        yes: Do not ask.
    """
    if sequence and actor:
        raise UsageError("name either letters or an actor, not both")
    whose = f"the dead letters of {actor}" if actor else "all dead letters"
    if sequence:
        whose = f"dead letter{'s' if len(sequence) > 1 else ''} {', '.join(map(str, sequence))}"
    if not yes:
        if common.json or not sys.stdin.isatty():
            raise UsageError(f"this drops {whose} for good: say --yes")
        if input(f"drop {whose} for good? [y/N] ").strip().lower() not in {"y", "yes"}:
            return Exit.OK

    async def drop(dead: DeadLetters, node: Node) -> int:
        from callboard.infra import subjects

        if sequence:
            chosen = dict.fromkeys(sequence)
            for number in chosen:
                await _letter(dead, number)
            return await _deleted(node, chosen)

        answer = await _asked(node, "STREAM.PURGE.DEAD", {"filter": subjects.dead(actor or ">")})
        return int(answer["purged"])

    purged = _with_letters(common, drop)
    common.output.answer({"purged": purged}, lambda screen: screen.print(f"dropped {purged}"))
    return Exit.OK


def _with_letters(common: Common, work: Callable[[DeadLetters, Node], Awaitable[T]]) -> T:
    async def connected() -> T:
        from callboard.actors.dead import DeadLetters

        async with common.client() as client:
            node = client.node
            return await work(DeadLetters(node.store, node.reader, node.name), node)

    return asyncio.run(connected())


async def _asked(node: Node, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await node.topology.api(verb, body)
    if "error" in answer:
        raise StoreRefused(
            f"the server refuses {verb}: {answer['error'].get('description')}", **answer["error"]
        )
    return answer


async def _deleted(node: Node, sequences: Collection[int]) -> int:
    for number in sequences:
        await _asked(node, "STREAM.MSG.DELETE.DEAD", {"seq": number})
    return len(sequences)


async def _letter(dead: DeadLetters, sequence: int) -> DeadLetter:
    letter = await dead.get(sequence)
    if letter is None:
        raise NotFound(
            f"there is no dead letter {sequence}; see 'callboard dead list'",
            what="dead letter",
            name=sequence,
        )
    return letter
