"""What each verb of the gateway does: by a client of the board, whatever carries the requests."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version

import msgspec
from msgspec import UNSET

from callboard.actors import registry, values
from callboard.actors.client import Client
from callboard.actors.failures import text_of
from callboard.actors.gateway.exchange import Arguments, Nothing, Options, Reason, Request, error_of
from callboard.actors.gateway.messages import (
    Actors,
    Cancelled,
    Error,
    Health,
    NotStored,
    Outcome,
    RunStatus,
    Submitted,
    subject,
)
from callboard.actors.gateway.waits import Waits
from callboard.actors.gateway.workflows import Workflows
from callboard.actors.node import Node
from callboard.actors.runids import store_request
from callboard.actors.shared import Shared
from callboard.infra import subjects
from callboard.infra.direct import timestamp
from callboard.infra.errors import CallboardError, ResultTimeout
from callboard.infra.messages.registry import Pulse
from callboard.infra.messages.run import Done
from callboard.state.journal import read_entries

_STORED_WITHIN = 5.0
_CANCELLED_WITHIN = 5.0
_HEALTH_WITHIN = 3.0
_AFTER_DEADLINE = 0.5
"""Seconds beyond a run's deadline in which its driver says that it has passed."""
_SLACK = 1.0
_VERSION = version("callboard")

_decode_pulse = msgspec.msgpack.Decoder(Pulse).decode


class Verbs:
    """Answers requests.

    Args:
        client: a client of the node.
        wait: seconds to wait for the end of a run, where a request has no deadline.
        most_waiting: requests that may wait at once.
    """

    def __init__(self, client: Client, node: Node, wait: float, most_waiting: int) -> None:
        self._client = client
        self._node = node
        self._wait = wait
        self._announced = Shared(lambda: registry.actors(self._node))
        self._living = Shared(self._read_living)
        self._workflows = Workflows(self._announced)
        self.waits = Waits(most_waiting)

    # -- submitting --------------------------------------------------------------------------------------

    async def run(self, request: Arguments) -> Outcome:
        """Submit a request and wait for the run's end. Where nobody listens for the answer, only submit."""
        with self.waits.place():
            options, body = await self._read(request)
            if not request.answered:
                await self._store(request, options, body)
                return Outcome(options.run, request.name, "running")
            timeout = options.deadline - time.time() + _AFTER_DEADLINE if options.deadline else self._wait
            # It listens before the request leaves, so that the end cannot be missed.
            ending = asyncio.ensure_future(self._client.done(options.run))
            try:
                work = self._stored_and_done(request, options, body, ending)
                done = await self.waits.within(timeout, work)
            except TimeoutError:
                return self._goes_on(options.run, request.name, timeout)
            finally:
                _let_go(ending)
            return await self._outcome(done)

    async def _stored_and_done(
        self, request: Request, options: Options, body: bytes, ending: asyncio.Future[Done]
    ) -> Done:
        await self._store(request, options, body)
        return await ending

    async def submit(self, request: Arguments) -> Submitted:
        """Submit a request; it is stored when this returns."""
        options, body = await self._read(request)
        await self._store(request, options, body)
        return Submitted(options.run)

    async def _read(self, request: Request) -> tuple[Options, bytes]:
        name = subjects.token("workflow", request.name)
        options = Options(request)
        arguments = request.object()
        await self._workflows.check(name, arguments)
        # JSON stays JSON: only who knows the types can tell what a text in it stands for.
        return options, request.body if arguments else b"{}" if request.as_json else b"\x80"

    async def _store(self, request: Request, options: Options, body: bytes) -> None:
        request.run = options.run
        head = options.headers(as_json=request.as_json)
        try:
            async with asyncio.timeout(_STORED_WITHIN):
                if options.chosen:
                    as_json = request.as_json
                    await store_request(self._node, options.run, request.name, body, head, as_json=as_json)
                else:
                    await self._node.store.stored(subjects.request(request.name), body, head)
        except TimeoutError as error:
            raise NotStored(
                f"JetStream has not acknowledged the request within {_STORED_WITHIN:g} s: send it again with "
                f"Cb-Run: {options.run}, which is one run however often it arrives",
                run=options.run,
                timeout=_STORED_WITHIN,
            ) from error

    # -- runs --------------------------------------------------------------------------------------------

    async def result(self, request: Nothing) -> Outcome:
        """Wait for a run's end; one that is nowhere is told at once."""
        run = request.run = subjects.token("run id", request.name)
        with self.waits.place():
            done = await self._node.journal.done(run)
            if done is None:
                await self._client.status(run)
                options = Options(request)
                timeout = options.deadline - time.time() if options.deadline else self._wait
                try:
                    done = await self.waits.within(timeout, self._client.done(run))
                except TimeoutError:
                    return self._goes_on(run, "", timeout)
        return await self._outcome(done)

    async def status(self, request: Nothing) -> RunStatus:
        """How a run stands."""
        run = request.run = subjects.token("run id", request.name)
        told = await self._client.status(run)
        return RunStatus(
            run=told.run,
            workflow=told.workflow,
            status=told.status,
            session=told.session,
            driver=told.driver,
            epoch=told.epoch,
            started=told.started,
            finished=told.finished,
            calls=told.calls,
            reason=told.error,
        )

    async def cancel(self, request: Reason) -> Cancelled:
        """Cancel a run and all its calls. The body may hold a ``reason``."""
        run = request.run = subjects.token("run id", request.name)
        given = request.object().get("reason")
        standing = await self._client.status(run)
        if standing.status not in {"running", "waiting", "accepted"}:
            return Cancelled(run, standing.status)
        await self._client.cancel(run, given if isinstance(given, str) else "asked for through the gateway")
        try:
            done = await self.waits.within(_CANCELLED_WITHIN, self._client.done(run))
        except TimeoutError:
            return Cancelled(run, "cancelling")
        return Cancelled(run, done.status)

    async def _outcome(self, done: Done) -> Outcome:
        outcome = Outcome(done.run, done.workflow, done.status)
        if done.error is not None:
            outcome.error = error_of(done.error)
        else:
            value = await values.expand(bytes(done.value), done.blobs, self._node.blobs)
            outcome.value = msgspec.Raw(value)
        return outcome

    def _goes_on(self, run: str, workflow: str, timeout: float) -> Outcome:
        why = (
            "this gateway is being stopped"
            if self.waits.ending
            else f"it has not ended after {timeout:.3g} s"
        )
        text = f"run {run} goes on, but {why}: ask again at {subject('result', run)}"
        error = Error(ResultTimeout.code, text, {"run": run, "timeout": timeout}, ResultTimeout.retryable)
        return Outcome(run, workflow or UNSET, "running", error=error)

    # -- the board ---------------------------------------------------------------------------------------

    async def actors(self, request: Nothing) -> Actors:
        """What there is, and which hosts run it."""
        infos, hosts = await asyncio.gather(self._announced(), self._living())
        return Actors(infos, {host.host: sorted(host.instances) for host in hosts})

    async def _read_living(self) -> list[Pulse]:
        """The hosts that have told of themselves lately, by the server's clock."""
        answer = await self._node.topology.api(
            f"STREAM.INFO.{subjects.REGISTRY}"
        )  # first: heartbeats go on meanwhile
        stored = await self._node.reader.read(subjects.REGISTRY, subjects.registry("host.*"))
        oldest = timestamp(str(answer.get("ts", ""))) - self._node.settings.dead_after - _SLACK
        recent = (one for one in stored if one.at > oldest)
        return [pulse for _, pulse in read_entries(_decode_pulse, recent)]

    async def health(self, request: Nothing) -> Health:
        """How the gateway and the board are. Always answers."""
        server = str(self._node.connection.client.info.get("version", ""))
        health = Health("ok", self._node.name, _VERSION, server, len(self.waits))
        try:
            async with asyncio.timeout(_HEALTH_WITHIN):
                health.requests = int((await self._client.backlog.state()).get("messages", 0))
                hosts = await self._living()
        except (TimeoutError, CallboardError) as error:
            health.problems.append(f"JetStream does not answer: {text_of(error)}")
        else:
            health.hosts = len(hosts)
            running = {name for host in hosts for name, one in host.instances.items() if one.workflow}
            health.workflows = sorted(running)
            if not running:
                health.problems.append("no living host drives a workflow")
        health.status = "degraded" if health.problems else "ok"
        return health


def _let_go(ending: asyncio.Future[Done]) -> None:
    """Nobody wants it any more, nor what it raised."""
    if not ending.cancel() and not ending.cancelled():
        ending.exception()
