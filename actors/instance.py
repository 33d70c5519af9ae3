"""The running instance of one actor in a host: pulls, mailbox and slots (the component controller)."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from callboard.actors import burying, handling, inbound, outcomes
from callboard.actors.batches import Batches
from callboard.actors.copies import Twin, may_have_copy
from callboard.actors.declared import AgentClass, Tool, code_version
from callboard.actors.execute import Executor, slots
from callboard.actors.feed import Banded, Rate
from callboard.actors.inbound import Call, Undecodable
from callboard.actors.lanes import MOVED
from callboard.actors.mailbox import Mailbox, handicap
from callboard.actors.sessions import Sessions, held
from callboard.actors.slots import Slot, Slots
from callboard.actors.snapshots import Snapshots
from callboard.actors.stuck import Stuck
from callboard.actors.unbegun import Unbegun
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import DeadlineExceeded, Overloaded, Poisoned
from callboard.infra.messages.control import RunCall
from callboard.infra.messages.registry import InstanceInfo
from callboard.infra.pull import Delivered, Pull
from callboard.infra.topology import call_consumer

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.models.load import EngineLoad

STUCK = 0.05
"""Seconds without a free slot after which calls in the mailbox are given back."""
_OLD = 5.0


class Instance:
    """One actor in one host.

    Args:
        host: where it runs.
        declared: the agent or tool.
    """

    def __init__(self, host: Host, declared: AgentClass[Any] | Tool[Any, Any]) -> None:
        self.host = host
        self.declared = declared
        self.name = declared.name
        self.running: dict[tuple[str, int], Call] = {}
        self.standby = False
        """It takes no calls."""
        self.down = False
        """What it needs, the engine of a model, does not answer."""
        self._stands_by: set[str] = set()
        self.engine: EngineLoad | None = None
        """How the engine behind it stands; None: it has none, or it does not tell."""
        self.mailbox: Mailbox[Call] = Mailbox()
        methods = declared.methods
        self.slots = Slots(slots(methods, declared.directives.concurrency), self._lent)
        owner = declared if isinstance(declared, AgentClass) else None
        self.executor = Executor(self.name, owner, self.slots.size)
        self._version = code_version(declared)
        self._width = max(m.directives.max_batch if m.directives.batchable else 1 for m in methods.values())
        self._waiting: dict[int, int] = {}
        self.rate = Rate(time.monotonic)
        self._progress = time.monotonic()
        self._sessions = Sessions()
        self._shedding = 0
        self.rules = declared.rules if isinstance(declared, AgentClass) else None
        self.serial = declared.directives.stateful or self.rules is not None
        self.snapshots = Snapshots(declared, self.executor) if owner is not None and owner.movable else None
        self.unbegun = Unbegun(host, lambda: self.slots.free <= 0, bound=self.serial)
        self.stuck = Stuck(self) if self.rules is not None and not declared.directives.stateful else None
        self._looking = 0  # calls that take a slot if their outcome is not found
        self._feeding = False
        self._begun = False
        self._pulls: list[Pull] = []
        self._batches = Batches(self.mailbox, methods.values(), self.pump)
        self._log = log.get("host").bind(actor=self.name)

    # -- lifecycle ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make the instance, see to its consumers, and begin to pull."""
        self.executor.create()
        node = self.host.node
        for band in subjects.BANDS:
            name, config = call_consumer(self.name, band, node.settings)
            pull = Pull(node.connection, subjects.CALLS, name, self.accept, self._ended)
            await self.host.renew(pull, config)
            self._pulls.append(pull)
        if isinstance(self.declared, AgentClass):
            await self.declared.attach(self)
        self._feed = Banded(
            self._pulls, self._room, self.mailbox.up_to, self.rate.ahead, self.slots.giving_way
        )
        self._begun = True
        self._take_part()

    def _take_part(self) -> None:
        """Begin to pull, if it stands by no more; it may have been told to before it could pull."""
        if self._begun and not self.standby:
            for pull in self._pulls:
                pull.start()
            self._feed.feed()

    def pause(self) -> None:
        """Pull no more and give back what has not started. Idempotent."""
        for pull in self._pulls:
            pull.stop()
        self._give_back()

    def set_standby(self, *, standby: bool, why: str = "max_instances") -> None:
        """Stand by while there are more hosts than the actor may have instances, or go on.

        Args:
            why: what is the reason, or is none any more; there may be others.
        """
        (self._stands_by.add if standby else self._stands_by.discard)(why)
        standby = bool(self._stands_by)
        if standby == self.standby:
            return
        self.standby = standby
        self._log.info("standing_by" if standby else "taking_part", why=why)
        if standby:
            self.pause()
        else:
            self._take_part()

    def close(self) -> None:
        """End threads and processes."""
        if isinstance(self.declared, AgentClass):
            self.declared.detach(self)
        self.executor.close()

    @property
    def pulls(self) -> list[Pull]:
        """Its pulls, for the heartbeat."""
        return self._pulls

    def info(self) -> InstanceInfo:
        """How it stands, for the heartbeat."""
        return InstanceInfo(
            busy=self.slots.busy,
            slots=self.slots.size,
            mailbox=len(self.mailbox),
            waiting=sum(self._waiting.values()),
            rate=round(self.rate(), 1),
            version=self._version,
            standby=self.standby,
            down=self.down,
        )

    def waiting(self) -> tuple[int, int, int]:
        """Calls of each band that the shared lane held at the last delivery."""
        urgent, middle, patient, *_ = *(self._waiting.get(id(pull), 0) for pull in self._pulls), 0, 0, 0
        return urgent, middle, patient

    def calls_of(self, run: str) -> list[RunCall]:
        """The calls of a run that are here, for whoever watches it."""
        now = time.time()
        return [
            RunCall(
                future=call.id,
                call=call.method.where,
                attempt=call.attempt,
                waited=max(0.0, (call.started or now) - call.stored_at),
                took=now - call.started if call.started else None,
            )
            for call in self.running.values()
            if call.run == run
        ]

    # -- pulling -----------------------------------------------------------------------------------

    def _room(self) -> int:
        return self.slots.free * self._width - self._looking

    def _ended(self, pull: Pull) -> None:
        self._waiting[id(pull)] = 0  # others may have taken what there was
        self._feed.ended(pull)

    def accept(self, delivered: Delivered) -> None:
        """A message has come: make a call of it, or settle it as what it is."""
        headers = H.decode(delivered.raw_headers)
        if H.STOLEN in headers:
            self.host.stealing.came(self.name)
        self._waiting[id(delivered.pull)] = delivered.waiting
        try:
            call = inbound.decode(delivered, headers, self.declared.methods)
        except Undecodable as error:
            burying.bury(self.host, self.name, delivered, headers, error)
            self._feed_soon()
            return
        if self._is_copy(call) or self._settled_early(call):
            self._feed_soon()  # it took the place of one that could have been started
        else:
            self.enqueue(call)

    def _is_copy(self, call: Call) -> bool:
        running = self.running.get(call.key)
        if running is not None:
            running.copies.append(call.delivered)
            return True
        if call.ended_as in self.host.recent:
            call.settle()
            return True
        return False

    def _settled_early(self, call: Call) -> bool:
        if H.REQUEUED not in call.headers and self._unwanted(call):
            return True
        call.again = _may_have_run(call)
        if call.again or H.AGAIN in call.headers or time.time() - call.stored_at > _OLD:
            self.running[call.key] = call
            self._looking += 1
            self.host.caller.spawn(self._look_up(call))
            return True
        return False

    def _unwanted(self, call: Call) -> bool:
        """A call that was cancelled, or that comes too soon or too late, is settled; whether it is one."""
        if self.host.cancelled.covers(call.run, call.id):
            call.settle()
            return True
        middle = call.delivered.pull is self._pulls[subjects.MIDDLE_BAND]
        if self._shedding > 0 and middle and self.slots.free <= 0:
            self._shedding -= 1
            self._refuse(call, call.delivered.waiting)
            return True
        limit = self.declared.directives.max_queue
        if limit is not None and call.delivered.waiting > limit:
            self._refuse(call, call.delivered.waiting)
            return True
        if call.deadline and time.time() >= call.deadline:
            text = f"{call.method.where} was not started: its deadline passed while it waited"
            outcomes.fail(self, call, DeadlineExceeded(text), retry=False)
            return True
        return False

    async def _look_up(self, call: Call) -> None:
        """A call that may have run before, or is old: it may be done, cancelled, or deadly."""
        twin, finished = Twin.NONE, False
        try:
            if may_have_copy(call):  # before the journal is read: between the two it may come to its end
                twin = await self.host.copies.find(call)
            # One that an operator has sent again is to run although it has an outcome.
            if twin is Twin.NONE and H.REQUEUED not in call.headers:
                finished = await self._is_done(call)
        except Exception as error:  # noqa: BLE001 - whatever it was, the call must not stay here
            self._log.warning("journal_unread", future=call.id, error=str(error))
        finally:
            self._looking -= 1
        del self.running[call.key]
        self._feed_soon()
        if finished or twin is Twin.OTHER:
            call.settle()
        elif twin is Twin.SAME:
            call.delivered.forget()
        elif call.deliveries > self.host.node.settings.max_deliver:
            self._poison(call)
        else:
            self.enqueue(call)

    async def _is_done(self, call: Call) -> bool:
        if call.again or may_have_copy(call):
            return await self.host.outcomes.known(call.run, call.id)
        return await self.host.outcomes.ended(call.run)

    def _poison(self, call: Call) -> None:
        count = call.deliveries - 1
        text = f"delivered {count} times without an outcome: its hosts died or lost it each time"
        error = Poisoned(f"{call.method.where}: {text}; see 'callboard dead show'", delivered=count)
        self.running[call.key] = call
        self.host.caller.spawn(burying.poison(self, call, error, text))

    def _refuse(self, call: Call, queue: int) -> None:
        limit = self.declared.directives.max_queue or queue
        above, rate = queue - limit + 1, self.rate()
        expected = above / rate if rate > 0 else 0.2 + above / 100  # nothing has been measured yet
        retry_after = max(0.05, min(30.0, expected))
        error = Overloaded(
            f"{self.name} has {queue} calls waiting, its limit is {limit}: try again in {retry_after:.2f} s",
            queue=queue,
            retry_after=retry_after,
        )
        outcomes.fail(self, call, error, retry=False)

    async def look_at_queue(self) -> None:
        """Refuse calls above the lane's limit even while all slots are busy and nothing is pulled."""
        limit = self.declared.directives.max_queue
        if limit is None or self.slots.free > 0:
            return
        pull = self._pulls[subjects.MIDDLE_BAND]
        info = await self.host.node.topology.api(f"CONSUMER.INFO.{pull.stream}.{pull.consumer}")
        waiting = int(info.get("num_pending", 0))
        if waiting <= limit or self.slots.free > 0 or self._shedding:
            return
        self._shedding = waiting - limit
        pull.ask(self._shedding, wait=False)

    def enqueue(self, call: Call) -> None:
        """Let a call wait for its turn here, or go where its session is."""
        if self.host.draining or self.standby:
            self._leave_to_others(call)
            return
        self.running[call.key] = call
        self.host.priorities.apply(call)
        if self.rules is not None and self._sessions.is_held_for(call):
            outcomes.fail(self, call, held(call.method, call.session), retry=False)
            return
        if self.rules is not None and self.host.migrations.keeps(self, call):
            return
        if self.serial and not self._sessions.enter(call):
            return
        if len(self.mailbox) == 0:
            self._progress = time.monotonic()
        self._wait(call)
        self.pump()

    def _leave_to_others(self, call: Call) -> None:
        """Let others have a call that this instance does not take."""
        own = call.delivered.pull is self.host.lane  # given back it would come here again
        if self.standby and (
            own or self.down
        ):  # an engine may be down often, and each time counts as a delivery
            self.host.caller.spawn(self.host.lanes.pass_on(call))
        else:
            call.give_back()

    def _wait(self, call: Call) -> None:
        """Let a call wait for a slot."""
        if self.slots.free <= len(self.mailbox) and self.host.shortest_first:  # else it need not wait
            call.longer = handicap(self.host.expectations.seconds(call.method.where, call.size))
        self.unbegun.add(call)
        self.mailbox.push(call)
        if self.stuck is not None:
            self.stuck.look_soon()

    # -- calls that may run elsewhere --------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Calls that are here and wait for a slot, or will."""
        return len(self.mailbox) + self._looking

    def reorder(self, sessions: set[str]) -> None:
        """These sessions have got another priority: what waits of them finds its place anew."""
        apply = self.host.priorities.apply
        if self.mailbox.reorder(lambda call: call.session in sessions and apply(call)):
            self.pump()

    def claim(self, call: Call) -> bool:
        """Whether a call that has waited is this instance's still; then it stays so."""
        return self.unbegun.claim(call)

    def gone(self, calls: list[Call], host: str) -> None:
        """Another host has got these calls."""
        lost = {id(call) for call in calls}
        self.mailbox.take(lambda call: id(call) in lost, len(lost))
        for call in calls:
            if self.running.get(call.key) is call:
                del self.running[call.key]
            call.delivered.forget()
            self.host.telemetry.moved(call, host, "stolen")
            for copy in call.copies:
                copy.nak()
        self._progress = time.monotonic()
        self._feed_soon()

    def _next_of_session(self, call: Call) -> None:
        """A call of a stateful agent has ended, or waits for its own: the next of its session may start."""
        if self.rules is not None and not self._sessions.running(call.session):
            self.host.migrations.at_rest(self, call.session)
        if self.host.draining or self.standby:
            self._give_back_session(call.session)
            return
        following = self._sessions.next(call.session)
        if following is not None:
            self.host.priorities.apply(following)
            self._wait(following)

    def _give_back_session(self, name: str) -> None:
        """Let others have whoever may start in a session, one after the other."""
        while (following := self._sessions.next(name)) is not None:
            self.running.pop(following.key, None)
            following.give_back()
            self._sessions.leave(following)

    def withdraw(self, sessions: Collection[str]) -> list[Call]:
        """Take all calls of some sessions that have not started, those of each in their order."""
        found = self.mailbox.take(lambda call: call.session in sessions, len(self.mailbox))
        for call in found:
            self._sessions.leave(call)
        for session in sessions:
            found += self._sessions.withdraw(session)
        return found

    def running_in(self, session: str) -> list[Call]:
        """The calls that hold a session; none, or one that has started, once it is withdrawn."""
        return self._sessions.running(session)

    def busy_sessions(self) -> list[str]:
        """Sessions in which a call runs, or is about to."""
        return self._sessions.busy()

    def tick(self) -> None:
        """Called 20 times a second: what waits here without a slot is better off elsewhere."""
        if self.slots.free > 0:
            return
        # Handlers that go on may have taken slots for which calls were asked. Not sooner: one that waits for
        # one call after the other would make the instance ask and withdraw all the time.
        self._feed_soon()
        if len(self.mailbox) and time.monotonic() - self._progress > STUCK:
            self.rate.reset()
            self._feed.feed()
            self._give_back()

    def _give_back(self) -> None:
        """Let others have what waits here. Once only, unless this instance leaves.

        Each time counts as a delivery, and a call that is delivered too often counts as deadly.
        """
        leaving, most = self.host.draining or self.standby, self.host.node.settings.max_deliver
        kept: list[Call] = []
        while len(self.mailbox):
            call = self.mailbox.pop()
            if (call.delivered.delivered > 1 or call.deliveries >= most) and not leaving:
                kept.append(call)
                continue
            if not self.claim(call):
                continue
            self.running.pop(call.key, None)
            self._leave_to_others(call)
            if self.serial:
                self._sessions.leave(call)
                self._give_back_session(call.session)
        for call in kept:
            self.mailbox.push(call)

    # -- slots -------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Start what can be started, then ask for more."""
        if self.host.draining or self.standby:
            return
        while self.slots.free > 0 and len(self.mailbox):
            calls = self._batches.next()
            if not calls:
                break
            self._start(calls)
        if self.slots.preemptable and self.slots.free <= 0 and len(self.mailbox):
            self._preempt()
        self._feed_soon()

    def _preempt(self) -> None:
        """Stop calls that may be stopped for the more urgent ones that wait."""
        following = self.mailbox.peek()
        if not self._batches.is_due(following.method):
            return
        band = following.band
        for _ in range(self.mailbox.up_to(band) - self.slots.stopping()):
            victim = self.slots.victim(band)
            if victim is None:
                return
            self._log.debug("preempted", futures=[call.id for call in victim.calls])
            victim.preempt()

    def resize(self, slots: int) -> None:
        """From now on it has so many slots; calls beyond them go on."""
        grown = slots > self.slots.size
        self.slots.resize(slots)
        if grown and self._begun:
            self.pump()

    def allow(self, starts: int | None) -> None:
        """So many calls may start from now on, until this is said anew; None: as there are slots."""
        self.slots.allowance = starts
        if self._begun and starts != 0:
            self.pump()

    def put_back(self, call: Call, *, again: bool) -> bool:
        """A call was stopped for a more urgent one: it waits here again, unless somebody else may have it."""
        if self.host.draining or self.standby or self.host.cancelled.covers(call.run, call.id):
            return False
        if not self.claim(call):
            return True
        call.put_back(again=again)
        if self.rules is not None and self.host.migrations.keeps(self, call, first=True):
            self._sessions.leave(call)
            self._next_of_session(call)
        else:
            self._wait(call)
        return True

    def _feed_soon(self) -> None:
        if not self._feeding:  # once in a turn of the loop, however many calls came or ended in it
            self._feeding = True
            self.host.node.loop.call_soon(self._feed_now)

    def _feed_now(self) -> None:
        self._feeding = False
        if not self.host.draining and not self.standby:
            self._feed.feed()
            self.host.stealing.look(self)

    def begin(self, slot: Slot) -> bool:
        """A handler is about to begin: whether there is something left for it to do."""
        if len(slot.calls) == 1:
            return self.unbegun.claim(slot.calls[0])
        slot.calls = [call for call in slot.calls if self.unbegun.claim(call)]
        return bool(slot.calls)

    def _start(self, calls: list[Call]) -> None:
        calls = [call for call in calls if not self._dropped(call)]
        if not calls:
            return
        slot = self.slots.take(calls)
        # Not through the loop's task factory: a handler is nobody's branch.
        task = asyncio.Task(handling.handle(self, slot), loop=self.host.node.loop)
        task.add_done_callback(functools.partial(self._not_begun, slot))
        now = time.time()
        for call in calls:
            call.started, call.task, call.slot = now, task, slot

    def _not_begun(self, slot: Slot, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before its first step, so that the handling has not seen it
            ended = handling.stopped(self, slot)
            for call in ended:
                call.task = call.slot = None
            self.slot_free(slot, ended)

    def _lent(self, slot: Slot) -> None:
        """A handler waits for calls of its own: another may start meanwhile."""
        if self.serial:
            for call in slot.calls:
                self._next_of_session(call)
        if self.slots.free == 1 or self.serial:
            self.pump()

    def _dropped(self, call: Call) -> bool:
        """Whether it was cancelled while it waited here."""
        if H.REQUEUED in call.headers or not self.host.cancelled.covers(call.run, call.id):
            return False
        if not self.claim(call):
            return True
        self.running.pop(call.key, None)
        call.settle()
        if self.serial:
            self._sessions.leave(call)
            self._next_of_session(call)
        return True

    def leave(self, slot: Slot, call: Call) -> None:
        """A call of a batch has been seen to before the others: the next of its session need not wait."""
        slot.calls.remove(call)
        call.task = call.slot = None
        if not slot.calls:
            slot.settle()
        self._sessions.leave(call)
        self._next_of_session(call)

    def slot_free(self, slot: Slot, ended: list[Call]) -> None:
        """A handler has ended, and with it these calls."""
        slot.end()
        self.rate.count(len(ended))
        if self.serial:
            for call in ended:
                self._sessions.leave(call)
                self._next_of_session(call)
        self._progress = time.monotonic()
        self.pump()


def _may_have_run(call: Call) -> bool:
    """Whether somebody may have had this call before: then its outcome is looked for first.

    What makes one message of two copies is the message id that its maker gives, so that one without it may
    be a copy; and a server that was killed may have forgotten that it delivered a message.
    """
    delivered = call.delivered
    return (
        delivered.delivered > 1
        or call.headers.get(H.MESSAGE_ID, MOVED).startswith(MOVED)
        or call.stored_at < delivered.pull.connection.since
    )
