"""Driving runs: the actor whose handler is a workflow function.

A run is owned by a lease with an epoch. Whoever takes it over runs the function from the top; calls
whose results are in the journal give them at once, the rest are sent again under the same ids.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors import runids
from callboard.actors.addressing import CallContext
from callboard.actors.admission import Door
from callboard.actors.aside import Aside
from callboard.actors.declared import Workflow, code_version
from callboard.actors.endings import Endings
from callboard.actors.feed import Steady
from callboard.actors.maker import CallMaker
from callboard.actors.run import NO_REASON, Known, Request, Run
from callboard.actors.running import Running
from callboard.actors.waits import Waits, clear_questions, clear_timers, results_of
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import (
    CallboardError,
    Diverged,
    Fenced,
    JournalExpired,
    Overloaded,
    Poisoned,
    StoreRefused,
)
from callboard.infra.messages.control import Taken
from callboard.infra.messages.registry import InstanceInfo
from callboard.infra.messages.run import Awaited, Done, Owner, RunSummary
from callboard.infra.pull import Delivered, Pull
from callboard.infra.topology import request_consumer
from callboard.state.journal import decode_owner, decode_signal, read_entry

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from callboard.actors.host import Host
    from callboard.actors.waits import Wait

SLOTS = 4096
_THREADS = 256
_TELL_AFTER = 0.2
_GIVE_BACK_AFTER = 2.0
_RESUMING = 16
_DEADLY = 4


class Driver:
    """Drives the runs of one workflow in one host.

    Args:
        host: where it runs; declared: the workflow.
    """

    def __init__(self, host: Host, declared: Workflow[Any, Any]) -> None:
        self.host = host
        self.declared = declared
        self.name = declared.name
        self.slots = declared.directives.concurrency or (SLOTS if declared.method.is_async else _THREADS)
        self.standby = False
        self.left = 0
        """Requests that the stream still had for drivers of this workflow at the last delivery."""
        self._begun = False
        self._runs: dict[str, Run] = {}
        self._resuming = asyncio.Semaphore(_RESUMING)
        self._untold: dict[Run, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = Running(declared, host.node, self.slots)
        self._aside = Aside(self)
        self._endings = Endings(host.node)
        self._looking = 0
        self._door = Door(host.node.loop, self._begin, self._refuse, self._deadline, time.time)
        self._version = code_version(declared)
        self._log = log.get("driver").bind(workflow=self.name)

    # -- lifecycle ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """See to the consumer and begin to pull."""
        node = self.host.node
        name, config = request_consumer(self.name, node.settings)
        self._pull = Pull(node.connection, subjects.REQUESTS, name, self.accept, self._emptied)
        self._feed = Steady(self._pull, self._room)
        await self.host.renew(self._pull, config)
        node.connection.on_reconnect(self._catch_up_all)
        # Of all runs, on one lane: a wildcard of its own for every run would cost the server more than
        # the run's results do.
        self._signals = node.connection.subscribe(subjects.journal("*", "signal"), self._on_signal)
        self._begun = True
        self._take_part()

    def _take_part(self) -> None:
        """Begin to pull, if it stands by no more; it may have been told to before it could pull."""
        if self._begun and not self.standby:
            self._pull.start()
            self._feed.feed()

    def _catch_up_all(self) -> None:
        for run in self._runs.values():
            self.host.caller.spawn(self._catch_up(run))

    async def _catch_up(self, run: Run) -> None:
        """After a lost connection: see whether the run was cancelled or taken over meanwhile."""
        known = Known(await self.host.node.journal.read(run.request.run, "*"))
        if run.lease is not None and known.owner_sequence > run.lease.sequence:
            run.fenced = True
            self._stop(run)
        elif known.cancelled and not run.cancelled:
            run.cancelled = known.cancelled
            self._stop(run)
        elif run.maker.waits is not None:
            for sequence, signal in known.signals:
                run.maker.waits.on_signal(sequence, signal)

    def pause(self) -> None:
        """Pull no more. Idempotent."""
        for pull in self.pulls:
            pull.stop()
        self._door.close()

    def set_standby(self, *, standby: bool) -> None:
        """Stand by while more hosts drive this workflow than may, or go on."""
        if standby == self.standby:
            return
        self.standby = standby
        if standby:
            self.pause()
        else:
            self._take_part()

    async def finish(self, grace: float) -> None:
        """Let runs end within grace seconds, then give the rest back."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for run in list(self._runs.values()):
            self._abandon(run)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        self._endings.flush()

    def close(self) -> None:
        """End threads."""
        self._running.close()

    @property
    def pulls(self) -> list[Pull]:
        """Its pull, for the heartbeat."""
        return [self._pull] if hasattr(self, "_pull") else []

    @property
    def runs(self) -> dict[str, Run]:
        """What it drives, by id."""
        return self._runs

    def waits_of(self, run: str) -> list[Awaited]:
        """What a run waits for besides its calls, for whoever watches it."""
        driven = self._runs.get(run)
        waits = driven.maker.waits if driven is not None else None
        return [wait.told() for wait in waits.open.values()] if waits is not None else []

    def info(self) -> InstanceInfo:
        """How it stands, for the heartbeat."""
        return InstanceInfo(
            busy=len(self._runs),
            slots=self.slots,
            mailbox=len(self._door),
            version=self._version,
            workflow=True,
        )

    def tick(self) -> None:
        """Called 20 times a second: tell of runs that run; most are over before anybody could read it."""
        self._aside.tick()
        self.limit()
        self._door.tick()
        limit = time.monotonic() - _TELL_AFTER
        while self._untold:
            run = next(iter(self._untold))
            if self._untold[run] > limit:
                break
            del self._untold[run]
            self.host.node.journal.put_summary(self.summary(run, "running"))

    def _emptied(self, pull: Pull) -> None:
        self.left = 0  # others may have taken what there was
        self._feed.feed()

    def _room(self) -> int:
        return self.slots - len(self._tasks) - len(self._door) - self._looking

    # -- taking a run ------------------------------------------------------------------------------

    def accept(self, delivered: Delivered) -> None:
        """A request has come."""
        self.left = delivered.waiting
        headers = H.decode(delivered.raw_headers)
        try:
            request = Request(delivered, headers)
            if request.problem is not None and not request.named:  # nobody waits who could be told
                raise request.problem
        except CallboardError as error:
            self.host.dead.put(self.name, delivered, "undecodable", f"the request was not run: {error}")
            return
        driving = self._runs.get(request.run)
        if driving is not None and driving.request.delivered.sequence == delivered.sequence:
            driving.request.delivered = delivered  # the same message again: settle the newest
            return
        if self._door.limit is None or request.resumed:
            self._begin(request)
        elif delivered.delivered > 1:
            self._looking += 1
            self.host.caller.spawn(self._accept_again(request))
        else:
            self._door.accept(request)
        if not self.host.draining:
            self._feed.feed()

    def limit(self) -> None:
        """How many requests are accepted a second, as it stands now; this driver has its share of it."""
        found = self.host.admissions.of(self.name)
        watch, drivers = self.host.watch, 0
        if found is not None:
            drivers = max(1, sum(watch.serves(host, self.name) for host in watch.alive))
        self._door.set(found, drivers)

    async def _accept_again(self, request: Request) -> None:
        """A request that another driver has had: what was accepted once goes on."""
        begun = False
        try:
            async with self._resuming:
                begun = await self.host.node.journal.owner(request.run) is not None
        except CallboardError as error:
            self._log.warning("journal_unread", run=request.run, error=str(error))
        finally:
            self._looking -= 1
        if self.host.draining or self.standby:
            request.delivered.nak()
        elif begun:
            self._begin(request)
        else:
            self._door.accept(request)

    def _refuse(self, request: Request, error: Overloaded) -> None:
        """It would be too late at its turn: the run ends with this error."""
        request.problem = error
        self._begin(request)

    def _begin(self, request: Request) -> None:
        """Drive a run."""
        task = asyncio.Task(self._take(request), loop=self.host.node.loop)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("driving_failed", exc_info=task.exception())
        if not self.host.draining and not self.standby:
            self._feed.feed()

    async def _take(self, request: Request) -> None:
        # Listening comes before the lease: what is said to the run from then on is heard.
        run = self._listen(request)
        self._runs.setdefault(request.run, run)
        try:
            if await self._lease(run):
                await self._drive(run)
        except Fenced:
            if run.aside:
                request.delivered.ack()
            else:
                self._log.info("fenced", run=request.run)
                request.delivered.forget()  # another driver has the same message
        except StoreRefused as error:
            self.host.dead.put(self.name, request.delivered, "refused_by_store", str(error))
        except Exception:  # noqa: BLE001 - whatever went wrong, somebody must have the run
            self._log.exception("driving_failed", run=request.run, action="giving it back")
            self.host.node.loop.call_later(_GIVE_BACK_AFTER, request.delivered.nak)
        finally:
            run.maker.stop(abandon=True)
            run.maker.let_go()
            self._aside.forget(run)
            if self._runs.get(request.run) is run:
                del self._runs[request.run]

    async def _lease(self, run: Run) -> bool:
        """Take the run's lease; False if there is nothing to drive.

        Raises:
            Fenced: another driver was faster.
        """
        journal = self.host.node.journal
        request = run.request
        first = request.delivered.delivered == 1 and not request.resumed
        if len(request.body) > self.host.node.settings.inline_limit:
            request.kept = await self.host.node.blobs.put(request.body)
        if first and self._runs[request.run] is run:
            try:
                run.lease = lease = await journal.open(request.run, self._owner(request, 1))
            except Fenced:
                pass  # there is a journal
            else:
                assert run.maker.waits is not None
                run.maker.waits.begun = lease.owner.at
                run.maker.go_on([], replaying=False)
                return True
        async with self._resuming:  # a few at a time, so that the first go on soon
            try:
                return await self._resume(run)
            except Fenced:
                owned = await journal.owner(request.run)
                if owned is None or owned[0].request == request.delivered.sequence:
                    raise
                return await self._resume(run)  # a duplicate whose twin was faster, which it finds now

    async def _resume(self, run: Run) -> bool:
        """Take the lease of a run that has a journal, and go on from there."""
        journal = self.host.node.journal
        request = run.request
        known = Known(await journal.read(request.run, "*"))
        if self._is_taken(request, known.owner):
            return False
        if known.done is not None:
            await self._closed_already(request, known.done)
            return False
        goes_on = request.resumed and known.is_aside
        if known.owner is not None and known.owner.request != request.delivered.sequence and not goes_on:
            self._log.info("duplicate_request", run=request.run)
            request.delivered.ack()
            return False
        epoch = known.owner.epoch + 1 if known.owner else 1
        run.lease = await journal.take(request.run, self._owner(request, epoch), known.owner_sequence)
        self._runs[request.run] = run  # from now on it hears what is said to the run
        if known.owner is not None and not goes_on:
            self._tell_fenced(known.owner.driver, run)
        later = Known(await journal.read(request.run, "*", known.sequence))  # while the lease was being taken
        if later.done is not None:
            await self._closed_already(request, later.done)
            return False
        run.cancelled = run.cancelled or known.cancelled or later.cancelled
        results = known.results + later.results
        run.was_aside = known.aside_sequence > 0
        assert run.maker.waits is not None
        run.maker.waits.begun = known.since or run.lease.owner.at
        run.maker.waits.replay(
            results_of(results), known.signals + later.signals, known.waits, taken_over=not goes_on
        )
        run.maker.go_on(results, replaying=True, before=known.since)
        if goes_on:
            self.host.caller.spawn(journal.restate(self.summary(run, "running")))
        else:
            self._log.info("run_taken_over" if epoch > 1 else "run_taken", run=request.run, epoch=epoch)
        # A fork has outcomes before it has an owner: who was given it first may have left before it began.
        delivered_again = request.delivered.delivered > 1 and not (request.is_fork and known.owner is None)
        begun = request.resumed or delivered_again
        if known.is_cut and begun and not run.cancelled:
            await self._expired(run)
        elif known.owners >= _DEADLY * self.host.node.settings.max_deliver:
            await self._give_up(run)
        else:
            return True
        return False

    def _is_taken(self, request: Request, owner: Owner | None) -> bool:
        """Whether the run of this id is another request's; who has published this one cannot be told."""
        if owner is None or request.resumed or owner.request == request.delivered.sequence:
            return False
        arguments = runids.digest(request.body, as_json=request.as_json)
        error = runids.taken(request.run, self.name, request.session, arguments, owner)
        if error is not None:
            self.host.dead.put(self.name, request.delivered, error.code, error.message)
        return error is not None

    async def _give_up(self, run: Run) -> None:
        """A run that every driver has lost may be what kills them: it ends here, for an operator to see."""
        assert run.lease is not None
        lost = _DEADLY * self.host.node.settings.max_deliver
        detail = f"taken over {lost} times without an outcome: its drivers died or gave it back each time"
        error = Poisoned(f"workflow {self.name}: {detail}; see 'callboard dead list'", delivered=lost)
        done = self._running.failed(run, error)
        await self.host.node.journal.close(run.lease, done, as_json=run.request.as_json)
        await self._clear(run, [])
        self.host.node.journal.put_summary(self.summary(run, done.status, done))
        self.host.dead.put(self.name, run.request.delivered, "too_many_deliveries", detail)

    async def _expired(self, run: Run) -> None:
        """A run whose first calls nobody knows any more would make them again: it ends here."""
        assert run.lease is not None
        node, name = self.host.node, run.request.run
        kept = node.settings.journal_max_age
        text = (
            f"run {name} of {self.name} has lasted longer than its journal is kept ({kept:,.0f} s): what it "
            "did first is not known any more; raise the setting journal_max_age for runs that last longer"
        )
        done = self._running.failed(run, JournalExpired(text, run=name, kept=kept))
        await node.journal.close(run.lease, done, as_json=run.request.as_json)
        await self._clear(run, [])
        self._endings.tell(self.summary(run, done.status, done), run.request.delivered)

    def _owner(self, request: Request, epoch: int) -> Owner:
        owner = Owner(
            driver=self.host.id,
            epoch=epoch,
            request=request.delivered.sequence,
            workflow=self.name,
            session=request.session,
            at=time.time(),
            arguments=runids.digest(request.body, as_json=request.as_json),
            waited=round(max(0.0, time.time() - request.started), 6) if epoch == 1 else 0.0,
            admitted=self._door.limit.epoch if self._door.limit is not None else 0,
        )
        if epoch == 1:  # who looks at the run when it has ended finds its request nowhere else
            owner.body, owner.kept = (b"", request.kept) if request.kept else (request.body, "")
            owner.as_json, owner.blobs = request.as_json, request.blobs
            owner.seed = request.seed if request.seed != request.run else ""
        return owner

    def _deadline(self, request: Request) -> float:
        """When a run must have ended, unix seconds; 0: never."""
        timeout = self.declared.directives.timeout
        limits = [request.deadline or None, request.started + timeout if timeout else None]
        return min((limit for limit in limits if limit), default=0.0)

    def _listen(self, request: Request) -> Run:
        context = CallContext(
            run=request.run,
            session=request.session,
            workflow=self.name,
            creator=self.host.id,
            path=(self.name,),
            deadline=self._deadline(request),
            priority=request.priority,
            trace=request.trace,
            budget=request.budget,
        )
        maker = CallMaker(self.host.caller, context)
        run = Run(request, maker)
        maker.waits = waits = Waits(maker, self.host.node)
        waits.on_wait = lambda: self._aside.watch(run)

        def on_diverged(error: Diverged) -> None:
            run.diverged = error
            self._stop(run)

        maker.on_diverged = on_diverged
        maker.listen()
        return run

    async def _closed_already(self, request: Request, done: Done) -> None:
        """The run has its outcome; whoever wrote it may have died before it could say so, and clean up."""
        if request.delivered.delivered == 1:  # a late duplicate: all was said when the run ended
            request.delivered.ack()
            return
        await self._cleared(request.run, clear_questions(self.host.node, request.run))
        await self._cleared(request.run, clear_timers(self.host.node, request.run))
        self._endings.tell(
            RunSummary(
                run=request.run,
                workflow=self.name,
                status=done.status,
                session=request.session,
                driver=self.host.id,
                epoch=done.epoch,
                started=request.started,
                finished=time.time(),
                calls=done.calls,
                error=done.error.message if done.error else "",
            ),
            request.delivered,
        )

    # -- driving -----------------------------------------------------------------------------------

    def _on_signal(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        name = subject.split(b".")[2].decode()
        run = self._runs.get(name)
        if run is None and len(self._door):
            self._wake(name, data)
        signal = read_entry(decode_signal, data) if run is not None else None
        if run is None or signal is None:
            return
        if signal.name == "cancel":
            run.cancelled = signal.reason or NO_REASON
            self._stop(run)
        elif run.maker.waits is not None:
            run.maker.waits.on_signal(H.find_int(head, b"Nats-Sequence"), signal)

    def _wake(self, run: str, data: bytes) -> None:
        """What is cancelled need not wait to be accepted: its driver finds that in its journal."""
        signal = read_entry(decode_signal, data)
        request = self._door.take(run) if signal is not None and signal.name == "cancel" else None
        if request is not None:
            self._begin(request)

    def _tell_fenced(self, driver: str, run: Run) -> None:
        """Tell the last driver that it may stop; what it writes without knowing is fenced anyway."""
        assert run.lease is not None
        told = msgspec.msgpack.encode(Taken(run=run.request.run, epoch=run.lease.owner.epoch))
        if subjects.is_token(driver):
            self.host.node.connection.publish(subjects.control(driver), told)

    def on_taken(self, taken: Taken) -> None:
        """Another driver has a run now that may have been this one's."""
        run = self._runs.get(taken.run)
        if run is not None and run.lease is not None and taken.epoch > run.lease.owner.epoch:
            run.fenced = True
            self._stop(run)

    def _stop(self, run: Run) -> None:
        """Stop the function, if it is running."""
        if run.fenced:
            run.maker.abandon()
        if run.task is not None:
            run.task.cancel()

    def _abandon(self, run: Run) -> None:
        """Give a run back: whoever takes it goes on from its journal."""
        run.fenced = True
        run.request.delivered.nak()
        self._stop(run)

    async def _drive(self, run: Run) -> None:
        assert run.lease is not None
        self._untold[run] = time.monotonic()
        try:
            done = self._running.cancelled(run) if run.cancelled else await self._running.outcome(run)
        finally:
            self._untold.pop(run, None)
        left = [future.id for future in run.maker.open.values() if future.sent]
        waits = list(run.maker.waits.open.values()) if run.maker.waits is not None else []
        run.maker.stop(abandon=True)
        if run.fenced:
            raise Fenced(f"run {run.request.run} has another driver", subject="")
        try:
            await self.host.node.journal.close(run.lease, done, as_json=run.request.as_json)
        except Fenced:
            if not await self._retake(run):
                raise
            done.epoch = run.lease.owner.epoch
            await self.host.node.journal.close(run.lease, done, as_json=run.request.as_json)
        # Only now: a driver that did not know it was fenced would stop what its successor waits for.
        if done.status == "cancelled":
            self.host.caller.cancel(run.request.run, [], run.cancelled)
        elif left:
            self.host.caller.cancel(run.request.run, left, "its run has ended")
        await self._clear(run, waits)
        self._endings.tell(self.summary(run, done.status, done), run.request.delivered)
        self.host.telemetry.run_ended(done, run.request.key)

    async def _clear(self, run: Run, waits: list[Wait]) -> None:
        """What the run still waited for goes."""
        assert run.maker.waits is not None
        deadline = run.was_aside and run.maker.context.deadline > 0
        await self._cleared(run.request.run, run.maker.waits.end(waits, deadline=deadline))

    async def _cleared(self, run: str, clearing: Awaitable[None]) -> None:
        """Clean up; what is left in spite of it harms nobody."""
        try:
            await clearing
        except CallboardError as error:
            self._log.warning("waits_not_cleared", run=run, error=str(error))

    async def _retake(self, run: Run) -> bool:
        """Whether it was no owner that fenced this one off, but rubbish; then the lease is taken anew."""
        assert run.lease is not None
        journal = self.host.node.journal
        stored = await self.host.node.reader.last(subjects.RUNS, subjects.run(run.request.run, "owner"))
        if stored is None or read_entry(decode_owner, stored.body) is not None:
            return False
        owner = self._owner(run.request, run.lease.owner.epoch + 1)
        run.lease = await journal.take(run.request.run, owner, stored.sequence)
        return True

    def summary(self, run: Run, status: str, done: Done | None = None) -> RunSummary:
        """The run at a glance."""
        return RunSummary(
            run=run.request.run,
            workflow=self.name,
            status=status,
            session=run.request.session,
            driver=self.host.id,
            epoch=run.lease.owner.epoch if run.lease else 1,
            started=run.request.started,
            finished=time.time() if done else 0.0,
            calls=run.maker.made,
            error=done.error.message if done and done.error else "",
        )
