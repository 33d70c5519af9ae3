"""The client: submit workflow requests, wait for results, watch and cancel runs. Async and sync."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from callboard.actors import values
from callboard.actors.backlog import Backlog
from callboard.actors.failures import restore
from callboard.actors.node import Node
from callboard.actors.runids import store_request
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import Stored
from callboard.infra.errors import (
    CallboardError,
    InvalidArguments,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    RunUnknown,
    SettingsInvalid,
    ValueTooLarge,
)
from callboard.infra.messages.control import RunCalls, RunQuery
from callboard.infra.messages.policy import Route
from callboard.infra.messages.run import NIL, Done, Intent, Pending, RunSummary, Signal
from callboard.infra.settings import Settings
from callboard.state.journal import (
    decode_done,
    decode_owner,
    decode_signal,
    read_done,
    read_entry,
    read_results,
)

if TYPE_CHECKING:
    from callboard.infra.messages.control import Migration
    from callboard.infra.messages.inbox import Question
    from callboard.state.states import States

T = TypeVar("T")
_ASK_EVERY = 5.0
_ENDS = 10_000
_ROOM_FOR_HEADERS = 4096
_JSON = b"application/json"

_decode_calls = msgspec.msgpack.Decoder(RunCalls).decode
_DECODERS: dict[str, Callable[[bytes], msgspec.Struct]] = {
    "owner": decode_owner,
    "signal": decode_signal,
    "intent": msgspec.msgpack.Decoder(Intent).decode,
    "pending": msgspec.msgpack.Decoder(Pending).decode,
}


class Event(msgspec.Struct, omit_defaults=True):
    """Something that happened in a run.

    Attributes:
        kind: ``owner``, ``pending``, ``intent``, ``attempt``, ``result``, ``signal`` or ``done``.
        sequence: its place in the journal; at: unix seconds.
        data: the entry's body as plain values; a value is left out.
    """

    kind: str
    sequence: int
    at: float
    data: dict[str, Any] = {}


class _End:
    """The end of a run that this client has submitted or waits for."""

    __slots__ = ("done", "sid", "waiters")

    def __init__(self) -> None:
        self.sid = 0
        self.done: Done | None = None
        self.waiters: list[asyncio.Future[Done]] = []


class Client:
    """A client of the board. Use as ``async with connect() as client``.

    Args:
        settings: with the server's address.
    """

    def __init__(self, settings: Settings) -> None:
        self.node = Node(settings, f"client-{subjects.new_id()[-8:].lower()}")
        self._backlog = Backlog(self.node)
        self._ends: dict[str, _End] = {}
        self._reconnected = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.node.open()
        self.node.connection.on_reconnect(self._reconnected.set)
        self._asking = asyncio.get_running_loop().create_task(self._ask())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Idempotent."""
        if self._asking is not None:
            self._asking.cancel()
        await self.node.close()

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
            as_json: they are what JSON can say: bytes as base64, all keys as text; the workflow's annotations
                tell what that stands for. The outcome is stored as JSON, too. Such a request travels whole.

        Raises:
            InvalidArguments: an argument cannot travel.
            ValueTooLarge: they are too large.
            RunIdTaken: the id is that of another request: for another workflow, or with other arguments.
        """
        subjects.token("workflow", workflow)
        run_id = subjects.token("run id", run) if run else subjects.new_id()
        try:
            body, blobs = await self._encoded(arguments or {}, as_json=as_json)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArguments(f"{workflow}: {error}", actor=workflow, method="run") from error
        items = [(H.RUN, run_id), (H.MESSAGE_ID, run_id)]
        items.append((H.CONTENT_TYPE, H.JSON if as_json else H.MSGPACK))
        if session:
            items.append((H.SESSION, session))
        if deadline is not None:
            items.append((H.DEADLINE, f"{time.time() + deadline:.3f}"))
        if priority:
            items.append((H.PRIORITY, str(priority)))
        if blobs:
            items.append((H.BLOBS, ",".join(blobs)))
        if not run:  # nobody else can have made this run, so that its end is heard from here on
            self._expect(run_id)
            while len(self._ends) > _ENDS and (unawaited := self._oldest_unawaited()):
                self._forget(unawaited)
        if run:
            await store_request(self.node, run_id, workflow, body, H.encode(items), as_json=as_json)
        else:
            await self.node.store.stored(subjects.request(workflow), body, H.encode(items))
        return run_id

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

    def _expect(self, run: str) -> _End:
        """Hear of the end of a run from its journal, the moment it is stored."""
        end = self._ends.get(run)
        if end is None:
            end = self._ends[run] = _End()
            end.sid = self.node.connection.subscribe(subjects.journal(run, "done"), self._on_end)
        return end

    def _on_end(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        try:
            done = decode_done(data, {H.CONTENT_TYPE: H.JSON} if head and _JSON in head else {})
        except (ValueError, RecursionError):
            return  # anybody can publish there
        self._ended(done.run, done)

    def _ended(self, run: str, done: Done) -> None:
        end = self._ends.get(run)
        if end is None:
            return
        if end.sid:
            self.node.connection.unsubscribe(end.sid)
        end.done = done
        for waiter in end.waiters:
            if not waiter.done():
                waiter.set_result(done)
        if end.waiters:
            del self._ends[run]

    def _oldest_unawaited(self) -> str | None:
        return next((run for run, end in self._ends.items() if not end.waiters), None)

    def _forget(self, run: str) -> None:
        end = self._ends.pop(run, None)
        if end is not None and end.done is None and end.sid:
            self.node.connection.unsubscribe(end.sid)

    async def _ask(self) -> None:
        """Such news can be lost with a connection, so the journal is asked too, now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reconnected.wait(), _ASK_EVERY)
            self._reconnected.clear()
            for run in [run for run, end in self._ends.items() if end.waiters and end.done is None]:
                try:
                    done = await self.node.journal.done(run)
                except CallboardError:  # asked again the next time
                    continue
                if done is not None:
                    self._ended(run, done)

    async def result(self, run: str, timeout: float | None = None, type: Any = Any) -> Any:  # noqa: A002
        """Wait for a run's result.

        Args:
            timeout: seconds; None waits for ever.
            type: what to decode the value into; plain values by default.

        Raises:
            RunFailed: the workflow raised; the cause is the exception itself.
            RunCancelled: the run was cancelled.
            ResultTimeout: it has not ended in time; it goes on.
        """
        done = await self.done(run, timeout)
        if done.status == "completed":
            body = await values.expand(bytes(done.value), done.blobs, self.node.blobs)
            # Not into the type at once: where the request was JSON, bytes came as base64, and keys as text.
            return msgspec.convert(msgspec.msgpack.decode(body), type, str_keys=True)
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
        **options: Any,
    ) -> Any:
        """Submit and wait for the result; see :meth:`submit` and :meth:`result`."""
        return await self.result(await self.submit(workflow, arguments, **options), timeout)

    async def done(self, run: str, timeout: float | None = None) -> Done:
        """Wait for the end of a run, whatever it is.

        Raises:
            ResultTimeout: it has not ended in time.
        """
        subjects.token("run id", run)
        submitted_here = run in self._ends
        end = self._expect(run)
        if not submitted_here and end.done is None:
            known = await self.node.journal.done(run)
            if known is not None:
                self._ended(run, known)
        if end.done is not None:
            self._ends.pop(run, None)
            return end.done
        waiter: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        end.waiters.append(waiter)
        try:
            if timeout is None:
                return await waiter
            return await asyncio.wait_for(waiter, timeout)
        except TimeoutError as error:
            raise ResultTimeout(
                f"run {run} has not ended after {timeout:g} s: it goes on; see 'callboard show {run}'",
                run=run,
                timeout=timeout,
            ) from error
        finally:
            end.waiters.remove(waiter)
            if not end.waiters and self._ends.get(run) is end:
                self._forget(run)

    async def cancel(self, run: str, reason: str = "asked for by a client") -> None:
        """Cancel a run and all its calls, in other agents too. A run that has ended stays as it is."""
        subjects.token("run id", run)
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
            QuestionUnknown: it is not open.
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
            source: the host that holds it; if given and another one does, it stays there.
            destination: the host that is to hold it; by default the least busy other one.
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

    async def status(self, run: str) -> RunSummary:
        """How a run stands.

        Raises:
            RunUnknown: there is no such run.
        """
        summary = await self.node.journal.summary(subjects.token("run id", run))
        if summary is not None:
            return summary
        request = await self._backlog.find(run)  # before the journal: it goes when its run has ended
        found = await self.node.journal.owner(run)  # one that has just begun is in its journal only
        if found is None and request is not None:
            workflow = request.subject.rpartition(".")[2]
            session = request.headers.get(H.SESSION, "")
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

    async def events(self, run: str, *, follow: bool = True) -> AsyncIterator[Event]:
        """What has happened in a run, and what happens, until it ends.

        Args:
            follow: wait for more; else stop at what there is.
        """
        subjects.token("run id", run)
        news = asyncio.Event()
        sid = self.node.connection.subscribe(subjects.journal(run, ">"), lambda *_: news.set())
        after = 0
        try:
            while True:
                news.clear()
                for entry in await self.node.journal.read(run, ">", after):
                    after = entry.sequence
                    for event in _events(entry):
                        yield event
                        if event.kind == "done" and follow:
                            return
                if not follow:
                    return
                try:
                    await asyncio.wait_for(news.wait(), 5.0)
                except TimeoutError:
                    continue
        finally:
            self.node.connection.unsubscribe(sid)

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


def _hear(told: list[RunCalls], data: bytes) -> None:
    answer = read_entry(_decode_calls, data)
    if answer is not None:
        told.append(answer)


def _events(entry: Stored) -> list[Event]:
    """What an entry tells; nothing if it is none: anybody can publish there."""
    kind = entry.subject.split(".")[3]
    said: Sequence[msgspec.Struct]
    if kind in {"result", "attempt"}:
        said = read_results(entry.body)
    elif kind == "done":
        said = [done] if (done := read_done(entry)) else []
    else:
        one = read_entry(_DECODERS[kind], entry.body) if kind in _DECODERS else None
        said = [one] if one is not None else []
    return [Event(kind, entry.sequence, entry.at, _plain(one)) for one in said]


def _plain(entry: msgspec.Struct) -> dict[str, Any]:
    """An entry as plain values, its own value left out."""
    if hasattr(entry, "value"):
        entry = msgspec.structs.replace(entry, value=NIL)
    plain: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(entry))
    plain.pop("value", None)
    return plain


class SyncClient:
    """The client for sync code; use as ``with connect_sync() as client``. Safe to use from threads.

    Args:
        settings: with the server's address.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="callboard-client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._client = self._wait(self._open())
        except BaseException:
            self._end()
            raise
        return self

    async def _open(self) -> Client:
        return await Client(self._settings).__aenter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._client.close())
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def submit(self, workflow: str, arguments: dict[str, Any] | None = None, **options: Any) -> str:
        """See :meth:`Client.submit`."""
        return self._wait(self._client.submit(workflow, arguments, **options))

    def result(self, run: str, timeout: float | None = None, type: Any = Any) -> Any:  # noqa: A002
        """See :meth:`Client.result`."""
        return self._wait(self._client.result(run, timeout, type))

    def run(self, workflow: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        """See :meth:`Client.run`."""
        return self._wait(self._client.run(workflow, arguments, **options))

    def cancel(self, run: str, reason: str = "asked for by a client") -> None:
        """See :meth:`Client.cancel`."""
        self._wait(self._client.cancel(run, reason))

    def signal(self, run: str, name: str, value: Any = None) -> None:
        """See :meth:`Client.signal`."""
        self._wait(self._client.signal(run, name, value))

    def inbox(self, to: str | None = None) -> list[Question]:
        """See :meth:`Client.inbox`."""
        return self._wait(self._client.inbox(to))

    def answer(self, question: str, value: Any) -> None:
        """See :meth:`Client.answer`."""
        self._wait(self._client.answer(question, value))

    def migrate(
        self,
        session: str | Sequence[str],
        actor: str,
        source: str | None = None,
        destination: str | None = None,
        *,
        timeout: float = 60.0,
    ) -> list[Migration]:
        """See :meth:`Client.migrate`."""
        return self._wait(self._client.migrate(session, actor, source, destination, timeout=timeout))

    def route(self, actor: str, hosts: str | Mapping[str, float], **options: Any) -> Route:
        """See :meth:`Client.route`."""
        return self._wait(self._client.route(actor, hosts, **options))

    def routes(self, actor: str | None = None) -> list[Route]:
        """See :meth:`Client.routes`."""
        return self._wait(self._client.routes(actor))

    def clear_route(self, actor: str, session: str = "") -> bool:
        """See :meth:`Client.clear_route`."""
        return self._wait(self._client.clear_route(actor, session))

    def status(self, run: str) -> RunSummary:
        """See :meth:`Client.status`."""
        return self._wait(self._client.status(run))

    def runs(self) -> list[RunSummary]:
        """See :meth:`Client.runs`."""
        return self._wait(self._client.runs())

    def running(self, run: str, wait: float = 0.5) -> list[RunCalls]:
        """See :meth:`Client.running`."""
        return self._wait(self._client.running(run, wait))

    def events(self, run: str, *, follow: bool = True) -> Iterator[Event]:
        """See :meth:`Client.events`."""
        events = self._client.events(run, follow=follow)
        try:
            while True:
                try:
                    yield self._wait(anext(events))  # type: ignore[arg-type]
                except StopAsyncIteration:
                    return
        finally:
            if self._loop.is_running():
                self._wait(events.aclose())  # type: ignore[attr-defined]


def connect(url: str | None = None, settings: Settings | None = None) -> Client:
    """A client of the server at ``url``, or at ``NATS_URL``. Use with ``async with``."""
    return Client(_settings(url, settings))


def connect_sync(url: str | None = None, settings: Settings | None = None) -> SyncClient:
    """The same for sync code. Use with ``with``."""
    return SyncClient(_settings(url, settings))


def _settings(url: str | None, settings: Settings | None) -> Settings:
    found = settings or Settings.load(nats_url=url)
    if not found.nats_url:
        raise SettingsInvalid(
            "no NATS server is given: pass its address or set NATS_URL ('callboard up' starts one)"
        )
    return found
