"""The client: submit workflow requests, wait for results, watch and cancel runs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from callboard.actors import budgeting, values
from callboard.actors.announced import Announced
from callboard.actors.backlog import Backlog
from callboard.actors.ends import Ends
from callboard.actors.events import Event, follow_events
from callboard.actors.failures import restore
from callboard.actors.node import Node
from callboard.actors.runids import store_request
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    ClientClosed,
    InvalidArguments,
    InvalidResult,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    RunIdTaken,
    RunUnknown,
    SettingsInvalid,
    ValueTooLarge,
)
from callboard.infra.messages.budget import Account, Budget
from callboard.infra.messages.control import RunCalls, RunQuery
from callboard.infra.messages.policy import Admission, Route
from callboard.infra.messages.run import Done, RunSummary, Signal
from callboard.infra.settings import Settings
from callboard.state.journal import (
    read_entry,
)

if TYPE_CHECKING:
    from callboard.actors.check import Checked
    from callboard.actors.compare import Diff
    from callboard.actors.declared import Workflow
    from callboard.actors.deleting import Deleted
    from callboard.actors.listening import Piece
    from callboard.actors.replay import Replay, Step
    from callboard.infra.messages.control import Migration
    from callboard.infra.messages.inbox import Question
    from callboard.state.states import States

_ROOM_FOR_HEADERS = 4096

_decode_calls = msgspec.msgpack.Decoder(RunCalls).decode


class Client:
    """A client of the board. Use as ``async with connect() as client``.

    Args:
        settings: with the server's address.
        node: of its own, in the place of a new one.
    """

    def __init__(self, settings: Settings, node: Node | None = None) -> None:
        self._node = node or Node(settings, f"client-{subjects.new_id()[-8:].lower()}")
        self.backlog = Backlog(self._node)
        """Requests that no driver has taken yet."""
        self._ends = Ends(self._node)
        self._announced = Announced()
        self._is_open = False

    async def __aenter__(self) -> Self:
        await self._node.open()
        self._ends.start()
        self._is_open = True
        return self

    @property
    def node(self) -> Node:
        """Its connection, and what stands on it.

        Raises:
            ClientClosed: it is not open yet, or not any more.
        """
        if not self._is_open:
            raise ClientClosed("the client is not open: use it inside of 'async with connect() as client'")
        return self._node

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Idempotent."""
        self._ends.stop()
        try:
            await self._node.close()
        finally:
            self._is_open = False

    @property
    def state(self) -> States:
        """The managed state of sessions: to look at, export, import and delete."""
        from callboard.state.states import States

        return States(self.node.shelf, self.node.settings)

    async def submit(
        self,
        workflow: str,
        arguments: dict[str, Any] | None = None,
        *,
        run: str | None = None,
        session: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
        budget: Budget | None = None,
        key: str | None = None,
        as_json: bool = False,
    ) -> str:
        """Publish a request; returns the run's id once the request is stored.

        Args:
            workflow: its name.
            arguments: by name; msgspec structs, dataclasses and standard types.
            run: an id of your own; the same request with the same id again is the same run.
            session: whose run it is.
            deadline: seconds from now.
            priority: above 0 is urgent, below 0 can wait.
            budget: what the run may spend on models, all of its agents together.
            key: whose budget it is charged to besides, see :meth:`set_budget`; and whose share it runs in,
                under the policy ``fair_share``.
            as_json: they are what JSON can say: bytes as base64, all keys as text; the workflow's annotations
                tell what that stands for. The outcome is stored as JSON, too. Such a request travels whole.

        Raises:
            InvalidArguments: an argument cannot travel, or the workflow has announced that it takes others.
            UnknownActor: an actor of this name is no workflow.
            ValueTooLarge: they are too large.
            RunIdTaken: the id is that of another request: for another workflow or session, or with other
                arguments.
            NameInvalid: the session's id cannot be used.
            BudgetInvalid: the budget cannot be used.
        """
        run_id = subjects.new_id() if run is None else subjects.token("run id", run)
        body, items = await self._request(
            run_id, workflow, arguments or {}, session, deadline, priority, budget, key, as_json=as_json
        )
        if run is not None:
            await store_request(self.node, run_id, workflow, body, H.encode(items), as_json=as_json)
        else:
            self._ends.expect(run_id)
            await self.node.store.stored(subjects.request(workflow), body, H.encode(items))
        return run_id

    async def _request(
        self,
        run: str,
        workflow: str,
        given: dict[str, Any],
        session: str | None,
        deadline: float | None,
        priority: int,
        budget: Budget | None,
        key: str | None,
        *,
        as_json: bool,
    ) -> tuple[bytes, list[tuple[str, str]]]:
        """A request's body and headers; see :meth:`submit`."""
        subjects.token("workflow", workflow)
        if session:
            subjects.session_id(session)
        if deadline is not None and not math.isfinite(deadline):
            text = f"{workflow}: a deadline of {deadline} s: give seconds, or none"
            raise InvalidArguments(text, actor=workflow, method="run")
        if abs(priority) > H.GREATEST:
            text = f"{workflow}: a priority of {priority}: give one from {-H.GREATEST} to {H.GREATEST}"
            raise InvalidArguments(text, actor=workflow, method="run")
        await self._announced.check(self.node, workflow, given)
        try:
            body, blobs = await self._encoded(given, as_json=as_json)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArguments(f"{workflow}: {error}", actor=workflow, method="run") from error
        items = [(H.RUN, run), (H.MESSAGE_ID, run)]
        items.append((H.CONTENT_TYPE, H.JSON if as_json else H.MSGPACK))
        if session:
            items.append((H.SESSION, session))
        if deadline is not None:
            items.append((H.DEADLINE, f"{time.time() + deadline:.3f}"))
        if priority:
            items.append((H.PRIORITY, str(priority)))
        if budget is not None or key is not None:
            items.append((H.BUDGET, await budgeting.charged(self.node, run, budget, key)))
        if blobs:
            items.append((H.BLOBS, ",".join(blobs)))
        return body, items

    async def fork(
        self,
        run: str,
        at: int,
        arguments: dict[str, Any] | None = None,
        *,
        effects: bool = False,
        run_id: str | None = None,
        session: str | None = None,
        deadline: float | None = None,
        priority: int = 0,
        budget: Budget | None = None,
        key: str | None = None,
        as_json: bool | None = None,
    ) -> str:
        """Submit a new run of the same workflow, which begins with the first outcomes of a run as its own.

        What these calls did is not done again, and costs nothing. From there on the new run goes on for real,
        with the code and the actors that hosts have now. ``random()`` and ``uuid()`` draw in it what they
        drew in the old one. Signals that the old run was sent and had not taken by then are not sent to it.

        Managed state is **not** as it was then: agents have what they have in the session now. Where the old
        run was a session by itself, the new one is, too, and begins with none.

        Args:
            run: what is forked; it may go on, and is not changed.
            at: how many outcomes, in the order of the journal: ``Step.number`` of the last one. 0: none.
            arguments: those that are to be others than the run's, by name.
            effects: let effects happen again that the run has begun after this step.
            run_id: an id for the new run, which no run has; the same fork again, whose client died, goes on.
            session, deadline, priority, budget, key: as of :meth:`submit`.
            as_json: as of :meth:`submit`; by default as the run's arguments were.

        Returns:
            the id of the new run.

        Raises:
            ForkRefused: it cannot be forked there; the text says why, and what to do.
            RunUnknown: there is no such run.
            JournalIncomplete: entries of its journal are gone, or its request is.
            RunIdTaken: there is a run of the new id.
            InvalidArguments, UnknownActor, ValueTooLarge, BudgetInvalid: as of :meth:`submit`.
        """
        from callboard.actors.fork import Fork, session_of
        from callboard.actors.record import read

        record = await read(self, run)
        fork = Fork(self.node, record, at)
        own = subjects.new_id() if run_id is None else subjects.token("run id", run_id)
        if run_id is not None and await self._is_there(own):
            raise RunIdTaken(f"there is a run {own} already: nothing was run", run=own, workflow="")
        as_json = record.request.as_json if as_json is None else as_json
        given = await fork.arguments() | (arguments or {})
        session = session_of(record, session)
        body, items = await self._request(
            own, record.workflow, given, session, deadline, priority, budget, key, as_json=as_json
        )
        items.append((H.SEED, record.request.seed))
        await fork.begin(own, effects=effects)
        await store_request(self.node, own, record.workflow, body, H.encode(items), as_json=as_json)
        return own

    async def _is_there(self, run: str) -> bool:
        """Whether there is a run of this id, or its request."""
        return await self.node.journal.owner(run) is not None or await self.backlog.find(run) is not None

    async def _encoded(self, arguments: dict[str, Any], *, as_json: bool) -> tuple[bytes, list[str]]:
        """The body of a request, and the digests of what it refers to."""
        if as_json:
            body = msgspec.json.encode(arguments)
            limit = self.node.connection.max_payload - _ROOM_FOR_HEADERS
            if len(body) > limit:
                text = (
                    f"arguments of {len(body):,} bytes as JSON are more than a message may have ({limit:,})"
                )
                raise ValueTooLarge(f"{text}: send them as msgpack", size=len(body), limit=limit)
            return body, []
        encoded = values.encode(arguments)
        await values.shrink(encoded, self.node.blobs, self.node.settings)
        return encoded.body, encoded.blobs

    async def result(self, run: str, timeout: float | None = None, type: Any = Any) -> Any:  # noqa: A002
        """Wait for a run's result.

        Args:
            timeout: seconds; None waits for ever.
            type: what to decode the value into; plain values by default.

        Raises:
            RunFailed: the workflow raised; the cause is the exception itself.
            RunCancelled: the run was cancelled.
            ResultTimeout: it has not ended in time; it goes on.
            InvalidResult: its value is not of the type.
        """
        done = await self.done(run, timeout)
        if done.status == "completed":
            body = await values.expand(bytes(done.value), done.blobs, self.node.blobs)
            # Not into the type at once: where the request was JSON, bytes came as base64, and keys as text.
            try:
                return msgspec.convert(msgspec.msgpack.decode(body), type, str_keys=True)
            except msgspec.ValidationError as error:
                text = f"run {run} of workflow {done.workflow} gave what is no {_named(type)}: {error}"
                raise InvalidResult(text, actor=done.workflow, method="run") from error
        assert done.error is not None
        cause = restore(done.error)
        if isinstance(cause, RunCancelled):
            raise cause
        raise RunFailed(
            f"run {run} of workflow {done.workflow} failed: {done.error.message}",
            run=run,
            workflow=done.workflow,
        ) from cause

    async def run(
        self,
        workflow: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        type: Any = Any,  # noqa: A002
        **options: Any,
    ) -> Any:
        """Submit and wait for the result; see :meth:`submit` and :meth:`result`."""
        return await self.result(await self.submit(workflow, arguments, **options), timeout, type)

    async def done(self, run: str, timeout: float | None = None) -> Done:
        """Wait for the end of a run, whatever it is.

        Raises:
            ResultTimeout: it has not ended in time; the text says if nothing is known of it.
        """
        subjects.token("run id", run)
        node = self.node
        try:
            return await self._ends.wait(run, timeout)
        except ResultTimeout as late:
            if await node.journal.owner(run) is None and await self.backlog.find(run) is None:
                text = f"nothing is known of run {run} after {timeout:g} s: has it been submitted?"
                raise ResultTimeout(text, run=run, timeout=timeout) from late
            raise

    async def cancel(self, run: str, reason: str = "asked for by a client") -> None:
        """Cancel a run and all its calls, in other agents too. A run that has ended stays as it is.

        Raises:
            RunUnknown: there is no such run.
        """
        if not (await self.status(run)).finished:
            await self.node.journal.put_signal(run, Signal(name="cancel", reason=reason))

    async def signal(self, run: str, name: str, value: Any = None) -> None:
        """Send a run a signal, for which it waits or will; stored when this returns.

        Raises:
            InvalidArguments: the name is taken, or the value cannot travel.
            RunUnknown: there is no such run, or it has ended.
        """
        from callboard.actors.inbox import signal

        await signal(self, run, name, value)

    async def inbox(self, to: str | None = None) -> list[Question]:
        """The open questions, oldest first.

        Args:
            to: only those for this one.
        """
        from callboard.actors.inbox import questions

        return await questions(self, to)

    async def answer(self, question: str, value: Any) -> None:
        """Answer a question; stored when this returns. The first answer that fits counts.

        Args:
            question: its id, or that of a run that has one open question.
            value: what JSON can say, or what the question's type takes.

        Raises:
            QuestionUnknown: it is not open, or somebody has answered it.
            AnswerInvalid: the answer does not fit the question's schema.
        """
        from callboard.actors.inbox import answer

        await answer(self, question, value)

    async def migrate(
        self,
        session: str | Sequence[str],
        actor: str,
        source: str | None = None,
        destination: str | None = None,
        *,
        timeout: float = 60.0,
    ) -> list[Migration]:
        """Move an agent's session, or several, to another host, with the calls that wait for it.

        A call that runs ends first, or is stopped where its method is ``preemptable``.

        Args:
            session: one id, or some.
            source: the host that holds it, by its id or name; if given and another one does, it stays there.
            destination: the host that is to hold it, likewise; by default the least busy other one.
            timeout: seconds; a move that has been asked for goes on after that.

        Returns:
            for each session, where it is and how many calls went after it.

        Raises:
            StateUnknown: the agent has no such session.
            SessionUnmovable: what the agent keeps for it stands in its process.
            NoDestination: no other host serves the agent, or not the one that was named.
            MigrationFailed: somebody else holds it. If there are several, the others have moved.
            ResultTimeout: it has not moved in time.
            RequestTimeout: the host that holds it does not answer; if it is dead, ask again in a second.
        """
        from callboard.actors.moving import migrate

        sessions = [session] if isinstance(session, str) else session
        return await migrate(self.node, sessions, actor, source, destination, timeout)

    async def route(
        self,
        actor: str,
        hosts: str | Mapping[str, float],
        *,
        session: str = "",
        policy: str = "by hand",
        reason: str = "",
        ttl: float | None = None,
        epoch: int = 0,
    ) -> Route:
        """Have calls of an actor go to these hosts, as far as they are there; followed from now on.

        Who holds a session at an agent with managed state keeps it, whatever a route says.

        Args:
            hosts: one, or several with their weights.
            session: only its calls; else all that have no route of their own.
            policy: who decides; reason: why.
            ttl: seconds for which it holds.
            epoch: of the decision; by default greater than any before.

        Raises:
            RouteInvalid: there is no host with a weight above 0.
            RouteOutdated: one of a later epoch is there.
        """
        from callboard.actors.routing import as_weights, put

        decided = Route(actor, as_weights(hosts), session, epoch, policy, reason)
        return await put(self.node, decided, ttl)

    async def routes(self, actor: str | None = None) -> list[Route]:
        """The routes that hold, of all actors or one."""
        from callboard.actors.routing import every

        return await every(self.node, actor)

    async def clear_route(self, actor: str, session: str = "") -> bool:
        """Take an actor's route away, or that of a session at it; whether there was one."""
        from callboard.actors.routing import clear

        return await clear(self.node, actor, session)

    async def delete_session(self, session: str) -> Deleted:
        """Remove what all agents keep for a session, its routes and its priorities; tells what there was.

        Journals and large values of its runs stay until their age, its budget until it is cleared. A call
        that runs for it starts over, with an empty state.

        Raises:
            StateUnknown: there is nothing of it.
            NameInvalid: no session can be called so.
        """
        from callboard.actors.deleting import delete

        return await delete(self.node, session)

    async def admit(
        self, workflow: str, rate: float | None, *, policy: str = "by hand", reason: str = ""
    ) -> Admission | None:
        """Have drivers accept so many requests of a workflow a second, all together; the others wait.

        A request whose deadline comes before its turn ends at once, failed with ``Overloaded``.

        Args:
            rate: requests a second; 0: none, until there is another limit; None: as many as they can.
            policy: who decides; reason: why.

        Raises:
            AdmissionInvalid: the rate is none.
        """
        from callboard.actors.admitting import put

        return await put(self.node, workflow, rate, policy, reason)

    async def set_budget(
        self, budget: Budget, *, session: str | None = None, key: str | None = None, run: str | None = None
    ) -> Account:
        """Say what may be spent on models; what was spent already counts.

        Args:
            budget: its limits, and what happens when it is spent.
            session: of all runs in it that were given it; hosts hear of a first one within 5 s.
            key: of all runs that were submitted with it. run: of that one, submitted with a budget.

        Raises:
            BudgetInvalid: it says nothing usable, or not whose it is.
        """
        return await budgeting.put(self.node, *budgeting.whose(session, key, run), budget)

    async def clear_budget(
        self, *, session: str | None = None, key: str | None = None, run: str | None = None
    ) -> bool:
        """End a budget, and forget what was spent; whether there was one."""
        return await budgeting.clear(self.node, *budgeting.whose(session, key, run))

    async def budgets(self) -> list[Account]:
        """All budgets, with what was spent and what is reserved."""
        return await budgeting.every(self.node)

    async def admissions(self) -> list[Admission]:
        """The limits that hold, by workflow."""
        from callboard.actors.admitting import every

        return await every(self.node)

    async def status(self, run: str) -> RunSummary:
        """How a run stands.

        Raises:
            RunUnknown: there is no such run.
        """
        summary = await self.node.journal.summary(subjects.token("run id", run))
        if summary is not None:
            return summary
        request = await self.backlog.find(run)  # before the journal: it goes when its run has ended
        found = await self.node.journal.owner(run)  # one that has just begun is in its journal only
        if found is None and request is not None:
            workflow = request.subject.rpartition(".")[2]
            session = request.headers.get(H.SESSION) or run
            return RunSummary(run, workflow, "accepted", session=session, started=request.at)
        if found is None:
            raise RunUnknown(f"there is no run {run}; see 'callboard runs'", run=run)
        owner = found[0]
        return RunSummary(
            run,
            owner.workflow,
            "running",
            session=owner.session,
            driver=owner.driver,
            epoch=owner.epoch,
            started=owner.at,
        )

    async def runs(self) -> list[RunSummary]:
        """All runs that are still kept."""
        return await self.node.journal.summaries()

    def events(self, run: str, *, follow: bool = True) -> AsyncIterator[Event]:
        """What has happened in a run, and what happens, until it ends.

        Args:
            follow: wait for more; else stop at what there is.
        """
        return follow_events(self.node, subjects.token("run id", run), follow=follow)

    async def replay(
        self,
        run: str,
        workflow: Workflow[Any, Any],
        *,
        until: int | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Replay:
        """Run the code of a workflow here against the journal of a run: nothing is called, sent or stored.

        Every call gets its outcome on record, and so does every wait and ``now()``; ``random()`` and
        ``uuid()`` draw what they drew. The run itself hears nothing of it: it may go on meanwhile, or have
        ended. What the code does besides its calls, it does.

        Args:
            workflow: the code, as it is now.
            until: give it so many of the outcomes on record only.
            on_step: told of each outcome when the code is given it.

        Raises:
            RunUnknown: there is no such run.
            JournalIncomplete: entries of its journal are gone, or its request is.
            UnknownActor: it is a run of another workflow.
            ValueMissing: its arguments are not stored any more.
        """
        from callboard.actors.replay import replay

        return await replay(self, run, workflow, until=until, on_step=on_step)

    async def check(
        self, *workflows: Workflow[Any, Any], ended: int = 0, patience: float = 10.0
    ) -> list[Checked]:
        """Whether the runs of these workflows that have not ended would go on under this code, by their ids.

        Each is replayed here, as by :meth:`replay`; the runs themselves hear nothing of it.

        Args:
            workflows: the code that is to be deployed.
            ended: also so many of each that have ended, the latest: whether they would go the same way.
            patience: seconds that the code of a run has to come to where the run stands.
        """
        from callboard.actors.check import check

        return await check(self, workflows, ended, patience)

    async def diff(self, run: str, other: str, workflow: Workflow[Any, Any] | None = None) -> Diff:
        """The first step in which two runs differ: its call, its arguments, or what it gave.

        Steps are held against each other by their places in the code. What ``now()`` gave is not compared.

        Args:
            workflow: the code of both, which is replayed to compare the arguments of calls, too: they stand
                in no journal.

        Raises:
            RunUnknown: there is no such run.
            JournalIncomplete: entries of a journal are gone, or the request is.
            UnknownActor: one of them is a run of another workflow than the given one.
        """
        from callboard.actors.compare import compare

        return await compare(self, run, other, workflow)

    def tokens(self, run: str) -> AsyncIterator[Piece]:
        """What models say in a run while they say it, also what was said so far, until the run ends.

        Pieces are not stored: of a run that has ended there are none. A reader that is slower than the models
        by more than a million characters misses some, and is told so (``lost``); results are complete.
        """
        from callboard.actors.hearing import follow_tokens

        return follow_tokens(self, subjects.token("run id", run))

    async def running(self, run: str, wait: float = 0.5) -> list[RunCalls]:
        """The calls of a run that hosts have now: they are asked, and nothing is kept of it.

        Args:
            wait: seconds in which they are to answer.
        """
        subjects.token("run id", run)
        told: list[RunCalls] = []
        connection, inbox = self.node.connection, self.node.connection.inbox()
        sid = connection.subscribe(inbox, lambda _, __, data, ___: _hear(told, data))
        try:
            connection.publish(subjects.control(), msgspec.msgpack.encode(RunQuery(run)), reply=inbox)
            await asyncio.sleep(wait)
        finally:
            connection.unsubscribe(sid)
        return told


def _named(kind: Any) -> str:
    return getattr(kind, "__name__", "") if isinstance(kind, type) else str(kind)


def _hear(told: list[RunCalls], data: bytes) -> None:
    answer = read_entry(_decode_calls, data)
    if answer is not None:
        told.append(answer)


def connect(url: str | None = None, settings: Settings | None = None) -> Client:
    """A client of the server at ``url``, or at ``NATS_URL``. Use with ``async with``."""
    return Client(found(url, settings))


def found(url: str | None, settings: Settings | None) -> Settings:
    """The settings that a client is to have.

    Raises:
        SettingsInvalid: they name no server.
    """
    chosen = settings or Settings.load(nats_url=url)
    if not chosen.nats_url:
        raise SettingsInvalid(
            "no NATS server is given: pass its address or set NATS_URL ('callboard up' starts one)"
        )
    return chosen
