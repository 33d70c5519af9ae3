"""Effects whose hosts are killed at a step, and the nursery of these hosts: ``mortal.py URL``.

It imports everything once, and forks a host for each line that it reads: a step, and when that has been reached how
often the host kills itself; or ``lives``. It prints ``<exit code> <line>`` for each that is dead.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from tests.faults.app import happened, happens

import callboard
from callboard import NotDone, OutcomeUnknown
from callboard.actors import outcomes
from callboard.actors.declared import declaration
from callboard.actors.host import Host
from callboard.infra import log
from callboard.infra.errors import Poisoned
from callboard.infra.settings import Settings
from callboard.infra.store import OnStored
from callboard.state.intents import Intents
from callboard.state.journal import Journal

FIRST = ("before the intent", "intent stored", "begun", "happened", "returned", "outcome stored")
LATER = ("intent read", "reconciling", "reconciled")
"""Steps that only a call comes to whose earlier host is dead."""
_PARENT_DIED = 1  # PR_SET_PDEATHSIG
_POLL = 0.02


class _Death:
    step = ""
    left = 0


def reach(step: str) -> None:
    """A call is at a step: this process may end here."""
    if _Death.step == step:
        _Death.left -= 1
        if _Death.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _effect(name: str) -> str:
    reach("begun")
    happens(name)
    reach("happened")
    return name


@callboard.tool(effect=True, concurrency=8)
def pay(name: str) -> str:
    """Nobody can tell afterwards."""
    return _effect(name)


@callboard.tool(effect=True, concurrency=8)
def ship(name: str) -> str:
    """The ledger tells."""
    return _effect(name)


@ship.reconcile
def shipped(name: str) -> str:
    """Looks into the ledger."""
    reach("reconciling")
    if not happened(name):
        raise NotDone
    reach("reconciled")
    return name


@callboard.workflow
async def buying(names: list[str]) -> dict[str, str]:
    """All of them at once; of each, what its caller was told."""
    calls: list[Any] = [(pay if place % 2 else ship)(name) for place, name in enumerate(names)]
    given = await asyncio.gather(*calls, return_exceptions=True)
    return {name: _told(name, one) for name, one in zip(names, given, strict=True)}


def _told(name: str, outcome: object) -> str:
    """``done``, ``unknown``, ``never`` begun since its hosts died too soon each time, or what nobody expects."""
    if isinstance(outcome, OutcomeUnknown):
        return "unknown"
    return "never" if isinstance(outcome, Poisoned) else "done" if outcome == name else repr(outcome)


def arm() -> None:
    """Let the steps between the lines of Callboard be reached."""
    put, read, succeed, put_result = Intents.put, Intents.outcomes, outcomes.succeed, Journal.put_result

    async def stepping_put(self: Intents, *args: Any) -> int:
        reach("before the intent")
        sequence = await put(self, *args)
        reach("intent stored")
        return sequence

    async def stepping_read(self: Intents, *args: Any) -> Any:
        found = await read(self, *args)
        reach("intent read")
        return found

    async def stepping_succeed(*args: Any) -> None:
        reach("returned")
        await succeed(*args)

    def stepping_result(self: Journal, run: str, result: Any, on_stored: OnStored) -> None:
        def stored(outcome: Any) -> None:
            reach("outcome stored")
            on_stored(outcome)

        put_result(self, run, result, stored)

    replaced: Sequence[tuple[Any, str, Callable[..., Any]]] = (
        (Intents, "put", stepping_put),
        (Intents, "outcomes", stepping_read),
        (outcomes, "succeed", stepping_succeed),
        (Journal, "put_result", stepping_result),
    )
    for owner, name, stepping in replaced:
        setattr(owner, name, stepping)


async def _host(url: str) -> None:
    """Serve until killed."""
    found = [declaration(one) for one in (pay, ship)]
    await Host([one for one in found if one is not None], Settings.load(nats_url=url)).start()
    await asyncio.Event().wait()


def _child(url: str, fate: str) -> None:
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    step, _, often = fate.rpartition(" ")
    if step:
        _Death.step, _Death.left = step, int(often)
    uvloop.run(_host(url))


def main(url: str) -> None:
    """Fork hosts until nobody asks for more."""
    arm()
    asked, fate_of = b"", dict[int, str]()
    while True:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], _POLL)  # the end of a child wakes nobody
        if readable:
            more = os.read(sys.stdin.fileno(), 4096)
            if not more:
                return
            *fates, asked = (asked + more).split(b"\n")
            for fate in fates:
                pid = os.fork()
                if pid == 0:
                    _child(url, fate.decode())
                    os._exit(0)
                fate_of[pid] = fate.decode()
        while ended := _reaped():
            pid, status = ended
            sys.stdout.write(f"{os.waitstatus_to_exitcode(status)} {fate_of.pop(pid)}\n")
            sys.stdout.flush()


def _reaped() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


if __name__ == "__main__":
    log.configure("warning", json=True)
    main(sys.argv[1])
