"""Where code is while it runs: which run, which branch of it, and how many calls it has made.

A future's id is ``<run>:<path>``, derived from the place where the call is made, so that the same code
makes the same ids again. In a path, ``7`` is the workflow's seventh call, ``7.2`` the second call made
by the handler of call 7, ``3/2`` the second call made in the concurrent branch (the asyncio task)
numbered 3, and ``7~2.1`` the first call made by the second attempt of call 7.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import hashlib
import random as random_module
import time as time_module
import uuid as uuid_module
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from callboard.infra import subjects
from callboard.infra.errors import CallCancelled

if TYPE_CHECKING:
    from callboard.actors.future import Maker


class Scope:
    """One sequential stretch of code that makes calls.

    Attributes:
        maker: who sends its calls.
        prefix: of the ids made here.
        sync: it runs in a thread, so that futures are handed out as lazy proxies.
        seed: run of which random numbers and UUIDs are drawn, where that is another than the run itself.
    """

    __slots__ = ("_cancelled", "_count", "_random", "maker", "prefix", "seed", "sync")

    def __init__(self, maker: Maker, prefix: str, *, sync: bool = False, seed: str = "") -> None:
        self.maker = maker
        self.prefix = prefix
        self.sync = sync
        self.seed = seed
        self._count = 0
        self._random: random_module.Random | None = None
        self._cancelled = ""

    def cancel(self, reason: str) -> None:
        """Make code that runs here in a thread stop at its next checkpoint."""
        self._cancelled = reason

    def checkpoint(self) -> None:
        """Stop here if the call was cancelled.

        Raises:
            CallCancelled: it was.
        """
        if self._cancelled:
            raise CallCancelled(f"stopped: {self._cancelled}")

    def next_id(self) -> str:
        """The id of the next thing that happens here."""
        self._count += 1
        return f"{self.prefix}{self._count}"

    def branch(self) -> Scope:
        """A scope for code that runs beside this one from here on."""
        return Scope(self.maker, f"{self.next_id()}/", sync=self.sync, seed=self.seed)

    def drawn(self, what: str, place: str) -> bytes:
        """32 bytes that are the same again at a place in the code of a run, and of its forks."""
        if self.seed:
            place = f"{self.seed}:{place.partition(':')[2]}"
        return hashlib.sha256(f"{what}:{place}".encode()).digest()

    def random(self) -> random_module.Random:
        """A generator seeded by the place, so that a replay draws the same numbers."""
        if self._random is None:
            self._random = random_module.Random(self.drawn("random", self.prefix))
        return self._random


current: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("callboard_scope", default=None)


def install_task_factory(loop: asyncio.AbstractEventLoop) -> None:
    """Give every task that code in a scope starts a branch of its own, numbered where it is started.

    Which of two concurrent branches goes on first depends on whose results arrive first; numbering
    their calls together would make other ids on replay. A factory set before is kept.
    """
    if getattr(loop.get_task_factory(), "callboard", False):
        return
    earlier = loop.get_task_factory()

    def factory(
        loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Future[Any]:
        given: contextvars.Context | None = options.get("context")
        scope = current.get() if given is None else given.get(current)
        if scope is not None:
            context = contextvars.copy_context() if given is None else given
            context.run(current.set, scope.branch())
            options["context"] = context
        if earlier is None:
            return asyncio.Task(coro, loop=loop, **options)
        made: asyncio.Future[Any] = earlier(loop, coro, **options)
        return made

    factory.callboard = True  # type: ignore[attr-defined]
    loop.set_task_factory(factory)  # type: ignore[arg-type]


class Options(NamedTuple):
    """What the calls made in a piece of code have of their own; see :func:`options`."""

    priority: int | None = None
    host: str = ""
    session: str = ""


_NONE = Options()
chosen: contextvars.ContextVar[Options] = contextvars.ContextVar("callboard_options", default=_NONE)


@contextlib.contextmanager
def options(
    *, priority: int | None = None, host: str | None = None, session: str | None = None
) -> Iterator[None]:
    """Say more about the calls that are made inside of the ``with`` block.

    Args:
        priority: above 0 is urgent, below 0 can wait; greater goes first.
        host: id of the host that should run them, as long as it lives.
        session: whose calls they are, where that is not the run's own. Without NATS it is also the session
            of workflows that are started inside of the block.

    Raises:
        NameInvalid: the session's id cannot be used, or is too long for an agent to keep something for it.
    """
    if session is not None:
        subjects.session_token(subjects.session_id(session))
    outer = chosen.get()
    inner = Options(
        outer.priority if priority is None else priority,
        outer.host if host is None else host,
        outer.session if session is None else session,
    )
    token = chosen.set(inner)
    try:
        yield
    finally:
        chosen.reset(token)


def checkpoint() -> None:
    """In a blocking handler: stop here if the call was cancelled. Making a call does so too.

    Raises:
        CallCancelled: it was.
    """
    scope = current.get()
    if scope is not None:
        scope.checkpoint()


def now() -> datetime:
    """The time in UTC, the same again when the workflow is replayed.

    Outside of a run it is the plain time.
    """
    scope = current.get()
    unix = (
        time_module.time()
        if scope is None
        else scope.maker.remember(scope.next_id(), "callboard.now", time_module.time)
    )
    return datetime.fromtimestamp(unix, UTC)


def random() -> random_module.Random:
    """A random number generator that draws the same numbers when the workflow is replayed."""
    scope = current.get()
    return random_module.Random() if scope is None else scope.random()


def uuid() -> uuid_module.UUID:
    """A UUID, the same again when the workflow is replayed."""
    scope = current.get()
    if scope is None:
        return uuid_module.uuid4()
    return uuid_module.UUID(bytes=scope.drawn("uuid", scope.next_id())[:16], version=4)
