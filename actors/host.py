"""A host: a process that runs instances of actors and drives workflows."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from callboard.actors import burying, naming
from callboard.actors.admission import Admissions
from callboard.actors.alone import process_address
from callboard.actors.budgets import Budgets
from callboard.actors.caller import Caller
from callboard.actors.commit_acks import CommitAcks
from callboard.actors.copies import Copies
from callboard.actors.dead import DeadLetters
from callboard.actors.declared import AgentClass, Declaration, Workflow
from callboard.actors.driver import Driver
from callboard.actors.expecting import Expectations
from callboard.actors.feed import Steady
from callboard.actors.inbound import Call, Undecodable
from callboard.actors.instance import Instance
from callboard.actors.lanes import Lanes
from callboard.actors.longest import Departures
from callboard.actors.migration import Migrations
from callboard.actors.node import Node
from callboard.actors.overdue import Overdue
from callboard.actors.prefixes.known import PrefixCaches
from callboard.actors.priorities import Priorities
from callboard.actors.pulse import Heart
from callboard.actors.registry import announce
from callboard.actors.resources import place
from callboard.actors.routes import Routes
from callboard.actors.scope import install_task_factory
from callboard.actors.speech import Speech
from callboard.actors.stealing import Stealing
from callboard.actors.takeover import Watch
from callboard.actors.telemetry import Telemetry
from callboard.actors.waking import Waker
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError, ConnectionLost
from callboard.infra.messages.control import (
    Acknowledged,
    Activate,
    Calls,
    CallsQuery,
    Cancel,
    Control,
    Drain,
    Holds,
    HoldsQuery,
    Kill,
    Migrate,
    Moved,
    PrefixesQuery,
    RunCalls,
    RunQuery,
    Said,
    SaidQuery,
    Taken,
    Tell,
)
from callboard.infra.messages.run import Result
from callboard.infra.pull import Delivered, Pull
from callboard.infra.settings import Settings
from callboard.infra.topology import lane_consumer
from callboard.state.journal import Outcomes
from callboard.state.sessions import Sessions
from callboard.state.shelf import Place

_LANE_ROOM = 64
_CANCEL_AGAIN = 1.0
_LOOK_EVERY = 0.5
_YOUNG = 20_000
_TICK = 0.05
_LEAVE = 5.0
_TOLD = 1000
Told = Holds | Calls | RunCalls | Said
_decode_control = msgspec.msgpack.Decoder(Control).decode


def _calm_collector() -> None:
    """Leave what is loaded now out of garbage collection, and collect less often.

    A full collection over everything that a process has imported stops it for tens of milliseconds,
    which is the tail of every call that runs meanwhile (``bench/README.md``).
    """
    gc.collect()
    gc.freeze()
    young, middle, old = gc.get_threshold()
    gc.set_threshold(max(young, _YOUNG), middle, old)


class Cancelled:
    """Calls that were cancelled, remembered so that they are not started when they arrive later."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._runs: OrderedDict[str, set[str]] = OrderedDict()

    def add(self, run: str, futures: Iterable[str]) -> None:
        """These and all they have called; the whole run if none is named."""
        known = self._runs.setdefault(run, set())
        known.update(futures or [""])
        self._runs.move_to_end(run)
        while len(self._runs) > self._size:
            self._runs.popitem(last=False)

    def covers(self, run: str, future: str) -> bool:
        """Whether a call is cancelled, by itself or with one it descends from."""
        known = self._runs.get(run)
        if not known:
            return False
        return any(not one or future == one or future.startswith((f"{one}.", f"{one}~")) for one in known)


class Host:
    """Runs actors and drives workflows.

    Args:
        declarations: what to run.
        settings: with the server's address; a string is taken for that address.
        on_lost: awaited if the connection is closed for good; the process should end then.
        left_out: what this host has not the resources for; announced, so that it is missed.
        provisioned: a controller minds this process; told to all, so that the next one may end it.
        name: that stays when the host is started again, for routes; no two living hosts have the same.

    Attributes:
        startup: seconds that its process took until it worked, for telemetry; 0: it does other things, too.
    """

    def __init__(
        self,
        declarations: Iterable[Declaration],
        settings: Settings | str,
        on_lost: Callable[[ConnectionLost], Awaitable[None]] | None = None,
        left_out: Iterable[Declaration] = (),
        *,
        provisioned: bool = False,
        name: str = "",
    ) -> None:
        if isinstance(settings, str):
            settings = Settings.load(nats_url=settings)
        self.id = f"{naming.ID_PREFIX}{subjects.new_id()[-12:].lower()}"
        self.name = naming.checked(name)
        self.declarations = list(declarations)
        self._left_out = list(left_out)
        self.provisioned = provisioned
        self.startup = 0.0
        self.version = "0"
        self._settings = settings
        self._on_lost = on_lost
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._log = log.get("host").bind(host=self.id)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """As if it had never been started."""
        self.node = Node(self._settings, self.id, self._on_lost, migrates=True)
        self.draining = False
        self.beat = time.monotonic()
        self.cancelled = Cancelled()
        self.recent: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._looked = 0.0
        self._members: list[Instance | Driver] = []
        self._consumers: dict[Pull, dict[str, Any]] = {}
        self.lane: Pull | None = None
        self.given: dict[int, None] = {}
        """Messages in its lane that were given to another host before they were read here, by sequence."""
        self._waker: Waker | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._stopped.clear()

    # -- lifecycle ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, announce what there is, and begin to work. Idempotent.

        A start that fails, or is cancelled, undoes what it did; the host may be started again. So may one
        that was stopped. While the server is away, a start that has begun waits for it.

        Raises:
            CallboardError: no server, an unsuitable one, or a declaration that cannot work.
            HostNameTaken: another host of its name lives.
            CancelledError: it was stopped meanwhile.
        """
        if self._stopping is not None:
            await asyncio.shield(self._stopping)
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
            self._starting.add_done_callback(self._started)
        await self._starting

    def _started(self, task: asyncio.Task[None]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._starting is task:
            self._starting = None

    async def _start(self) -> None:
        place(self.declarations, self._settings)
        for declared in self.declarations:
            for method in declared.methods.values():
                _ = method.signature  # a wrong annotation is found here, not at the first call
                if method.directives.cpu:
                    process_address(method)
            if isinstance(declared, AgentClass):
                _ = declared.rules
        self._begin_anew()
        await self.node.open()
        try:
            self._equip()
            await self._begin()
        except BaseException:
            await asyncio.shield(self._end(grace=0.0))  # nothing goes on of a host that could not start
            raise

    def _equip(self) -> None:
        install_task_factory(self.node.loop)
        self.caller = Caller(self.node)
        self.dead = DeadLetters(self.node.store, self.node.reader, self.id)
        self.outcomes = Outcomes(self.node.journal)
        self.commit_acks = CommitAcks(self.node, self.id)
        self.copies = Copies(self)
        self.speech = Speech.on(self.node.connection)
        self.budgets = Budgets(self.node, self.caller.spawn)
        self.states = Sessions(self.node.shelf, self.node.settings)
        self.node.weaver.held = self.states.held
        self.stealing = Stealing(self)
        self.watch = Watch(self)
        self.lanes = Lanes(self)
        self.overdue = Overdue(self.node, lambda: self.watch.eldest() == self.id)
        self.migrations = Migrations(self)
        self.caller.is_alive = self.watch.takes_calls
        self.routes = self.caller.routes = Routes(
            self.node, self.watch.serves, self.caller.spawn, self.watch.names.find
        )
        self.prefixes = self.caller.prefixes = PrefixCaches(
            self.node.connection, self.id, self.watch.alive, self.routes.goes_by_prefix
        )
        self.priorities = Priorities(self.node, self._reorder, self.caller.spawn)
        self.caller.priorities = self.priorities
        self.expectations = Expectations(self.node, self.caller.spawn)
        if self.node.settings.longest_first:
            later = self.node.loop.call_soon
            self.caller.departures = Departures(self.expectations, later, self.node.store.close_group)
        self.shortest_first = self.node.settings.shortest_first
        self.admissions = Admissions(self.node, self._limit_requests, self.caller.spawn)
        self._heart = Heart(self)
        self.telemetry = Telemetry(self)
        self.caller.start()
        self.commit_acks.start()
        self._members = [self._member(declared) for declared in self.declarations]
        if any(isinstance(member, Instance) and member.rules is not None for member in self._members):
            self.states.start()
            self.states.fenced = self._fenced

    def _fenced(self, place: Place) -> None:
        """Somebody else has written to a session, or deleted it, as was found between its calls."""
        for member in self._members:
            if isinstance(member, Instance) and member.name == place.actor and member.snapshots is not None:
                member.snapshots.doubt(place.session)

    def _reorder(self, sessions: set[str]) -> None:
        """These sessions have got another priority."""
        for member in self._members:
            if isinstance(member, Instance):
                member.reorder(sessions)

    def _limit_requests(self, workflow: str) -> None:
        """A workflow has another limit of requests, or none any more."""
        for member in self._members:
            if isinstance(member, Driver) and member.name == workflow:
                member.limit()

    async def _begin(self) -> None:
        claimed = await naming.claim(self.node, self.name, self.id) if self.name else 0
        for subject in (subjects.control(self.id), subjects.control()):
            self.node.connection.subscribe(subject, self._on_control)
        for declared in self.declarations:
            if isinstance(declared, AgentClass):
                await declared.open()
        await announce(self.node, self.declarations + self._left_out)
        self._ticker = self.node.loop.create_task(self._tick())
        await self._heart.announce()
        if self.name:
            await naming.confirm(self.node, self.name, self.id, claimed)
        self._heart.start()
        await self.watch.start()
        await self.routes.start()
        self.prefixes.start()
        await self.priorities.start()
        self.expectations.start()
        if any(isinstance(member, Driver) for member in self._members):
            await self.admissions.start()
        for member in self._members:
            await member.start()
        if any(declared.kind == "model" for declared in self.declarations):
            await self._heart.announce()  # how much their engines take is known only now, and calls go by it
        if any(isinstance(member, Driver) for member in self._members):
            self._waker = Waker(self)
            await self._waker.start()
        await self._start_lane()
        await self.node.connection.flush()
        _calm_collector()
        self._log.info("host_ready", actors=[m.name for m in self._members])

    async def _start_lane(self) -> None:
        """Pull what is addressed to this host."""
        name, config = lane_consumer(self.id, self.node.settings)
        connection = self.node.connection
        self.lane = lane = Pull(
            connection, subjects.CALLS, name, self._on_lane, lambda _: self._lane_feed.feed()
        )
        await self.renew(lane, config)
        self._lane_feed = Steady(lane, lambda: _LANE_ROOM)
        lane.start()
        self._lane_feed.feed()

    async def renew(self, pull: Pull, config: dict[str, Any]) -> None:
        """See to the consumer of a pull, now and whenever it is gone."""
        self._consumers[pull] = config
        pull.gone = False
        await self.node.topology.consumer(pull.stream, pull.consumer, config)

    def _on_lane(self, delivered: Delivered) -> None:
        if self.given and self.given.pop(delivered.sequence, 0) is None:
            delivered.forget()
            self._lane_feed.feed()
            return
        actor = delivered.subject.split(".")[2]
        for member in self._members:
            if isinstance(member, Instance) and member.name == actor:
                member.accept(delivered)
                break
        else:
            text = f"host {self.id} runs no actor {actor!r}"
            error = Undecodable(text, reason="unknown_actor")
            burying.bury(self, actor, delivered, H.decode(delivered.raw_headers), error)
        self._lane_feed.feed()

    def _member(self, declared: Declaration) -> Instance | Driver:
        return Driver(self, declared) if isinstance(declared, Workflow) else Instance(self, declared)

    async def stop(self, grace: float | None = None) -> None:
        """Drain in a fixed order: pull no more, give back what has not started, finish, flush, leave.

        Harmless at any moment: before a start, in the middle of one, and while another stop is under way,
        whose end it waits for.

        Args:
            grace: seconds for running calls to end; ``settings.grace`` by default.
        """
        if self._starting is not None and not self._starting.done() and self._stopping is None:
            starting = self._starting
            while not starting.done():  # Python 3.11 may lose a cancellation in wait_for
                starting.cancel("the host was stopped while it started")
                await asyncio.wait([starting], timeout=_CANCEL_AGAIN)
        elif self._starting is not None or self._stopping is not None:
            await asyncio.shield(self._end(grace))

    def _end(self, grace: float | None) -> asyncio.Task[None]:
        """The one task that ends this host: who waits for it may give up, it does not."""
        if self._stopping is None:
            grace = self.node.settings.grace if grace is None else grace
            self._stopping = asyncio.get_running_loop().create_task(self._leave(grace))
        return self._stopping

    async def _leave(self, grace: float) -> None:
        self.draining = True
        self._log.info("draining", grace_s=grace)
        try:
            await self._drain(grace)
        finally:
            try:
                await self._close()
            finally:
                self._starting = self._stopping = None
                self._stopped.set()
        self._log.info("stopped")

    async def _drain(self, grace: float) -> None:
        self.migrations.hand_all_over()
        for member in self._members:
            member.pause()
        if self._waker is not None:
            self._waker.pause()
        if self.lane is not None:
            self.lane.stop()
        ends = time.monotonic() + grace
        await self._heart.settled()
        moving = self.node.loop.create_task(self.lanes.while_draining())
        try:
            await self._finish_calls(ends)
            await self.migrations.finished(_LEAVE)
            drivers = [m for m in self._members if isinstance(m, Driver)]
            await asyncio.gather(*(d.finish(max(0.0, ends - time.monotonic())) for d in drivers))
        finally:
            moving.cancel()
            await asyncio.wait([moving], timeout=_LEAVE)
        if self.lane is not None:
            try:
                async with asyncio.timeout(_LEAVE):
                    await self.watch.empty_lane(self.id)
            except (CallboardError, TimeoutError) as error:  # with the server gone, whoever is left does it
                self._log.warning("lane_not_emptied", error=str(error) or "no answer in time")
        await self.node.store.stop()
        for pull in self.pulls():  # what is still being looked up, or could not be stored
            for delivered in list(pull.held.values()):
                delivered.nak()

    async def _close(self) -> None:
        """End what runs on the side, leave the registry, and disconnect."""
        await asyncio.to_thread(self._heart.stop)  # which waits for the last beat
        self.watch.stop()
        self.telemetry.leave()
        self.routes.stop()
        self.prefixes.stop()
        self.priorities.stop()
        self.expectations.stop()
        self.admissions.stop()
        await self.caller.stop()
        if self._ticker is not None:
            self._ticker.cancel()
            await self._leave_registry()
        for member in self._members:
            member.close()
        for declared in self.declarations:
            if isinstance(declared, AgentClass):
                await declared.close()
        await self.states.stop()
        await self.node.close()

    async def _leave_registry(self) -> None:
        """Who stops a host, and then looks, does not find it any more."""
        subject = subjects.registry(f"host.{self.id}")
        gone = self.node.store.stored(
            subject, b"", H.encode([("KV-Operation", "PURGE"), ("Nats-Rollup", "sub")])
        )
        try:
            async with asyncio.timeout(_LEAVE):
                await gone
        except (CallboardError, TimeoutError) as error:  # then it is taken for dead soon
            self._log.warning("registry_not_left", error=str(error) or "no answer in time")

    async def stopped(self) -> None:
        """Wait until the host has stopped."""
        await self._stopped.wait()

    async def _finish_calls(self, ends: float) -> None:
        """Let started calls end; what has not ended by then is given back."""
        instances = [m for m in self._members if isinstance(m, Instance)]
        tasks = {c.task for i in instances for c in i.running.values() if c.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, ends - time.monotonic()))
        left = [task for task in tasks if not task.done()]
        self.caller.leaving = True
        for task in left:
            task.cancel()
        if left:
            self._log.warning("gave_back_running_calls", count=len(left))
            await asyncio.wait(left, timeout=1.0)

    async def _tick(self) -> None:
        while True:
            self.beat = time.monotonic()
            for member in self._members:
                member.tick()
                self._limit_instances(member)
            self._look_after_pulls()
            self.telemetry.tick()
            if self.overdue.due and not self.draining:
                self.caller.spawn(self.overdue.look())
            await asyncio.sleep(_TICK)

    def _look_after_pulls(self) -> None:
        for pull, config in self._consumers.items():
            pull.tick()
            if pull.gone and pull.running and not self.draining:
                self.caller.spawn(self.renew(pull, config))
        if time.monotonic() - self._looked > _LOOK_EVERY:
            self._looked = time.monotonic()
            for member in self._members:
                if isinstance(member, Instance) and member.declared.directives.max_queue is not None:
                    self.caller.spawn(member.look_at_queue())

    def _limit_instances(self, member: Instance | Driver) -> None:
        most = member.declared.directives.max_instances
        if most is None or self.draining:
            return
        hosts = self.watch.serving(member.name)
        if self.id in hosts:
            member.set_standby(standby=hosts.index(self.id) >= most)

    # -- shared by its instances and drivers -------------------------------------------------------

    def instances(self) -> list[Instance | Driver]:
        """Everything it runs."""
        return list(self._members)

    def stealable(self) -> list[Instance]:
        """Its instances that idle hosts may take from: calls, or whole sessions where something is kept."""
        instances = [member for member in self._members if isinstance(member, Instance)]
        return [one for one in instances if not one.serial or one.stuck is not None]

    def tell_of_waiting(self) -> None:
        """Calls wait here for long: let others know, if it is for too long."""
        self._heart.look()

    def pulls(self) -> list[Pull]:
        """Everything it pulls from."""
        own = [] if self.lane is None else [self.lane]
        own += [] if self._waker is None else self._waker.pulls
        return own + [pull for member in self._members for pull in member.pulls]

    def remember(self, ended_as: tuple[str, int]) -> None:
        """A call has its outcome: a late copy of it need not run."""
        self.recent[ended_as] = None
        if len(self.recent) > self.node.settings.history:
            self.recent.popitem(last=False)

    def report(self, call: Call, error: Exception) -> None:
        """Log a defect of Callboard that a call has met."""
        self._log.error("call_not_handled", future=call.id, call=call.method.where, exc_info=error)

    def finished(self, call: Call, result: Result, retry_in: float | None = None) -> None:
        """The canonical log line of a finished attempt, and its telemetry."""
        self.telemetry.ended(call, result, retry_in)
        if result.error is None:
            self._log.debug(
                "call_finished", future=call.id, call=result.call, waited_s=result.waited, took_s=result.took
            )
        else:
            self._log.warning(
                "call_failed",
                future=call.id,
                call=result.call,
                attempt=call.attempt,
                code=result.error.code,
                error=result.error.message,
                retry_in_s=retry_in,
                took_s=result.took,
            )

    # -- control -----------------------------------------------------------------------------------

    def _on_control(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        try:
            control: Any = _decode_control(data)
        except (msgspec.DecodeError, RecursionError) as error:
            self._log.warning("control_undecodable", error=str(error))
            return
        if isinstance(control, Cancel):
            self._cancel(control)
        elif isinstance(control, Taken):
            self._taken(control)
        elif isinstance(control, Drain):
            self._answer(reply, Acknowledged(self.id))
            self.caller.spawn(self.stop(control.grace))
        elif isinstance(control, Moved):
            self.caller.moved(control.actor, control.sessions, control.host)
        elif isinstance(control, PrefixesQuery):
            self.prefixes.tell()
        elif isinstance(control, Kill):
            self._log.warning("control_misplaced", host=control.host, fix="send it to cb.control.minders")
        elif isinstance(control, Migrate | Activate):
            self.caller.spawn(self._move(reply, control))
        elif (told := self._told(control)) is not None:
            self._answer(reply, told)

    def _told(self, asked: HoldsQuery | CallsQuery | RunQuery | SaidQuery | Tell) -> Told | None:
        """What this host has of what somebody asks for; its telemetry goes to all."""
        if isinstance(asked, Tell):
            self.telemetry.tell()
            return None
        if isinstance(asked, HoldsQuery):
            of = (asked.stream, asked.consumer)
            held = [n for pull in self.pulls() if (pull.stream, pull.consumer) == of for n in pull.held]
            return Holds(self.id, held)
        if isinstance(asked, SaidQuery):
            said = self.speech.said(asked.run)
            return Said(self.id, said) if said else None
        instances = [member for member in self._members if isinstance(member, Instance)]
        if isinstance(asked, CallsQuery):
            calls = [call for one in instances for call in one.running.values()]
            return self.copies.answer(asked.futures, {call.id: call.delivered.sequence for call in calls})
        calls_of = [call for one in instances for call in one.calls_of(asked.run)]
        drivers = [member for member in self._members if isinstance(member, Driver)]
        waits_of = [wait for one in drivers for wait in one.waits_of(asked.run)]
        sent_of = self.caller.sent_of(asked.run)
        if not calls_of and not waits_of and not sent_of:
            return None
        return RunCalls(self.id, calls_of[:_TOLD], waits_of[:_TOLD], sent_of[:_TOLD])

    def _taken(self, control: Taken) -> None:
        for member in self._members:
            if isinstance(member, Driver):
                member.on_taken(control)

    async def _move(self, reply: bytes, asked: Migrate | Activate) -> None:
        if isinstance(asked, Migrate):
            self._answer(reply, await self.migrations.migrate(asked))
        else:
            await self.migrations.activate(asked)
            self._answer(reply, Acknowledged(self.id))

    def _answer(self, reply: bytes, body: msgspec.Struct) -> None:
        if reply:
            self.node.connection.publish(reply.decode("utf-8", "replace"), msgspec.msgpack.encode(body))

    def _cancel(self, control: Cancel) -> None:
        self.cancelled.add(control.run, control.futures)
        for member in self._members:
            if not isinstance(member, Instance):
                continue
            for call in list(member.running.values()):
                if call.task is None or call.stopping or not self.cancelled.covers(call.run, call.id):
                    continue  # a second time would disturb its cleaning up
                batch = [c for c in member.running.values() if c.task is call.task]
                if all(self.cancelled.covers(c.run, c.id) for c in batch):
                    for one in batch:
                        one.stopping = True
                    call.task.cancel()
