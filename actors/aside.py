"""Putting runs aside that only wait: nothing of them is held until what they wait for is there.

Whoever brings a run something stores it first and looks then whether the run is aside. The driver says that
the run is aside first and looks then whether something came. So one of them sees it, and wakes the run: its
request is published again, under an id that makes several wake-ups one.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from callboard.actors.waits import timer_head
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError, Fenced
from callboard.infra.messages.run import Aside as Entry

if TYPE_CHECKING:
    from callboard.actors.driver import Driver
    from callboard.actors.node import Node
    from callboard.actors.run import Run
    from callboard.actors.waits import Waits

_LOOK_EVERY = 0.25
_AT_ONCE = 64
_KEPT = frozenset({H.PRIORITY, H.BLOBS, H.TRACEPARENT, H.BUDGET, H.SEED})


class Aside:
    """Puts the runs of one driver aside.

    Args:
        driver: whose runs.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._host = driver.host
        self._due: dict[Run, float] = {}
        self._looked = 0.0
        self._some = asyncio.Semaphore(_AT_ONCE)
        self._log = log.get("aside").bind(workflow=driver.name)

    def watch(self, run: Run) -> None:
        """It waits for something: look later whether it does nothing else."""
        self._due.setdefault(run, time.monotonic() + self._host.node.settings.park_after)

    def forget(self, run: Run) -> None:
        """It is not driven here any more."""
        self._due.pop(run, None)

    def tick(self) -> None:
        """Called many times a second."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        leaving = self._host.draining  # then it need not be taken over
        after = 0.0 if leaving else self._host.node.settings.park_after
        for run in [run for run, due in self._due.items() if leaving or due <= now]:
            waits = run.maker.waits
            if waits is None or not waits.open:
                del self._due[run]  # the next wait brings it back
                continue
            since = max(waits.changed, run.maker.idle_since())
            if now - since < after or not waits.settled():
                self._due[run] = max(since + after, now + _LOOK_EVERY)
            else:
                del self._due[run]
                self._host.caller.spawn(self._put(run))

    async def _put(self, run: Run) -> None:
        try:
            async with self._some:
                await self._put_aside(run)
        except Fenced:  # it has ended, or another drives it
            return
        except CallboardError as error:
            self._log.warning("not_put_aside", run=run.request.run, error=str(error))
            self.watch(run)

    async def _put_aside(self, run: Run) -> None:
        node, waits = self._host.node, run.maker.waits
        assert waits is not None
        if run.lease is None or run.task is None or not waits.settled():
            self.watch(run)
            return
        deadline = run.maker.context.deadline
        if deadline and not run.was_aside:
            subject = subjects.run_timer(run.request.run, "deadline")
            await node.store.stored(subject, b"", timer_head(deadline, run.request.run))
        await node.journal.restate(self._driver.summary(run, "waiting"))
        await node.journal.put_aside(run.lease, self._entry(run, waits))
        if await self._something_came(run, waits):
            await wake(node, run.request.run)
        if run.task is not None:
            run.aside = run.fenced = True
            run.maker.leave()
            run.task.cancel()

    def _entry(self, run: Run, waits: Waits) -> Entry:
        request = run.request
        assert run.lease is not None
        kept = {name: value for name, value in request.headers.items() if name in _KEPT}
        kept |= {H.RUN: request.run, H.SESSION: request.session}
        kept |= {H.CONTENT_TYPE: H.JSON if request.as_json else H.MSGPACK, H.RESUME: f"{request.started:.6f}"}
        if run.maker.context.deadline:
            kept[H.DEADLINE] = f"{run.maker.context.deadline:.3f}"
        return Entry(
            epoch=run.lease.owner.epoch,
            workflow=self._driver.name,
            headers=kept,
            body=request.body,
            waits=list(waits.open),
            awaited=[wait.told() for wait in waits.open.values()],
        )

    async def _something_came(self, run: Run, waits: Waits) -> bool:
        """Whether the journal has what the function has not been given."""
        assert run.lease is not None
        for entry in await self._host.node.journal.read(run.request.run, "*", run.lease.sequence):
            kind = entry.subject.rpartition(".")[2]
            if kind == "signal" and not waits.knows(entry.sequence):
                return True
            if kind == "result" and not run.maker.heard_after(entry.sequence):
                return True
        return not waits.settled()


async def wake(node: Node, run: str) -> bool:
    """Publish the request of a run that is put aside again; False if it is not aside.

    Several wake-ups from one rest are one message.
    """
    found = await node.journal.aside(run)
    if found is None:
        return False
    entry, sequence = found
    head = H.encode([*entry.headers.items(), (H.MESSAGE_ID, f"{run}~{sequence}")])
    await node.store.stored(subjects.request(subjects.token("workflow", entry.workflow)), entry.body, head)
    return True
