"""The bucket of decisions, as controllers know it, and as the one that leads writes it.

Who begins to lead says so in the bucket first, and each of its writes is accepted only if nobody has done so
since. So what an older controller still decides is stored nowhere, and nobody hears of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.admission import read_admission
from callboard.actors.entries import PREFIX, STREAM, Entries
from callboard.actors.priorities import read_priority
from callboard.actors.routes import read_route
from callboard.controller.moves import Moves
from callboard.controller.policy import Entry, Held
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import Fenced
from callboard.infra.messages.policy import (
    Admission,
    Deciding,
    Decision,
    Policies,
    PolicyState,
    Priority,
    Round,
    Route,
)
from callboard.infra.messages.registry import Leader

if TYPE_CHECKING:
    from callboard.actors.node import Node

REMEMBERED = 3600
"""Seconds for which the bucket keeps what was decided, and that an entry was cleared."""
_ROUTE, _PRIORITY, _ADMIT = f"{PREFIX}route.", f"{PREFIX}priority.", f"{PREFIX}admit."
_leader = msgspec.msgpack.Decoder(Leader).decode
_policies = msgspec.msgpack.Decoder(Policies).decode
_round = msgspec.msgpack.Decoder(Round).decode
_deciding = msgspec.msgpack.Decoder(Deciding).decode


class Decisions:
    """What is decided.

    Args:
        node: of this process, open; controller: its id.
        chosen: told of the set of policies that somebody has stored; None: nobody has.
        spawn: runs a coroutine on the side.
        carry: told of instances that are to be started and ended, once that is stored.

    Attributes:
        held: the decisions that hold.
    """

    def __init__(
        self,
        node: Node,
        controller: str,
        chosen: Callable[[list[str] | None], None],
        spawn: Callable[..., object],
        carry: Callable[[Decision], None] = lambda _: None,
    ) -> None:
        self._node = node
        self._controller = controller
        self._chosen = chosen
        self._carry = carry
        self.held = Held()
        self._moves = Moves(node, spawn)
        self.held.moving = self._moves.moving
        self._term = self._fence = self._epoch = 0
        self._told: list[PolicyState] | None = None
        self._telling = b""
        self._followed = [
            Entries(node, pattern, self._take, spawn)
            for pattern in ("route.>", "priority.>", "admit.>", "policies", "running")
        ]

    async def start(self) -> None:
        """Follow the bucket. Idempotent."""
        for entries in self._followed:
            await entries.start()

    def stop(self) -> None:
        """Idempotent."""
        for entries in self._followed:
            entries.stop()

    def _take(self, subject: str, body: bytes) -> None:
        if subject == subjects.policies():
            self._chosen(_read_policies(body))
            return
        if subject == subjects.policies_running():
            if body != self._telling:  # somebody else has written there
                self._told = None
            return
        entry = _read(subject, body)
        if entry is None:
            self.held.drop(subject)
            return
        known = self.held.entries.get(subject)
        if known is None or known.epoch <= entry.epoch:
            self.held.put(subject, entry)
            self._epoch = max(self._epoch, entry.epoch)

    # -- writing -------------------------------------------------------------------------------------

    async def lead(self, term: int) -> None:
        """Only this controller writes from now on, until a later one does the same.

        Called again, it goes on from what somebody has put there who is no controller.

        Raises:
            Fenced: a later one has; its field ``epoch`` is that of the one that decides.
        """
        subject = subjects.policy_leader()
        last = await self._node.reader.last(STREAM, subject)
        known = _read_leader(last.body) if last is not None else None
        mine = known is not None and (known.controller, known.epoch) == (self._controller, term)
        if known is not None and known.epoch >= term and not mine:
            text = f"controller {known.controller} of epoch {known.epoch} decides, not that of {term}"
            raise Fenced(text, epoch=known.epoch)
        body = msgspec.msgpack.encode(Leader(self._controller, term, time.time()))
        head = H.encode([(H.EXPECTED_SEQUENCE, str(last.sequence if last is not None else 0))])
        self._fence = await self._node.store.stored(subject, body, head)
        self._term = term

    async def write(self, decisions: Sequence[Decision]) -> int:
        """Store decisions of one round: first why, then what; gives their epoch.

        What is too much for one message is stored as several rounds; then the epoch is that of the last.

        Raises:
            Fenced: a later controller decides. StoreRefused: the bucket is full.
        """
        heard = max(entries.last for entries in self._followed)
        epoch, at = max(self._epoch, heard, self._fence) + 1, time.time()
        body = msgspec.msgpack.encode(Round(epoch, self._term, self._controller, at, list(decisions)))
        if len(body) > self._node.store.max_body and len(decisions) > 1:
            half = len(decisions) // 2
            await self.write(decisions[:half])
            return await self.write(decisions[half:])
        self._epoch = epoch
        await self._stored(subjects.decided(str(epoch)), body, REMEMBERED)
        await asyncio.gather(*(self._apply(decision, epoch, at) for decision in decisions))
        return epoch

    async def tell(self, states: list[PolicyState]) -> None:
        """Store how the policies stand, if something else is stored."""
        if states == self._told:
            return
        self._telling = msgspec.msgpack.encode(Deciding(self._controller, self._term, states, time.time()))
        self._told = states
        try:
            await self._stored(subjects.policies_running(), self._telling)
        except BaseException:
            self._told = None
            raise

    async def _apply(self, decision: Decision, epoch: int, at: float) -> None:
        if decision.what == "migrate":
            self._moves.begin(decision)
            return
        if decision.what in {"kill", "provision"}:
            self._carry(decision)
            return
        entry = entry_of(decision, epoch, at, self._term)
        if entry is None:
            await self._stored(decision.key, b"", REMEMBERED, ("KV-Operation", "DEL"))
            self.held.drop(decision.key)
        else:
            await self._stored(decision.key, msgspec.msgpack.encode(entry))
            self.held.put(decision.key, entry)

    async def _stored(self, subject: str, body: bytes, ttl: int = 0, *more: tuple[str, str]) -> int:
        head = [(H.EXPECTED_SEQUENCE, str(self._fence)), (H.EXPECTED_SUBJECT, subjects.policy_leader())]
        head += more
        if ttl:
            head.append((H.TTL, str(ttl)))
        return await self._node.store.stored(subject, body, H.encode(head))


def entry_of(decision: Decision, epoch: int, at: float, term: int) -> Entry | None:
    """What stands in the bucket once this was decided; None: nothing.

    Args:
        epoch, at, term: as in a :class:`Route`.
    """
    policy, reason = decision.policy, decision.reason
    if decision.what == "route":
        actor, _, session = decision.key.removeprefix(_ROUTE).partition(".")
        session = subjects.session_of(session)
        return Route(actor, decision.hosts, session, epoch, policy, reason, at, term=term, by=decision.by)
    if decision.what == "priority":
        session, _, actor = decision.key.removeprefix(_PRIORITY).partition(".")
        session = subjects.session_of(session)
        return Priority(session, decision.value, actor, epoch, policy, reason, at, term)
    if decision.what == "admit":
        workflow = decision.key.removeprefix(_ADMIT)
        return Admission(workflow, decision.rate, epoch, policy, reason, at, term)
    return None


async def choose(node: Node, names: Sequence[str]) -> None:
    """Have controllers follow these policies from now on."""
    await node.store.stored(subjects.policies(), msgspec.msgpack.encode(Policies(list(names))))


async def reset(node: Node) -> None:
    """Have each controller follow what it was started with again."""
    await node.store.stored(subjects.policies(), b"", H.encode([("KV-Operation", "DEL")]))


async def running(node: Node) -> Deciding | None:
    """How the policies of the controller stand that leads, or led last; None: none has ever decided."""
    last = await node.reader.last(STREAM, subjects.policies_running())
    try:
        return _deciding(last.body) if last is not None and last.body else None
    except (msgspec.DecodeError, RecursionError):
        return None


async def rounds(node: Node, last: int) -> list[Round]:
    """What was decided lately, the oldest first.

    Args:
        last: entries of the bucket that are looked through, from the end.
    """
    info = await node.topology.api(f"STREAM.INFO.{STREAM}")
    after = max(0, int(info["state"]["last_seq"]) - last)
    stored = await node.reader.read(STREAM, subjects.decided("*"), after)
    return [found for one in stored if (found := _read_round(one.body)) is not None]


async def chosen(node: Node) -> list[str] | None:
    """The policies that were chosen for all controllers; None: nobody has."""
    last = await node.reader.last(STREAM, subjects.policies())
    return _read_policies(last.body) if last is not None else None


def _read(subject: str, body: bytes) -> Entry | None:
    if not body:
        return None
    readers = ((_ROUTE, read_route), (_PRIORITY, read_priority), (_ADMIT, read_admission))
    return next((read(subject, body) for kind, read in readers if subject.startswith(kind)), None)


def _read_leader(body: bytes) -> Leader | None:
    try:
        return _leader(body) if body else None
    except (msgspec.DecodeError, RecursionError):
        return None


def _read_round(body: bytes) -> Round | None:
    try:
        return _round(body) if body else None
    except (msgspec.DecodeError, RecursionError):
        return None


def _read_policies(body: bytes) -> list[str] | None:
    try:
        return _policies(body).names if body else None
    except (msgspec.DecodeError, RecursionError):
        return None
