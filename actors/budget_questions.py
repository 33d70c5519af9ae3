"""Asking people whether a spent budget is raised: a question in the inbox, its answer a signal to the run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Final

import msgspec

from callboard.infra import subjects
from callboard.infra.messages.budget import Account
from callboard.infra.messages.inbox import Question
from callboard.state.accounts import named
from callboard.state.charging import raise_by, spent_error
from callboard.state.journal import decode_signal, read_entries

if TYPE_CHECKING:
    from callboard.actors.budgets import Budgets
    from callboard.actors.inbound import Call

LOOK_EVERY = 5.0
"""Seconds after which it is looked again whether something has changed, and the question is still there."""
_PLACES: Final = {"run": 1, "session": 2, "key": 3}
_INBOX: Final = f"KV_{subjects.INBOX_BUCKET}"


async def asked(budgets: Budgets, call: Call, account: Account, unit: str) -> bool:
    """Ask somebody, and wait; whether it is worth trying again."""
    run, node = call.run, budgets.node
    name = named(account.scope, account.id)
    question_id = f"{run}:0.{_PLACES[account.scope]}.{account.limits_at}"
    question = Question(
        question_id,
        run,
        call.workflow,
        session=call.session,
        question=f"{spent_error(account, unit).message}. By how many percent shall it be raised? 0: stop",
        schema={"type": "integer"},
        since=time.time(),
    )
    news = asyncio.Event()

    def heard(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        news.set()

    listening = [
        node.connection.subscribe(subjects.journal(run, "signal"), heard),
        node.connection.subscribe(subjects.budget(name), heard),
    ]
    where = subjects.question(run, question_id.partition(":")[2])
    budgets.asking[where] += 1
    try:
        while True:
            now, _ = await budgets.accounts.read(name)
            if now is None or now.limits_at != account.limits_at:
                return True
            percent = next(
                (
                    signal.value
                    for _, signal in read_entries(decode_signal, await node.journal.read(run, "signal"))
                    if signal.future == question_id and type(signal.value) is int
                ),
                None,
            )
            if percent is not None:
                await budgets.accounts.change(name, functools.partial(_raised, account.limits_at, percent))
                return percent > 0
            if await node.reader.last(_INBOX, where) is None:  # also when another host has asked, and is done
                await node.store.stored(where, msgspec.msgpack.encode(question))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await news.wait()
            news.clear()
    finally:
        for sid in listening:
            node.connection.unsubscribe(sid)
        budgets.asking[where] -= 1
        if not budgets.asking[where]:
            del budgets.asking[where]
            budgets.spawn(node.topology.purge(_INBOX, where))


def _raised(limits_at: int, percent: int, account: Account | None) -> None:
    raise_by(account, limits_at, percent)
