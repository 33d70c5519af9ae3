"""Replaying a run: the code of its workflow, against what is on record of it, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from callboard.actors.addressing import CallContext
from callboard.actors.app import unknown
from callboard.actors.caller import Caller
from callboard.actors.failures import describe
from callboard.actors.onlooking import Onlooker
from callboard.actors.record import Record, equal, plain, read
from callboard.actors.replaying import ReplayMaker
from callboard.actors.run import Run
from callboard.actors.running import Running
from callboard.actors.scope import install_task_factory
from callboard.actors.waits import Waits
from callboard.infra.errors import DeadlineExceeded, Diverged, Overloaded, Poisoned
from callboard.infra.messages.run import Done, ErrorInfo

if TYPE_CHECKING:
    from callboard.actors.client import Client
    from callboard.actors.declared import Workflow
    from callboard.actors.future import Future
    from callboard.actors.node import Node

_LOOK_EVERY = 0.05
_QUIET = 6
"""So many looks without a move mean that the code stands, if it is seen to wait for what has no outcome."""
_LONG_QUIET = 40
"""The same if outcomes are left that it may come to: another branch of it may wait for something else."""
_UNSEEN = 200
"""The same if nobody is seen to wait for what has no outcome: it may hear a model speak, or sleep."""
_ENDS_WITHIN = 1.0
_STOPPED = frozenset({DeadlineExceeded.code, Poisoned.code, Overloaded.code})
"""Errors that end a run from outside."""

Ending = Literal["same", "other", "ended", "diverged", "stands", "left"]


class Step(msgspec.Struct, frozen=True):
    """An outcome that the code was given.

    Attributes:
        number: its place among the outcomes on record, from 1.
        future: its id; call: ``actor.method``, ``callboard.now``, ``callboard.sleep`` and the like.
        arguments: of a call, by name as plain values, ``<path>`` for the outcome of another.
        value: what the call gave; error: why it gave nothing.
        host: who ran it, if anybody did; attempt: which one, from 1.
        waited, took: seconds in the queue and in the handler, as recorded.
        at: unix seconds when it was stored.
    """

    number: int
    future: str
    call: str
    arguments: dict[str, Any] | None = None
    value: Any = None
    error: ErrorInfo | None = None
    host: str = ""
    attempt: int = 1
    waited: float = 0.0
    took: float = 0.0
    at: float = 0.0

    @property
    def path(self) -> str:
        """Its place in the code."""
        return self.future.partition(":")[2]


class Open(msgspec.Struct, frozen=True):
    """A call or a wait that the code has made and that has no outcome.

    Attributes:
        state: ``sent``, or ``waiting`` for other calls, for a time, a signal or an answer.
    """

    future: str
    call: str
    state: str
    arguments: dict[str, Any] | None = None

    @property
    def path(self) -> str:
        """Its place in the code."""
        return self.future.partition(":")[2]


class Replay(msgspec.Struct, frozen=True):
    """How a replay has ended.

    Attributes:
        ending: the ``same`` result as recorded, or an ``other`` one; the code ``ended``, and the run has no
            end on record; it ``diverged``; it ``stands`` at what has no outcome; somebody ``left`` the
            debugger.
        status: of the run, as it is recorded.
        steps: the outcomes that the code was given, in that order.
        recorded: how many there are on record, up to the one to stop after; is_cut: there are more.
        outcome: how the code has ended, if it has; of the run: how the run has.
        open: where the code stands.
        unused: ids of outcomes on record that it has not come to.
        error: how the code failed, or diverged.
        value: what the code returned, as plain values; recorded_value: what it did return.
        is_late: it was still on its way when the time for it was over.
    """

    run: str
    workflow: str
    ending: Ending
    status: str
    recorded: int
    steps: list[Step] = []
    outcome: Done | None = None
    recorded_outcome: Done | None = None
    value: Any = None
    recorded_value: Any = None
    open: list[Open] = []
    unused: list[str] = []
    error: ErrorInfo | None = None
    is_cut: bool = False
    is_late: bool = False

    @property
    def was_stopped(self) -> bool:
        """Whether the run has an end that came from outside of its code."""
        end = self.recorded_outcome
        if end is None:
            return False
        return end.status == "cancelled" or (end.error is not None and end.error.code in _STOPPED)

    @property
    def is_as_recorded(self) -> bool:
        """Whether the code does what is on record, as far as that goes."""
        if self.ending == "stands":  # a run that was stopped from outside stood there, too
            return not self.unused and (self.is_cut or self.recorded_outcome is None or self.was_stopped)
        return self.ending in {"same", "ended", "left"}


async def replay(
    client: Client,
    run: str,
    workflow: Workflow[Any, Any],
    *,
    until: int | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Replay:
    """See :meth:`callboard.actors.client.Client.replay`."""
    return await go_over(client, await read(client, run), workflow, until, on_step)


async def go_over(
    client: Client,
    record: Record,
    workflow: Workflow[Any, Any],
    until: int | None = None,
    on_step: Callable[[Step], None] | None = None,
    *,
    expected: Collection[str] = (),
    patience: float | None = None,
) -> Replay:
    """The same of a run whose record was read.

    Args:
        expected: ids of what has no outcome on record, and that the code has to come to.
        patience: seconds for the code to end or to stand; None: it has all the time that it takes.

    Raises:
        UnknownActor: it is a run of another workflow.
        ValueMissing: its arguments are not stored any more.
    """
    if workflow.name != record.workflow:
        raise unknown("workflow", record.workflow, [workflow.name], f"here, of which run {record.run} is one")
    replaying = _Replaying(Onlooker(client.node), record, workflow, until, on_step)
    return await replaying.replay(expected, patience)


class _Replaying:
    """One replay."""

    def __init__(
        self,
        node: Node,
        record: Record,
        workflow: Workflow[Any, Any],
        until: int | None,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        install_task_factory(node.loop)  # as in a host: it numbers the branches
        self._node = node
        self._record = record
        self._outcomes = record.outcomes[:until]
        self._numbers = {one.result.future: number for number, one in enumerate(self._outcomes, 1)}
        self._workflow = workflow
        self._on_step = on_step
        self._steps: list[Step] = []
        self._over = self._late = False
        self._caller = Caller(node)
        context = CallContext(
            run=record.run,
            session=record.session,
            workflow=record.workflow,
            creator=node.name,
            path=(record.workflow,),
        )
        self._maker = ReplayMaker(self._caller, context, self._given)
        self._maker.waits = Waits(self._maker, node)
        self._run = Run(record.request, self._maker)
        self._maker.on_diverged = self._diverged

    def _diverged(self, error: Diverged) -> None:
        self._run.diverged = error
        if self._run.task is not None:
            self._run.task.cancel()

    def _given(self, future: str, value: Any) -> None:
        number = self._numbers.get(future)
        if number is None or self._over:  # not on record: what it needed has failed
            return
        outcome = self._outcomes[number - 1]
        result = outcome.result
        step = Step(
            number,
            future,
            result.call,
            self._maker.arguments.get(future),
            None if result.error is not None or isinstance(value, BaseException) else value,
            result.error or (describe(value) if isinstance(value, BaseException) else None),
            result.host,
            result.attempt,
            result.waited,
            result.took,
            outcome.at,
        )
        self._steps.append(step)
        if self._on_step is not None:
            self._on_step(step)

    async def replay(self, expected: Collection[str], patience: float | None) -> Replay:
        """Run the code until it ends, or stands."""
        running = Running(self._workflow, self._node, 1)
        self._maker.go_over(one.result for one in self._outcomes)
        task = asyncio.create_task(running.outcome(self._run))
        try:
            try:
                async with asyncio.timeout(patience):
                    await self._ends_or_stands(task, expected)
            except TimeoutError:
                self._late = True
            done = task.result() if task.done() else None
            left = [] if done is not None else [self._open(one) for one in self._maker.open.values()]
            return await self._ended(done, left)
        finally:
            self._over = True
            self._run.fenced = True
            self._maker.stop()
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=_ENDS_WITHIN)
            await self._caller.stop()
            running.close()

    async def _ends_or_stands(self, task: asyncio.Task[Done], expected: Collection[str]) -> None:
        sync = not self._workflow.method.is_async
        moves, quiet = -1, 0
        while not (await asyncio.wait([task], timeout=_LOOK_EVERY))[0]:
            moved, moves = self._maker.moves != moves, self._maker.moves
            quiet = 0 if moved or not self._maker.stands(sync=sync) else quiet + 1
            more = self._unused() or any(one not in self._maker.open for one in expected)
            enough = (_LONG_QUIET if more else _QUIET) if self._maker.is_awaited else _UNSEEN
            if quiet >= enough:
                return

    def _unused(self) -> list[str]:
        given = {step.future for step in self._steps}
        return [future for future in self._numbers if future not in given]

    def _open(self, future: Future[Any]) -> Open:
        state = "sent" if future.sent else "waiting"
        return Open(future.id, future.method.where, state, self._maker.arguments.get(future.id))

    async def _ended(self, done: Done | None, left: list[Open]) -> Replay:
        record = self._record
        value = await self._value(done)
        recorded = await self._value(record.done)
        return Replay(
            record.run,
            record.workflow,
            self._ending(done, value, recorded),
            record.status,
            len(self._outcomes),
            self._steps,
            done,
            record.done,
            value,
            recorded,
            left,
            self._unused(),
            done.error if done is not None else None,
            len(self._outcomes) < len(record.outcomes),
            self._late,
        )

    def _ending(self, done: Done | None, value: Any, recorded: Any) -> Ending:
        if done is None:
            return "stands"
        end = self._record.done
        if done.error is not None and done.error.type == "bdb:BdbQuit":
            return "left"
        if done.error is not None and _diverged(done.error):
            return "same" if end is not None and _alike(end.error, done.error) else "diverged"
        if end is None:
            return "ended"
        if done.status != end.status or not _alike(done.error, end.error):
            return "other"
        return "same" if equal(value, recorded) else "other"

    async def _value(self, done: Done | None) -> Any:
        """What the workflow has returned: as a requester that sent JSON gets it, if its did."""
        if done is None or done.error is not None:
            return None
        value = await plain(self._node, self._record.run, done)
        try:
            return msgspec.json.decode(msgspec.json.encode(value)) if self._record.request.as_json else value
        except (TypeError, ValueError):  # it has no form in JSON
            return value


def _diverged(error: ErrorInfo) -> bool:
    return error.code == Diverged.code


def _alike(one: ErrorInfo | None, other: ErrorInfo | None) -> bool:
    """Whether two errors are the same but for where they were raised."""
    if one is None or other is None:
        return one is other
    return (one.code, one.type, one.message) == (other.code, other.type, other.message)
