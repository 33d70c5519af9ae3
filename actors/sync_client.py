"""The client for code that is not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from callboard.actors.client import Client, found
from callboard.infra.errors import ClientClosed

if TYPE_CHECKING:
    from callboard.actors.check import Checked
    from callboard.actors.compare import Diff
    from callboard.actors.declared import Workflow
    from callboard.actors.deleting import Deleted
    from callboard.actors.events import Event
    from callboard.actors.listening import Piece
    from callboard.actors.replay import Replay
    from callboard.infra.messages.budget import Account, Budget
    from callboard.infra.messages.control import Migration, RunCalls
    from callboard.infra.messages.inbox import Question
    from callboard.infra.messages.policy import Admission, Route
    from callboard.infra.messages.run import Done, RunSummary
    from callboard.infra.settings import Settings
    from callboard.state.states import CommitInfo, Export, StateInfo, States, StateView

T = TypeVar("T")


class SyncClient:
    """The client for sync code; use as ``with connect_sync() as client``. Safe to use from threads.

    Args:
        settings: with the server's address.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: Client | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="callboard-client", daemon=True)
        self._thread.start()
        try:
            self._opened = self._wait(self._open())
        except BaseException:
            self._end()
            raise
        return self

    async def _open(self) -> Client:
        return await Client(self._settings).__aenter__()

    @property
    def _client(self) -> Client:
        if self._opened is None:
            raise ClientClosed("the client is not open: use it inside of 'with connect_sync() as client'")
        return self._opened

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._opened = self._client, None
        self._wait(client.close())
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

    def done(self, run: str, timeout: float | None = None) -> Done:
        """See :meth:`Client.done`."""
        return self._wait(self._client.done(run, timeout))

    def fork(self, run: str, at: int, arguments: dict[str, Any] | None = None, **options: Any) -> str:
        """See :meth:`Client.fork`."""
        return self._wait(self._client.fork(run, at, arguments, **options))

    def replay(self, run: str, workflow: Workflow[Any, Any], **options: Any) -> Replay:
        """See :meth:`Client.replay`; the code runs in the client's thread."""
        return self._wait(self._client.replay(run, workflow, **options))

    def check(self, *workflows: Workflow[Any, Any], **options: Any) -> list[Checked]:
        """See :meth:`Client.check`; the code runs in the client's thread."""
        return self._wait(self._client.check(*workflows, **options))

    def diff(self, run: str, other: str, workflow: Workflow[Any, Any] | None = None) -> Diff:
        """See :meth:`Client.diff`."""
        return self._wait(self._client.diff(run, other, workflow))

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

    def delete_session(self, session: str) -> Deleted:
        """See :meth:`Client.delete_session`."""
        return self._wait(self._client.delete_session(session))

    def admit(self, workflow: str, rate: float | None, **options: Any) -> Admission | None:
        """See :meth:`Client.admit`."""
        return self._wait(self._client.admit(workflow, rate, **options))

    def admissions(self) -> list[Admission]:
        """See :meth:`Client.admissions`."""
        return self._wait(self._client.admissions())

    @property
    def state(self) -> SyncStates:
        """See :attr:`Client.state`."""
        return SyncStates(self._wait(self._states()), self._wait)

    async def _states(self) -> States:
        return self._client.state  # made where its event loop runs

    def set_budget(self, budget: Budget, **whose: str) -> Account:
        """See :meth:`Client.set_budget`."""
        return self._wait(self._client.set_budget(budget, **whose))

    def clear_budget(self, **whose: str) -> bool:
        """See :meth:`Client.clear_budget`."""
        return self._wait(self._client.clear_budget(**whose))

    def budgets(self) -> list[Account]:
        """See :meth:`Client.budgets`."""
        return self._wait(self._client.budgets())

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
        return self._each(self._client.events(run, follow=follow))

    def tokens(self, run: str) -> Iterator[Piece]:
        """See :meth:`Client.tokens`."""
        return self._each(self._client.tokens(run))

    def _each(self, found: AsyncIterator[T]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self._wait(anext(found))  # type: ignore[arg-type]
                except StopAsyncIteration:
                    return
        finally:
            if self._loop.is_running():
                self._wait(found.aclose())  # type: ignore[attr-defined]


class SyncStates:
    """The managed state of sessions, for sync code."""

    def __init__(self, states: States, wait: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._states = states
        self._wait = wait

    def all(self, actor: str | None = None) -> list[StateInfo]:
        """See :meth:`States.all`."""
        found: list[StateInfo] = self._wait(self._states.all(actor))
        return found

    def show(self, actor: str, session: str, version: int | None = None) -> StateView:
        """See :meth:`States.show`."""
        view: StateView = self._wait(self._states.show(actor, session, version))
        return view

    def history(self, actor: str, session: str) -> list[CommitInfo]:
        """See :meth:`States.history`."""
        commits: list[CommitInfo] = self._wait(self._states.history(actor, session))
        return commits

    def export(self, actor: str, session: str, version: int | None = None) -> Export:
        """See :meth:`States.export`."""
        document: Export = self._wait(self._states.export(actor, session, version))
        return document

    def import_(self, document: Export, *, replace: bool = False) -> int:
        """See :meth:`States.import_`."""
        version: int = self._wait(self._states.import_(document, replace=replace))
        return version

    def delete(self, actor: str, session: str) -> None:
        """See :meth:`States.delete`."""
        self._wait(self._states.delete(actor, session))


def connect_sync(url: str | None = None, settings: Settings | None = None) -> SyncClient:
    """A client of the server at ``url``, or at ``NATS_URL``, for sync code. Use with ``with``."""
    return SyncClient(found(url, settings))
