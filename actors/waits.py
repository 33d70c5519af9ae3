"""What a run waits for besides its calls: times, signals, answers.

A wait is a future at its place in the code, like a call. Its outcome is a ``result`` in the journal: a
timer's firing, the consumption of a signal, an answer. So a replay finds the same, in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from callboard.actors import hints
from callboard.actors.failures import describe
from callboard.actors.fits import misfit
from callboard.actors.future import Future
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallboardError,
    InvalidResult,
    JournalExpired,
    StoreRefused,
    WaitInvalid,
    WaitMisplaced,
    WaitTimeout,
)
from callboard.infra.messages.inbox import Question
from callboard.infra.messages.run import Awaited, Result, Signal
from callboard.infra.settings import DAY

if TYPE_CHECKING:
    from callboard.actors.declared import Method
    from callboard.actors.maker import CallMaker
    from callboard.actors.node import Node
    from callboard.actors.scope import Scope
    from callboard.infra.direct import Stored

CANCEL = "cancel"
ANSWER = "answer"
RESERVED = frozenset({CANCEL, ANSWER})
"""Names of signals that are not the workflow's own."""
_LEFT = DAY
_LEFT_SHARE = 0.1
"""How long before its journal goes a run is told of what has not come; this share of the age at most."""


_EARLIEST = 1.0
"""What a schedule is given for any time before it, unix seconds; 0 means never."""


class Kind:
    """What is waited for, in the place where a call has its method.

    Args:
        where: what the journal calls it.
        type: of the value: a type, or a JSON schema.

    Raises:
        WaitInvalid: nothing that is sent can be of this type.
    """

    def __init__(self, where: str, type: Any = None) -> None:  # noqa: A002
        self.where = where
        self.actor, _, self.name = where.partition(".")
        self._schema: dict[str, Any] | None = type if isinstance(type, dict) else None
        self._type: Any = Any if self._schema is not None else type
        self.signature = self
        try:
            msgspec.msgpack.Decoder(self._type)
        except TypeError as error:
            text = f"{where}: no value can be read as {type!r}: give a type"
            raise WaitInvalid(text, wait=where) from error

    def schema(self) -> dict[str, Any]:
        """JSON schema of the value; empty where it has none."""
        return hints.schema_of(self._type) if self._schema is None else self._schema

    def read(self, value: Any) -> Any:
        """What came from outside, as a value of the type.

        Raises:
            InvalidResult: it does not fit.
        """
        try:
            if self._schema is not None and (problem := misfit(value, self._schema)):
                raise ValueError(problem)
            return msgspec.convert(value, self._type, str_keys=True)
        except (TypeError, ValueError) as error:  # msgspec's own is one
            text = f"{self.where}: {error}"
            raise InvalidResult(text, actor=self.actor, method=self.name) from error

    def decode_result(self, value: bytes | msgspec.Raw) -> Any:
        """The value of a result.

        Raises:
            InvalidResult: it does not fit.
        """
        return self.read(msgspec.msgpack.decode(value))


class Wait:
    """One wait.

    Attributes:
        name: of the signal; empty for a mere time.
        at: unix seconds when it ends by itself; 0: never.
        timeout: seconds; None: it ends by itself when the journal's age comes near.
        question: of an ``ask``.
        unstored: messages that it needs and that are not stored yet.
        taken: the signal that was given to it, with its sequence, until the journal says so too.
    """

    __slots__ = ("at", "future", "kind", "name", "question", "taken", "timeout", "unstored")

    def __init__(self, future: Future[Any], kind: Kind, name: str, at: float, timeout: float | None) -> None:
        self.future = future
        self.kind = kind
        self.name = name
        self.at = at
        self.timeout = timeout
        self.question: Question | None = None
        self.unstored = 0
        self.taken: tuple[int, Signal] | None = None

    def told(self) -> Awaited:
        """What it is, for people."""
        name = "" if self.question is not None else self.name
        return Awaited(self.future.id, self.kind.where, name, self.at)

    def expiry(self, kept: float) -> Result:
        """Its outcome when its time has come.

        Args:
            kept: seconds that the journal is kept.
        """
        result = Result(self.future.id, self.kind.where)
        if self.name:
            # As short as can be, since it waits in the server: nobody has raised it, and its text is there.
            result.error = msgspec.structs.replace(describe(self._too_late(kept)), args=None, traceback="")
        return result

    def _too_late(self, kept: float) -> CallboardError:
        what = f"{self.kind.where} ({self.name})"
        if self.timeout is not None:
            text = f"{what}: nothing came within {self.timeout} s"
            return WaitTimeout(text, wait=self.name, future=self.future.id, timeout=self.timeout)
        text = (
            f"{what}: nothing came while the run's journal is kept ({kept:,.0f} s, setting journal_max_age), "
            "and that is nearly over: give the wait a timeout, or raise the setting"
        )
        return JournalExpired(text, run=self.future.id.partition(":")[0], kept=kept)


class Waits:
    """The waits of one run.

    Args:
        maker: of the run's calls; node: of this process.

    Attributes:
        begun: unix seconds since when there is something in the run's journal.
    """

    def __init__(self, maker: CallMaker, node: Node) -> None:
        self.open: dict[str, Wait] = {}
        self.changed = time.monotonic()
        self.on_wait: Callable[[], None] = lambda: None
        """Told when one begins."""
        self.asked = False
        self.begun = time.time()
        self._maker = maker
        self._node = node
        self._signals: dict[int, Signal] = {}
        self._consumed: set[int] = set()
        self._safe: frozenset[str] = frozenset()
        self._unmet: set[str] = set()
        self._taken_over = self._uncleared = False

    # -- waiting -----------------------------------------------------------------------------------

    def until(self, scope: Scope, at: float) -> Future[Any]:
        """A future that ends at a time, unix seconds."""
        self._check(at - time.time(), "a sleep")
        return self._make(scope, Kind("callboard.sleep"), "", max(at, _EARLIEST), None)

    def signal(self, scope: Scope, name: str, timeout: float | None, kind: Any) -> Future[Any]:
        """A future for the next signal of a name."""
        at = self._ends(scope, timeout, f"signal {name}")
        return self._make(scope, Kind("callboard.signal", kind), name, at, timeout)

    def ask(self, scope: Scope, text: str, kind: Kind, timeout: float | None, to: str) -> Future[Any]:
        """A future for the answer to a question.

        Raises:
            WaitInvalid: nobody could read it.
        """
        since = self._now(scope)
        at = self._ends(scope, timeout, "an answer", since)
        context = self._maker.context

        def question(wait: Wait) -> None:
            wait.question = Question(
                wait.future.id,
                context.run,
                context.workflow,
                session=context.session,
                question=text,
                schema=wait.kind.schema(),
                to=to,
                since=since,
                deadline=at,
            )
            _check_readable(wait.question)

        return self._make(scope, kind, ANSWER, at, timeout, question)

    def _now(self, scope: Scope) -> float:
        return self._maker.remember(scope.next_id(), "callboard.now", time.time)

    def _ends(self, scope: Scope, timeout: float | None, what: str, since: float = 0.0) -> float:
        if timeout is None:
            return self._last_chance()
        self._check(timeout, what)
        return max((since or self._now(scope)) + timeout, _EARLIEST)

    def _last_chance(self) -> float:
        """When what has no timeout ends, so that the run is told before its journal goes; 0: never."""
        kept = self._node.settings.journal_max_age
        return self.begun + kept - min(_LEFT, _LEFT_SHARE * kept) if kept else 0.0

    def _check(self, seconds: float, what: str) -> None:
        kept = self._node.settings.journal_max_age
        if 0 < kept <= seconds:
            text = f"{what} of {seconds:,.0f} s is longer than journals are kept ({kept:,.0f} s)"
            raise WaitInvalid(f"{text}: raise the setting journal_max_age", wait=what)

    def _make(
        self,
        scope: Scope,
        kind: Kind,
        name: str,
        at: float,
        timeout: float | None,
        prepare: Callable[[Wait], None] = lambda _: None,
    ) -> Future[Any]:
        scope.checkpoint()
        future: Future[Any] = Future(self._maker.loop, scope.next_id(), cast("Method", kind), self._maker)
        future.creator, future.session = self._maker.context.creator, self._maker.context.session
        wait = Wait(future, kind, name, at, timeout)
        prepare(wait)
        if self._maker.on_loop():
            self._begin(wait)
        else:
            self._maker.loop.call_soon_threadsafe(self._begin, wait)
        return future

    def _begin(self, wait: Wait) -> None:
        self.asked = self.asked or wait.question is not None
        self._unmet.discard(wait.future.id)
        if not self._maker.enter(wait.future):
            # Its outcome is there, but whoever took it up may have died before they cleaned up.
            if wait.future.id in self._safe or (self._taken_over and wait.question is not None):
                self._clear(wait)
            elif wait.at > time.time():
                self._uncleared = True
            return
        self.open[wait.future.id] = wait
        self.changed = time.monotonic()
        wait.future.when_done(lambda _: self._ended(wait))
        if wait.future.id not in self._safe:
            self._store(wait)
        self._match()
        self.on_wait()

    def _store(self, wait: Wait) -> None:
        """Have a schedule end it, and show its question."""

        def on_stored(outcome: int | StoreRefused) -> None:
            wait.unstored -= 1
            if isinstance(outcome, StoreRefused):
                self._maker.call_refused(wait.future.id, outcome)

        if wait.at:
            wait.unstored += 1
            body = msgspec.msgpack.encode(wait.expiry(self._node.settings.journal_max_age))
            head = timer_head(wait.at, self._maker.context.run)
            self._node.store.put(_timer(wait), body, head, on_stored)
        if wait.question is not None:
            wait.unstored += 1
            body = msgspec.msgpack.encode(wait.question)
            self._node.store.put(question_subject(wait.future.id), body, None, on_stored)

    def settled(self) -> bool:
        """Whether the run does nothing but wait, and all it waits for will come by itself."""
        if not self.open or any(wait.unstored or wait.taken for wait in self.open.values()):
            return False
        return self._maker.only_waits(self.open)

    # -- signals -----------------------------------------------------------------------------------

    def replay(
        self,
        results: list[Result],
        signals: list[tuple[int, Signal]],
        safe: list[str],
        *,
        taken_over: bool = False,
    ) -> None:
        """Take up a journal: which signals came, and which were consumed.

        Args:
            results: on record, in order; safe: ids of waits whose timers and questions are stored;
            taken_over: from a driver that has stopped at any point.
        """
        self._taken_over = taken_over
        self._safe = frozenset(safe)
        self._unmet = set(safe)
        seen: set[str] = set()
        for result in results:
            if result.signal and result.future not in seen:
                self._consume(result.signal)
            seen.add(result.future)
        for sequence, signal in signals:
            self.on_signal(sequence, signal)

    def on_signal(self, sequence: int, signal: Signal) -> None:
        """A signal is in the journal; one that was seen before changes nothing."""
        if signal.name == CANCEL or sequence in self._consumed or sequence in self._signals:
            return
        if any(wait.taken and wait.taken[0] == sequence for wait in self.open.values()):
            return
        self._signals[sequence] = signal
        self._match()

    def knows(self, sequence: int) -> bool:
        """Whether this signal has been seen."""
        return sequence in self._consumed or sequence in self._signals

    def _match(self) -> None:
        for sequence in sorted(self._signals):
            signal = self._signals[sequence]
            wait = self._waiting_for(signal)
            if wait is not None:
                del self._signals[sequence]
                self._give(wait, sequence, signal)

    def _waiting_for(self, signal: Signal) -> Wait | None:
        if signal.name == ANSWER:
            asked = self.open.get(signal.future)
            return asked if asked is not None and asked.question is not None and not asked.taken else None
        mine = (w for w in self.open.values() if w.name == signal.name and w.question is None)
        return next((wait for wait in mine if not wait.taken), None)

    def _give(self, wait: Wait, sequence: int, signal: Signal) -> None:
        result = Result(wait.future.id, wait.kind.where, signal=sequence)
        try:
            result.value = msgspec.Raw(msgspec.msgpack.encode(wait.kind.read(signal.value)))
        except InvalidResult as error:
            if wait.question is not None:
                self._refuse(wait, sequence, error)
                return
            result.error = describe(error)
        wait.taken = sequence, signal
        self._node.journal.put_result(self._maker.context.run, result, _ignore)

    def _refuse(self, wait: Wait, sequence: int, error: InvalidResult) -> None:
        """An answer does not fit: the question stays open, and says why."""
        self._consumed.add(sequence)
        assert wait.question is not None
        wait.question.problem = error.message
        body = msgspec.msgpack.encode(wait.question)
        self._node.store.put(question_subject(wait.future.id), body)

    def resolved(self, result: Result) -> None:
        """An outcome counts: the first for its future in the journal."""
        if result.signal:
            self._consume(result.signal)

    def _consume(self, sequence: int) -> None:
        """A signal has been given, perhaps by the driver before, after this one had heard of it."""
        self._consumed.add(sequence)
        self._signals.pop(sequence, None)

    def _ended(self, wait: Wait) -> None:
        self.open.pop(wait.future.id, None)
        self.changed = time.monotonic()
        if wait.taken and wait.taken[0] not in self._consumed:  # something else came first: it is still free
            self._signals[wait.taken[0]] = wait.taken[1]
        if self._maker.abandoned:
            return
        self._clear(wait)
        self._match()

    # -- leaving -----------------------------------------------------------------------------------

    def _clear(self, wait: Wait) -> None:
        if wait.question is not None:
            self._maker.spawn(self._node.topology.purge(INBOX, question_subject(wait.future.id)))
        if wait.at > time.time():
            self._maker.spawn(self._node.topology.purge(subjects.CALLS, _timer(wait)))

    async def end(self, left: list[Wait], *, deadline: bool) -> None:
        """The run has ended: what it still waited for goes.

        Args:
            left: open waits; those that the code has not come to again are known here.
            deadline: whether a timer was to wake it when its deadline passes.
        """
        run, unsure = self._maker.context.run, self._taken_over or bool(self._unmet)
        if self.asked or unsure:
            await clear_questions(self._node, run)
        if deadline or unsure or self._uncleared or any(wait.at for wait in left):
            await clear_timers(self._node, run)


INBOX = f"KV_{subjects.INBOX_BUCKET}"


def of_run(scope: Scope, what: str) -> Waits:
    """The waits of the run whose workflow this code is.

    Raises:
        WaitMisplaced: it is no workflow on a board.
    """
    waits: Waits | None = getattr(scope.maker, "waits", None)
    if waits is None:
        raise WaitMisplaced(
            f"{what} belongs into a workflow: a handler passes on what it was given", wait=what
        )
    return waits


def question_subject(future: str) -> str:
    """Where a question stands in its bucket."""
    run, _, path = future.partition(":")
    return subjects.question(run, path)


async def clear_questions(node: Node, run: str) -> None:
    """Take all questions of a run back."""
    await node.topology.purge(INBOX, f"$KV.{subjects.INBOX_BUCKET}.{run}.>")


async def clear_timers(node: Node, run: str) -> None:
    """Nothing that a run waited for wakes it any more."""
    await node.topology.purge(subjects.CALLS, subjects.run_timer(run, ">"))


def _check_readable(question: Question) -> None:
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(question), type=Question)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # msgspec's own is one
        text = f"human.ask: nobody could read the question: {error}: give texts, and a schema as JSON has it"
        raise WaitInvalid(text, wait="human.ask") from error


def _timer(wait: Wait) -> str:
    run, _, path = wait.future.id.partition(":")
    return subjects.run_timer(run, path)


def timer_head(at: float, run: str) -> bytes:
    """The headers of a schedule that wakes a run."""
    from callboard.actors.outcomes import schedule_at

    target = subjects.call(subjects.WAKER)
    return H.encode([(H.RUN, run), (H.SCHEDULE, schedule_at(at)), (H.SCHEDULE_TARGET, target)])


def results_of(entries: list[Stored]) -> list[Result]:
    """The outcomes that journal entries hold."""
    from callboard.state.journal import read_results

    return [result for entry in entries for result in read_results(entry.body)]


def _ignore(_: int | StoreRefused) -> None:
    """For what is stored without anybody waiting."""
