"""The client for code that is not async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from callboard.actors.client import Client, found

if TYPE_CHECKING:
    from callboard.actors.events import Event
    from callboard.infra.messages.budget import Account, Budget
    from callboard.infra.messages.control import Migration, RunCalls
    from callboard.infra.messages.inbox import Question
    from callboard.infra.messages.policy import Route
    from callboard.infra.messages.run import RunSummary
    from callboard.infra.settings import Settings

T = TypeVar("T")


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


def connect_sync(url: str | None = None, settings: Settings | None = None) -> SyncClient:
    """A client of the server at ``url``, or at ``NATS_URL``, for sync code. Use with ``with``."""
    return SyncClient(found(url, settings))
