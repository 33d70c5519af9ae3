"""Signals and answers, as clients send them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors.fits import misfit
from callboard.actors.waits import ANSWER, INBOX, RESERVED, question_subject
from callboard.infra import subjects
from callboard.infra.errors import (
    AnswerInvalid,
    Fenced,
    InvalidArguments,
    QuestionUnknown,
    RunUnknown,
    ValueTooLarge,
)
from callboard.infra.messages.inbox import Question
from callboard.infra.messages.run import Signal
from callboard.state.journal import decode_signal, read_entries, read_entry

if TYPE_CHECKING:
    from callboard.actors.client import Client

_decode = msgspec.msgpack.Decoder(Question).decode


async def signal(client: Client, run: str, name: str, value: Any) -> None:
    """Store a signal in a run's journal; whoever looks after waits wakes the run."""
    subjects.token("run id", run)
    if not name or name in RESERVED:
        raise InvalidArguments(f"no signal can be called {name!r}: give another name", actor="", method=name)
    await _send(client, run, Signal(name, value=value))


async def questions(client: Client, to: str | None = None) -> list[Question]:
    """All open questions, oldest first."""
    stored = await client.node.reader.read(INBOX, f"$KV.{subjects.INBOX_BUCKET}.>")
    newest = {question.id: question for _, question in read_entries(_decode, stored)}
    kept = [one for one in newest.values() if to in {None, one.to}]
    return sorted(kept, key=lambda one: one.since)


async def answer(client: Client, question: str, value: Any) -> None:
    """Hold an answer against the question's schema, and store it in the run's journal."""
    asked = await find(client, question)
    try:
        plain = msgspec.to_builtins(value)
    except (TypeError, ValueError) as error:
        raise AnswerInvalid(
            f"the answer cannot travel: {error}", question=asked.id, problem=str(error)
        ) from error
    problem = misfit(plain, asked.schema)
    if problem:
        text = (
            f"the answer does not fit question {asked.id}: {problem}; 'callboard inbox' shows what is asked"
        )
        raise AnswerInvalid(text, question=asked.id, problem=problem)
    fenced = False
    while True:
        earlier, last = await _answered(client, asked)
        if earlier is not None:
            if fenced and earlier.value == plain:
                return  # an answer whose ack was lost is sent again, and the second is fenced by the first
            raise QuestionUnknown(
                f"question {asked.id} is answered already: its run goes on when a host drives it",
                question=asked.id,
            )
        try:
            await _send(client, asked.run, Signal(ANSWER, value=plain, future=asked.id), last)
        except Fenced:  # another signal has come, perhaps an answer
            fenced = True
        else:
            return


async def _answered(client: Client, asked: Question) -> tuple[Signal | None, int]:
    """The answer that a run has got and not taken yet; and the sequence of its last signal."""
    node = client.node
    stored = await node.journal.read(asked.run, "signal")
    shown = await node.reader.last(INBOX, question_subject(asked.id))
    since = shown.at if shown else 0.0  # an answer that was refused came before the question was shown anew
    answers = (
        signal
        for entry, signal in read_entries(decode_signal, stored)
        if (signal.name, signal.future) == (ANSWER, asked.id) and entry.at > since
    )
    fitting = (signal for signal in answers if not misfit(signal.value, asked.schema))
    return next(fitting, None), stored[-1].sequence if stored else 0


async def find(client: Client, named: str) -> Question:
    """The open question of this id, or the one open question of this run.

    Raises:
        QuestionUnknown: there is none, or there are several.
    """
    run, colon, _ = named.partition(":")
    subjects.token("run id", run)
    if not colon:
        found = [one for one in await questions(client) if one.run == run]
    else:
        stored = await client.node.reader.last(INBOX, question_subject(named))
        one = read_entry(_decode, stored.body) if stored else None
        found = [one] if one is not None and one.id == named else []
    if len(found) != 1:
        which = (
            f"{len(found)} questions of run {named} are open: name one"
            if found
            else f"no question {named} is open"
        )
        raise QuestionUnknown(f"{which}; see 'callboard inbox'", question=named)
    return found[0]


async def _send(client: Client, run: str, sent: Signal, after: int | None = None) -> None:
    try:
        size = len(msgspec.msgpack.encode(sent))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArguments(f"{sent.name}: {error}", actor="", method=sent.name) from error
    limit = client.node.settings.inline_limit
    if size > limit:
        text = (
            f"a signal of {size:,} bytes is above {limit:,}: store the value elsewhere and send where it is"
        )
        raise ValueTooLarge(text, size=size, limit=limit)
    summary = await client.status(run)
    if summary.finished:
        raise RunUnknown(f"run {run} has ended: {summary.status}; nothing reaches it any more", run=run)
    await client.node.journal.put_signal(run, sent, after)
