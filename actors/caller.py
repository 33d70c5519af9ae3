"""What the makers of calls share in a process: outcomes complete over lost connections, holders, routes."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors.future import Future
from callboard.actors.maker import QUIET
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import (
    CallboardError,
)
from callboard.infra.messages.control import Cancel, SentCall
from callboard.state.held import is_stored

if TYPE_CHECKING:
    from callboard.actors.longest import Departures
    from callboard.actors.maker import CallMaker
    from callboard.actors.node import Node
    from callboard.actors.prefixes.known import PrefixCaches
    from callboard.actors.priorities import Priorities
    from callboard.actors.routes import Routes


_HOLDERS = 100_000
_CANCELLED = 1000


class Caller:
    """All call makers of a process: keeps their results complete over lost connections.

    Args:
        node: of this process, open.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.makers: set[CallMaker] = set()
        self._thread = threading.get_ident()
        self.is_alive: Callable[[str], bool] = lambda _: False
        """Whether a host is known to live; a call slated for another goes to the shared lane."""
        self.routes: Routes | None = None
        """Where calls go that are not slated otherwise."""
        self.prefixes: PrefixCaches | None = None
        """Which engines hold the beginning of which prompts, for routes that go by that."""
        self.priorities: Priorities | None = None
        """How urgent calls are, whatever their code says."""
        self.departures: Departures | None = None
        """In which order calls leave that are made together; None: as they are made."""
        self.leaving = False
        """What is cancelled from now on goes on elsewhere: its calls stay where they are."""
        self.made: list[Future[Any]] | deque[Future[Any]] = deque(maxlen=0)
        """Where futures are put that were announced or sent, for whoever tells of them."""
        self._holders: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._holding: dict[str, CallMaker] = {}  # outcomes that wait for a commit's ack, by its subject
        self._tasks: set[asyncio.Task[Any]] = set()
        self._log = log.get("caller")
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Idempotent."""
        if self._sweeper is None:
            self.node.connection.on_reconnect(self._resync_all)
            kind = subjects.commit_kind("result.*", subjects.commit_name(self.node.name, "*", "*"))
            self.node.connection.subscribe(subjects.journal("*", kind), self._on_commit)
            self._sweeper = self.node.loop.create_task(self._sweep())

    async def stop(self) -> None:
        """Stop all makers. Idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self.leaving = True
        for maker in list(self.makers):
            maker.stop()
        for task in self._tasks - {asyncio.current_task()}:  # a drain by message runs in one of them
            task.cancel()

    def holder(self, actor: str, session: str) -> str:
        """The host that held a session when it was last heard of; empty if it never was."""
        return self._holders.get((actor, session), "") if self._holders else ""

    def slated(self, future: Future[Any], body: bytes) -> tuple[str, int, str]:
        """Where a call is best sent, the epoch of the route that says so, and why this host of that route.

        Nothing where nobody says. Who holds its session comes before any route: it would be passed on from
        elsewhere.

        Args:
            body: its encoded arguments.
        """
        actor, session = future.method.actor, future.session
        holder = self.holder(actor, session)
        if holder and self.is_alive(holder):
            return holder, 0, ""
        if self.routes is None or not len(self.routes):
            return "", 0, ""
        if self.prefixes is not None:
            hosts, epoch = self.routes.by_prefix(actor, session)
            if hosts:
                choice = self.prefixes.place(future, body, hosts)
                return choice.host, epoch, choice.why
        return *self.routes.choose(actor, session, future.id, keeps=future.method.managed), ""

    def note_holder(self, actor: str, session: str, host: str) -> None:
        """Calls of this session are best sent to this host; another one would pass them on."""
        self._holders[actor, session] = host
        self._holders.move_to_end((actor, session))
        if len(self._holders) > _HOLDERS:
            self._holders.popitem(last=False)

    def moved(self, actor: str, sessions: Iterable[str], host: str) -> None:
        """Sessions have another holder: those that calls were made in here go there from now on."""
        for session in sessions:
            if (actor, session) in self._holders:
                self.note_holder(actor, session, host)

    def on_loop(self) -> bool:
        """Whether this code runs in the event loop's thread."""
        return threading.get_ident() == self._thread

    def spawn(self, work: Any) -> None:
        """Run a coroutine on the side; its error is logged."""
        # In no scope: a branch made here would take a number from the code that happens to cause it.
        task = self.node.loop.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("background_work_failed", exc_info=task.exception())

    def sent_of(self, run: str) -> list[SentCall]:
        """The calls of a run that were sent from here, and whose outcome is not known here."""
        now = time.monotonic()
        return [
            SentCall(future.id, future.method.where, future.executor, now - future.sent)
            for maker in self.makers
            if maker.context.run == run
            for future in maker.open.values()
            if future.sent and not future.done()
        ]

    def hold(self, ack: str, maker: CallMaker) -> None:
        """A maker has an outcome that counts once this ack is in the journal."""
        self._holding[ack] = maker

    def drop(self, ack: str, maker: CallMaker) -> None:
        """It waits for the ack no more. Idempotent."""
        if self._holding.get(ack) is maker:
            del self._holding[ack]

    def _on_commit(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        stored = is_stored(data)
        if stored is None:
            return  # anybody can publish there
        ack = subject.decode()
        maker = self._holding.pop(ack, None)
        if maker is not None:
            maker.on_commit(ack, H.find_int(head, b"Nats-Sequence"), stored=stored)

    def cancel(self, run: str, futures: list[str], reason: str) -> None:
        """Tell every host to stop these calls and what they called; all of the run if none is named."""
        for start in range(0, max(1, len(futures)), _CANCELLED):  # one message has room for a megabyte
            some = Cancel(run=run, futures=futures[start : start + _CANCELLED], reason=reason)
            self.node.connection.publish(subjects.control(), msgspec.msgpack.encode(some))

    def _resync_all(self) -> None:
        for maker in self.makers:
            self.spawn(maker.resync())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(QUIET / 3)
            now = time.monotonic()
            for maker in [m for m in self.makers if m.quiet(now)]:
                try:
                    await maker.resync()
                    maker.send_again(now)
                except CallboardError as error:
                    self._log.warning("resync_failed", run=maker.context.run, error=str(error))
