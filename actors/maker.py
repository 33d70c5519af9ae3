"""Making calls over NATS: futures out, results in, dependencies between them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from callboard.actors import values
from callboard.actors.addressing import Addressing, CallContext
from callboard.actors.arguments import encode_arguments
from callboard.actors.called_at import placed
from callboard.actors.copies import KNOWN_IDS
from callboard.actors.dependent import Announcements, WhenAllDone, failed
from callboard.actors.failures import restore
from callboard.actors.future import Future
from callboard.actors.recorded import Recorded, diverged, is_refusal
from callboard.actors.scope import chosen
from callboard.actors.turns import Turns
from callboard.actors.weaving import Heard
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallboardError,
    Diverged,
    InvalidArguments,
    StoreRefused,
)
from callboard.infra.messages.run import Result
from callboard.state.journal import read_every_result
from callboard.state.shelf import Place

if TYPE_CHECKING:
    from callboard.actors.caller import Caller
    from callboard.actors.declared import Method
    from callboard.actors.speech import Line
    from callboard.actors.waits import Wait, Waits
    from callboard.infra.direct import Stored

T = TypeVar("T")

QUIET = 15.0
"""Seconds after which a maker that has heard nothing reads its journal, and sends calls again."""
_PATIENCE = 20
_ANNOUNCED = 1000
_ACK_TAKES = 0.02
"""Seconds after which the ack of a commit is looked for that is not heard here."""
_ACK_LATE = 0.5
"""The same of one that should have been heard."""
_DEPS_LIMIT = 64 * 1024


class CallMaker:
    """Makes the calls of one run, or of one handler, and resolves their futures.

    Args:
        caller: of this process.
        context: what the calls have in common.
    """

    future_class: type[Future[Any]] = Future
    """What its calls give; of a handler one that lends the handler's slot to others."""

    def __init__(self, caller: Caller, context: CallContext) -> None:
        self.context = context
        self.open: dict[str, Future[Any]] = {}
        self.made = 0
        self.on_diverged: Callable[[Diverged], None] | None = None
        """Told when the code has changed; without it, the future at that place fails."""
        self.waits: Waits | None = None
        """What a workflow waits for besides its calls; a handler has none."""
        self.sessions: frozenset[str] = frozenset()
        """Of a handler: those that it works for."""
        self.heard: Heard | None = None
        """Of a handler: what it has heard, so that what it returns may refer to that."""
        self._caller = caller
        self._node = caller.node
        self._loop = self.loop = caller.node.loop
        self.on_loop, self.spawn = caller.on_loop, caller.spawn
        self.recorded = Recorded(self._loop, self.open, self._resolve)
        self._addressing = Addressing(context, caller.is_alive)
        self._announcements = Announcements(self._loop, self._node.journal, context.run)
        self._going = False
        self._heard_early = False
        self._looking = False
        self._stage = context.stage
        self._cancelled: list[str] = []
        self._kind = subjects.children_kind(context.parent) if context.parent else "result"
        self._sequence = 0
        self._behind = 0  # reads under way of what was missed
        self._heard = time.monotonic()
        self._sid = 0
        self._abandoned = False
        self._stopped = False
        self._expanding = False
        self._line: deque[Result] = deque()
        self._held: dict[str, _Held] = {}  # by the subject where the ack is repeated
        self._next_look: asyncio.TimerHandle | None = None  # for acks that are late
        self._turns: Turns | None = None

    @property
    def line(self) -> Line:
        """How pieces of answers reach whoever made the call."""
        return self._node.connection

    # -- lifecycle ---------------------------------------------------------------------------------

    def listen(self) -> None:
        """Listen for results."""
        # On a literal subject: it costs the server a tenth of what one with a wildcard does.
        journal = subjects.journal(self.context.run, self._kind)
        self._sid = self._node.connection.subscribe(journal, self.on_result)
        self._caller.makers.add(self)

    def go_on(self, entries: list[Stored], *, replaying: bool, before: float = 0.0) -> None:
        """Begin, or go on where the journal ends; what came before this is read from the journal.

        Args:
            entries: the results on record, read after :meth:`listen`.
            replaying: somebody made calls before, so results of calls not made yet are kept.
            before: unix seconds, since when somebody may have made calls.
        """
        self._going = True
        self._addressing.before = before
        # A handler may run beside another one of the same call, on a host that is taken for dead by mistake:
        # that one may be ahead, and have made calls before this one comes to them.
        self.recorded.keep = replaying or bool(self.context.parent)
        if entries:
            self.replay(entries)
        if self._heard_early:  # perhaps after the journal was read
            self._caller.spawn(self.resync())

    def stop(self, *, abandon: bool = False) -> None:
        """Forget everything; what is still open is cancelled. Idempotent.

        Args:
            abandon: somebody else goes on with the run: leave its calls on the hosts alone.
        """
        if self._sid:
            self._node.connection.unsubscribe(self._sid)
            self._sid = 0
        self._stopped = True
        self._caller.makers.discard(self)
        for ack in list(self._held):
            self._release(ack)
        if self._next_look is not None:
            self._next_look.cancel()
        if abandon:
            self.abandon()
        for future in list(self.open.values()):
            future.cancel()

    def let_go(self) -> None:
        """Drop what leads back to it: so it is gone when it is not used, and leaves nothing to collect."""
        self.on_diverged = self.waits = self._turns = None
        self.recorded.let_go()

    @property
    def abandoned(self) -> bool:
        """Whether somebody else goes on from here."""
        return self._abandoned

    def leave(self) -> None:
        """Somebody else goes on from here, later: from now on, nothing that the code does counts."""
        self.abandon()
        self._stopped = True

    def heard_after(self, sequence: int) -> bool:
        """Whether the outcomes stored up to this entry have all been heard."""
        return self._sequence >= sequence

    def idle_since(self) -> float:
        """When (by ``monotonic()``) an outcome was last heard."""
        return self._heard

    def only_waits(self, waits: dict[str, Wait]) -> bool:
        """Whether no call is under way: what is open are these waits, and calls that wait for them."""
        if self.recorded.replaying or self._expanding or not self._going:
            return False
        return all(future.id in waits or not future.sent for future in self.open.values())

    def abandon(self) -> None:
        """Somebody else goes on from here: from now on, what is cancelled here goes on on its host.

        To be called before the code that waits for the futures is stopped, since stopping it cancels them.
        """
        self._abandoned = True

    def replay(self, entries: list[Stored]) -> None:
        """Take up a journal: results known already, in their order."""
        for entry in entries:
            self._sequence = max(self._sequence, entry.sequence)
        results = [result for entry in entries for result in read_every_result(entry.body)]
        self.recorded.take_up(result for result in results if not result.commit)
        for result in results:
            if result.commit:
                self._hold(result, heard=False)

    # -- making calls ------------------------------------------------------------------------------

    def call(
        self, future_id: str, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Make a call; returns its future at once.

        Raises:
            InvalidArguments: the arguments do not fit; nothing was sent.
        """
        encoded = encode_arguments(method, args, kwargs)
        _ = method.managed  # what is wrong with a declaration is told where the call is made
        future = self.future_class(self._loop, future_id, method, self)
        future.creator = self.context.creator
        own = chosen.get()
        future.session = own.session or self.context.session
        future.priority = self.context.priority if own.priority is None else own.priority
        future.executor = own.host or self._caller.holder(method.actor, future.session)
        if self._caller.on_loop():
            self._place(future, encoded)
        else:
            self._loop.call_soon_threadsafe(self._place, future, encoded)
        return future

    def remember(self, future_id: str, what: str, make: Callable[[], T]) -> T:
        """A value made once and found again on replay; its place is checked like a call's."""
        known = self.recorded.come_by(future_id)
        if known is not None:
            self.recorded.taken(future_id)
            if known.call != what:
                raise self._diverged(known, what)
            value: T = msgspec.msgpack.decode(known.value)
            return value
        value = make()
        if self._abandoned:  # whoever goes on makes its own
            return value
        result = Result(future_id, what, msgspec.Raw(msgspec.msgpack.encode(value)))
        store = self._node.journal.put_result
        self._loop.call_soon_threadsafe(store, self.context.run, result, _ignore)
        return value

    def _place(self, future: Future[Any], encoded: values.Encoded) -> None:
        if self._stopped:  # made by a thread that has not noticed yet
            asyncio.Future.cancel(future)
        if future.cancelled():
            return
        self.made += 1
        self.open[future.id] = future
        waiting = [dep for dep in encoded.futures if not dep.done()]
        future.deps = tuple(dep.id for dep in encoded.futures)
        for dep in encoded.futures:
            dep.consumers += (future.id,)
        future.stage = 1 + max((dep.stage for dep in encoded.futures), default=self._stage)
        if self._knows(future):
            return
        if waiting:
            self._caller.made.append(future)
            self._announcements.add(future)
            WhenAllDone(waiting, partial(self.ready, future, encoded))
        elif encoded.futures:
            self.ready(future, encoded)
        else:
            self._send(future, encoded)

    def _knows(self, future: Future[Any]) -> bool:
        """Whether its outcome is there already; then it is given soon."""
        known = self.recorded.come_by(future.id)
        if known is None:
            return False
        if known.call != future.method.where:
            self._diverge(known, future)
        else:
            self.recorded.give_soon(future.id)
        return True

    def enter(self, future: Future[Any]) -> bool:
        """A future that is no call; whether somebody has to see to its outcome."""
        if self._stopped:
            asyncio.Future.cancel(future)
        if future.cancelled():
            return False
        self.open[future.id] = future
        return not self._knows(future)

    def ready(self, future: Future[Any], encoded: values.Encoded) -> None:
        """Its dependencies have their outcomes: send the call, or fail it with them."""
        if future.done():
            return
        failure = failed(future, encoded.futures, self.context.path)
        if failure is not None:
            self._fail(future, failure)
            return
        encoded.join()
        try:
            if not encoded.blobs:
                future.method.signature.check(encoded.body)
            self._send(future, encoded)
        except InvalidArguments as error:
            self._fail(future, placed(error, encoded.called_at))

    def _send(self, future: Future[Any], encoded: values.Encoded) -> None:
        if future.method.managed:
            if self._turns is None:
                self._turns = Turns(self._dispatch)
            self._turns.take(future, encoded)
        else:
            self._dispatch(future, encoded)

    def _dispatch(self, future: Future[Any], encoded: values.Encoded) -> None:
        if self._abandoned or self._stopped or self._caller.leaving:
            return  # what was out was stopped here, and goes on elsewhere: this one's turn has not come
        holder = self._caller.holder(future.method.actor, future.session) if future.method.managed else ""
        # Somebody may have said meanwhile who holds the session, wherever the call was to go.
        if self._caller.is_alive(holder) or not self._caller.is_alive(future.executor):
            future.executor, future.policy, future.placed = self._caller.slated(future, encoded.body)
        if self._caller.priorities is not None:
            self._caller.priorities.rank(future)
        if len(encoded.body) > self._node.settings.inline_limit:
            self._caller.spawn(self._send_large(future, encoded))
        else:
            self._publish(future, encoded, self._message_id(future.id))

    def _message_id(self, future_id: str) -> str:
        # The stream knows the id of a call that was refused: under the same one it would take no other.
        return f"{future_id}~w{time.time_ns()}" if future_id in self.recorded.refused else future_id

    async def _send_large(self, future: Future[Any], encoded: values.Encoded) -> None:
        encoded.size = 0 if encoded.blobs else len(encoded.body)
        try:
            # Of other sessions nobody knows here how long their state stays as it is.
            own = future.session in self.sessions
            place = Place(self.context.path[-1].partition(".")[0], future.session) if own else None
            await self._node.weaver.weave(self.context.run, place, encoded)
        except CallboardError as error:
            self._fail(future, error)
            return
        self._publish(future, encoded, self._message_id(future.id))

    def _publish(self, future: Future[Any], encoded: values.Encoded, message_id: str) -> None:
        if future.done():
            return
        future.sent = time.monotonic()
        future.message_id = message_id
        self._caller.made.append(future)
        future.body = encoded  # kept until there is an outcome: it may have to be sent again
        departures = self._caller.departures
        if departures is None or not departures.take(self, future, message_id):
            self.put(future, message_id)

    def put(self, future: Future[Any], message_id: str) -> None:
        """Put a call on its way, if anybody waits for it still."""
        encoded = future.body
        if encoded is None or future.done() or self._abandoned:
            return
        subject, head = self._addressing.addressed(future, encoded, message_id)
        self._node.store.put_together(subject, encoded.body, head, _OnCallStored(self, future.id))

    def call_refused(self, future_id: str, refusal: StoreRefused) -> None:
        """The stream will never take the call."""
        future = self.open.get(future_id)
        if future is not None:
            self._fail(future, refusal)

    # -- outcomes ----------------------------------------------------------------------------------

    def on_result(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        """A result is in the journal."""
        if not self._going:
            self._heard_early = True
            return
        before = H.find_int(head, b"Nats-Last-Sequence")
        if before > self._sequence or (self._held and self._may_miss_acks()):
            self._resync_soon()  # something was missed; this one is read again with it
            return
        sequence = H.find_int(head, b"Nats-Sequence")
        self._sequence = max(self._sequence, sequence)
        self._heard = time.monotonic()
        if self.heard is not None:
            self.heard.add(sequence, data)
        self._outcomes(data, heard=True)

    def look_again(self) -> None:
        """Some results may have been there before this began to listen: read them, many in one go."""
        if not self._looking:
            self._looking = True
            self._caller.spawn(self._look_again())

    async def _look_again(self) -> None:
        self._looking = False
        await self.resync()

    def _resync_soon(self) -> None:
        self._behind += 1
        self._caller.spawn(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            await self.resync()
        finally:
            self._behind -= 1

    async def resync(self) -> None:
        """Read what was missed from the journal itself."""
        losses, held = self._node.connection.losses, list(self._held.values())
        for entry in await self._node.journal.read(self.context.run, self._kind, self._sequence):
            if entry.sequence > self._sequence:
                self._sequence = entry.sequence
                self._outcomes(entry.body, heard=False)
        for one in held:
            if one.ours:  # whatever came before is known now
                one.losses = losses
        self._heard = time.monotonic()

    def quiet(self, now: float) -> bool:
        """Whether it waits for results and has heard none for a while."""
        return bool(self.open) and now - self._heard > QUIET

    def send_again(self, now: float) -> None:
        """Send calls again of which nobody has said anything: the stream may never have had them.

        Under the same message id that is one call. The stream knows the ids of two minutes, so what was
        sent earlier is left alone.
        """
        for future in list(self.open.values()):
            if future.body is not None and future.sent and QUIET < now - future.sent < KNOWN_IDS:
                subject, head = self._addressing.addressed(future, future.body, future.message_id)
                self._node.store.put(subject, future.body.body, head)

    def _outcomes(self, data: bytes, *, heard: bool) -> None:
        for result in read_every_result(data):
            if result.commit:
                self._hold(result, heard=heard)
            else:
                self._outcome(result)

    def _outcome(self, result: Result) -> None:
        if self._held:
            self._release_of(result.future)
        if result.future not in self.open or self.recorded.holds(result.future):
            self.recorded.early(result)
        elif self.recorded.replaying and not is_refusal(result):
            self.recorded.add(result)
        else:
            self._resolve(result)

    # -- outcomes that wait for a commit's ack -----------------------------------------------------

    def _hold(self, result: Result, *, heard: bool) -> None:
        """An outcome has come that counts once an ack of the server stands in the journal.

        Args:
            heard: it is new; else the ack may have come before it was read.
        """
        if not self._awaits(result.future):
            return
        ours = result.commit.startswith(f"{self._node.name}.")
        ack = subjects.journal(self.context.run, subjects.commit_kind(self._kind, result.commit))
        known = ours and heard
        held = _Held(result, ours=ours, losses=self._node.connection.losses if known else -1)
        self._held[ack] = held
        self._caller.hold(ack, self)
        held.wait = _ACK_LATE if known else _ACK_TAKES
        held.due = self._loop.time() + held.wait
        self._look_at(held.due)

    def _awaits(self, future: str) -> bool:
        """Whether an outcome of this call would be given to the code, now or later."""
        if self.recorded.holds(future):
            return False
        return future in self.open or self.recorded.expects(future)

    def _release(self, ack: str) -> None:
        del self._held[ack]
        self._caller.drop(ack, self)

    def _release_of(self, future: str) -> None:
        """Of a call that has an outcome, another one that is held is waited for no more."""
        for ack in [ack for ack, held in self._held.items() if held.result.future == future]:
            self._release(ack)

    def on_commit(self, ack: str, sequence: int, *, stored: bool) -> None:
        """A commit's ack is in the journal.

        Args:
            sequence: of that entry; stored: what it says.
        """
        held = self._held.get(ack)
        if held is None:
            return
        if self._behind or self._may_miss_acks():
            self._resync_soon()  # in the order of the journal
            return
        self._release(ack)
        self._sequence = max(self._sequence, sequence)
        self._heard = time.monotonic()
        if stored:
            self._outcome(held.result)

    def _may_miss_acks(self) -> bool:
        """Whether the ack of an outcome may be in the journal, unheard: then it is to be read there."""
        losses = self._node.connection.losses
        return any(held.losses != losses for held in self._held.values())

    def _look_at(self, due: float) -> None:
        # One timer for all: nearly every ack comes long before.
        if self._next_look is not None and self._next_look.when() > due:
            self._next_look.cancel()
            self._next_look = None
        if self._next_look is None:
            self._next_look = self._loop.call_at(due, self._look_for_acks)

    def _look_for_acks(self) -> None:
        self._next_look = None
        if self._stopped:
            return
        now = self._loop.time()
        for ack, held in list(self._held.items()):
            if held.due > now:
                continue
            if self._awaits(held.result.future):
                self.look_again()
                held.wait = min(2 * held.wait, QUIET)
                held.due = now + held.wait
            else:
                self._release(ack)
        if self._held:  # not for each of many: they are looked for together
            self._look_at(max(now + _ACK_TAKES, min(held.due for held in self._held.values())))

    def _resolve(self, result: Result) -> None:
        """Results resolve in the order of the journal, also when a large one must be fetched first."""
        if self._expanding:
            self._line.append(result)
        else:
            self._resolve_now(result)

    def _resolve_now(self, result: Result) -> None:
        if self._held:
            self._release_of(result.future)
        future = self.open.get(result.future)
        if future is None:
            return
        if result.call != future.method.where:
            self._diverge(result, future)
            return
        if is_refusal(result) and self._send_later(future, result):
            return
        if self.waits is not None:
            self.waits.resolved(result)
        self._stage = max(self._stage, result.stage)
        future.executor, future.attempt = result.host, result.attempt
        future.stage = result.stage or future.stage
        if result.sticky:
            self._caller.note_holder(future.method.actor, future.session, result.host)
        if result.error is not None:
            self._fail(future, self._restored(future, result))
        elif result.blobs or result.woven:
            self._expanding = True
            self._caller.spawn(self._resolve_large(future, result))
        else:
            self._give(future, result.value, result)

    def _restored(self, future: Future[Any], result: Result) -> BaseException:
        assert result.error is not None
        return restore(
            result.error,
            future=result.future,
            actor=future.method.actor,
            method=future.method.name,
            attempt=result.attempt,
            host=result.host,
        )

    async def _resolve_large(self, future: Future[Any], result: Result) -> None:
        try:
            value = bytes(result.value)
            if result.woven:
                value = await self._node.weaver.whole(self.context.run, value)
                result = msgspec.structs.replace(result, value=msgspec.Raw(value), woven=False)
            value = await values.expand(value, result.blobs, self._node.blobs)
        except CallboardError as error:
            self._fail(future, error)
        else:
            self._give(future, value, result)
        finally:
            self._expanding = False
            while self._line and not self._expanding:
                self._resolve_now(self._line.popleft())

    def _give(self, future: Future[Any], value: bytes | msgspec.Raw, result: Result) -> None:
        self.open.pop(future.id, None)
        if future.done():
            return
        try:
            decoded = future.method.signature.decode_result(value)
        except CallboardError as error:
            self._fail(future, error)
            return
        future.raw, future.blobs = result.value, result.blobs
        future.body = None
        future.set_result(decoded)

    def _fail(self, future: Future[Any], error: BaseException) -> None:
        self.open.pop(future.id, None)
        future.body = None
        if not future.done():
            if isinstance(error, StopIteration):  # asyncio forbids it as an outcome
                error = RuntimeError(f"StopIteration: {error}")
            future.set_exception(error)
            if future.consumers:
                future.exception()  # it is told to its consumers, so it has been looked at

    def _send_later(self, future: Future[Any], result: Result) -> bool:
        """Whether a call refused by a full lane is sent again, when the lane says and before the deadline."""
        assert result.error is not None
        wait = float(result.error.fields.get("retry_after", 1.0))
        deadline = self.context.deadline
        encoded = future.body
        if encoded is None or (deadline and time.time() + wait >= deadline):
            return False
        message_id = f"{future.id}~w{time.time_ns()}"
        self._loop.call_later(wait, self._publish, future, encoded, message_id)
        return True

    # -- ends --------------------------------------------------------------------------------------

    def cancel(self, future: Future[Any]) -> None:
        """The future was cancelled here: tell the hosts, all cancelled in one go together."""
        self.open.pop(future.id, None)
        if not future.sent or self._abandoned or self._caller.leaving:
            return
        if not self._cancelled:
            self._loop.call_soon(self._flush_cancelled)
        self._cancelled.append(future.id)

    def _flush_cancelled(self) -> None:
        cancelled, self._cancelled = self._cancelled, []
        self._caller.cancel(self.context.run, cancelled, "cancelled by its maker")

    def _diverge(self, known: Result, future: Future[Any]) -> None:
        error = self._diverged(known, future.method.where)
        if self.on_diverged is not None:
            self.on_diverged(error)
        else:
            self._fail(future, error)

    def _diverged(self, known: Result, code: str) -> Diverged:
        return diverged(self.context.workflow, known, code)


class _Held:
    """An outcome that waits for a commit's ack.

    Attributes:
        ours: the ack is sent to this process; losses: of the connection, by when no ack had been missed.
        due: when the ack is looked for in the journal, by the event loop's clock; wait: seconds until then.
    """

    __slots__ = ("due", "losses", "ours", "result", "wait")

    def __init__(self, result: Result, *, ours: bool, losses: int) -> None:
        self.result = result
        self.ours = ours
        self.losses = losses
        self.due = self.wait = 0.0


class _OnCallStored:
    """Called when a call's message is stored; keeps no more than an id until then."""

    __slots__ = ("_future_id", "_maker")

    def __init__(self, maker: CallMaker, future_id: str) -> None:
        self._maker = maker
        self._future_id = future_id

    def __call__(self, outcome: int | StoreRefused) -> None:
        if isinstance(outcome, StoreRefused):
            self._maker.call_refused(self._future_id, outcome)

    def on_duplicate(self) -> None:
        """The call had been sent before, perhaps by another maker: its result may be there already."""
        self._maker.look_again()


def _ignore(_: int | StoreRefused) -> None:
    """For what is stored without anybody waiting."""
