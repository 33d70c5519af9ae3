"""The outcomes that this host holds for commits under way, and the server's acks of those commits.

An outcome leaves together with its commit, and counts once the server's ack of the commit stands in the
journal, see :mod:`callboard.state.held`: whoever waits for it has it without the commit's way back to here. A
few commits at a time are told like that; of more, the outcomes share messages and acks instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import StoreRefused
from callboard.infra.messages.run import Result
from callboard.state.held import is_stored

if TYPE_CHECKING:
    from callboard.actors.inbound import Call
    from callboard.actors.node import Node

AT_ONCE = 16
_ACK_TAKES = 0.25
"""Seconds after the outcome is stored; then the commit is sent once more, to be acked to this host."""
COMMITS = "commit"
"""What a caller hears besides outcomes, as in header ``Cb-Hears``."""


class CommitAcks:
    """Tells outcomes before their commits are stored.

    Args:
        node: of this process; host: its id.
    """

    def __init__(self, node: Node, host: str) -> None:
        self._node = node
        self._host = host
        self._names = AT_ONCE
        self._free: deque[str] = deque(str(number) for number in range(AT_ONCE))
        self._under_way: dict[str, HeldOutcome] = {}
        self._next_look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Listen for the acks of this host's commits."""
        kind = subjects.commit_kind("result.*", subjects.commit_name("*", self._host, "*"))
        self._node.connection.subscribe(subjects.journal("*", kind), self._on_ack)

    def hold(self, call: Call, result: Result) -> HeldOutcome | None:
        """An outcome that may leave before its commit is stored; None if it may not."""
        if call.headers.get(H.HEARS) != COMMITS or not self._free:
            return None
        maker = call.headers.get(H.CREATOR, "")
        # Whether an effect has happened is looked up by its outcome alone.
        if call.method.effect is not None or not subjects.is_token(maker) or _has_called(call):
            return None
        name = subjects.commit_name(maker, self._host, self._free.popleft())
        held = HeldOutcome(self._node, call.run, result, name, self)
        self._under_way[held.subject] = held
        return held

    def let_go(self, held: HeldOutcome) -> None:
        """A name is used again only after one outcome and one ack: so none is mistaken for another."""
        self._under_way.pop(held.subject, None)
        if held.is_clean:
            self._free.append(held.name.rpartition(".")[2])
        else:
            self._free.append(str(self._names))
            self._names += 1

    def look_later(self, held: HeldOutcome) -> None:
        """Ask for an ack should it be late. One timer for all: nearly every ack comes long before."""
        held.due = self._node.loop.time() + _ACK_TAKES
        if self._next_look is None:
            self._next_look = self._node.loop.call_at(held.due, self._look)

    def _look(self) -> None:
        self._next_look = None
        now = self._node.loop.time()
        waiting = [held for held in self._under_way.values() if held.due]
        for held in waiting:
            if held.due <= now:
                held.due = 0.0
                held.ask_again()
        dues = [held.due for held in waiting if held.due]
        if dues:
            self._next_look = self._node.loop.call_at(min(dues), self._look)

    def _on_ack(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        stored = is_stored(data)
        if stored is None:
            return  # anybody can publish there
        run, _, kind = subject.decode().removeprefix("cb.journal.").partition(".")
        ack = subjects.run(run, kind)
        held = self._under_way.get(ack)
        if held is not None:
            held.acked(H.find_int(head, b"Nats-Sequence"), stored=stored)
        self._node.store.answered(ack, data, head)


def _has_called(call: Call) -> bool:
    """Whether its handler has made calls: beside these it saves no time that is worth an entry more."""
    maker = call.slot.maker if call.slot is not None else None
    return maker is not None and maker.used


class HeldOutcome:
    """One outcome that is held for a commit.

    Args:
        node: of this process; run: whose outcome; name: of the ack.
        acks: told when neither the outcome nor the ack is under way any more.

    Attributes:
        due: when the ack is asked for again, by the event loop's clock; 0: it is not.
    """

    def __init__(self, node: Node, run: str, result: Result, name: str, acks: CommitAcks) -> None:
        self.name = name
        self._kind = subjects.result_kind(result.future)
        self.subject = subjects.run(run, subjects.commit_kind(self._kind, name))
        self._node = node
        self._run = run
        self._result = result
        self._acks = acks
        self.due = 0.0
        self._told = False
        self._outcome: int | StoreRefused | None = None
        self._ack = 0
        self._stored = False
        self._ended = False
        self._then: Callable[[], None] | None = None

    def tell(self) -> None:
        """Store the outcome, so that it counts once the ack is there."""
        self._told = True
        held = msgspec.structs.replace(self._result, commit=self.name)
        self._node.journal.put_held(self._run, self._kind, held, self._on_stored)

    def acked(self, sequence: int, *, stored: bool) -> None:
        """The server's ack stands in the journal."""
        self._ack, self._stored = sequence, stored

    def end(self, then: Callable[[], None] | None = None) -> None:
        """The commit has ended; then is called once the outcome is stored or refused, too."""
        self._ended = True
        self._then = then
        if not self._told or self._outcome is not None:
            self._finish()

    def _on_stored(self, outcome: int | StoreRefused) -> None:
        self._outcome = outcome
        if self._ended:
            self._finish()
        elif not self._ack:
            # Where the journal had no room just now, or nobody takes the commit, no ack ever comes.
            self._acks.look_later(self)

    def ask_again(self) -> None:
        """Have the commit sent again if it has no ack."""
        if not (self._ack or self._ended):
            self._node.store.ask_again(self.subject)

    def _finish(self) -> None:
        self._acks.let_go(self)
        if self._then is not None:
            self._then()

    @property
    def is_clean(self) -> bool:
        """Whether the outcome stands in the journal, and the ack after it."""
        return not self._told or (isinstance(self._outcome, int) and self._outcome < self._ack)

    @property
    def counts(self) -> bool:
        """Whether the outcome counts: whoever reads the journal finds it."""
        return self._told and self._stored and self.is_clean
