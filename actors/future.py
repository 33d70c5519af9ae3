"""A future: the value that a call will give. It behaves as an ``asyncio.Future``, and knows more."""

from __future__ import annotations

import asyncio
import copy
import threading
import typing
from collections.abc import Callable, Iterable
from types import UnionType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

import msgspec
import wrapt

from callboard.actors import values
from callboard.infra.errors import ResultTimeout, WouldBlock
from callboard.infra.messages.run import NIL

if TYPE_CHECKING:
    from callboard.actors.declared import Method

T = TypeVar("T")

_UNSET = NIL
_MANY = (object, Any, UnionType, typing.Annotated)
"""What stands for values of many kinds, although it is a class."""


class Maker(Protocol):
    """Whoever makes futures: a run, a handler that makes calls, or the local runtime."""

    def call(
        self, future_id: str, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Make a call; returns at once."""
        ...

    def remember(self, future_id: str, what: str, make: Callable[[], T]) -> T:
        """A value made once and found again on replay."""
        ...

    def cancel(self, future: Future[Any]) -> None:
        """The future was cancelled here; stop the call."""
        ...


class FutureInfo(msgspec.Struct, frozen=True):
    """What is known of a future.

    Attributes:
        state: ``waiting`` (for dependencies), ``sent``, ``done``, ``failed`` or ``cancelled``.
        dependencies: ids of the futures among its arguments.
        creator: who made it; executor: who ran it, or where it is slated to run; empty: anyone.
        consumers: ids of the futures that have it among their arguments.
        stage: depth in the run, from 1.
        attempt: of the outcome, from 1.
    """

    future: str
    call: str
    state: str
    dependencies: tuple[str, ...]
    creator: str
    executor: str
    consumers: tuple[str, ...]
    session: str
    stage: int
    priority: int
    attempt: int


class Future(asyncio.Future[T]):
    """The value that a call will give; made by calling a stub, never directly.

    ``await`` it, pass it on as an argument of another call before it is there, or hand it to
    ``asyncio.wait``, ``gather`` and ``as_completed``. Cancelling it cancels the call on its host.
    """

    __slots__ = (
        "attempt",
        "blobs",
        "body",
        "consumers",
        "creator",
        "deps",
        "executor",
        "id",
        "maker",
        "message_id",
        "method",
        "placed",
        "policy",
        "priority",
        "ranked",
        "raw",
        "sent",
        "session",
        "stage",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, future_id: str, method: Method, maker: Maker) -> None:
        super().__init__(loop=loop)
        self.id = future_id
        self.method = method
        self.maker = maker
        self.deps: tuple[str, ...] = ()
        self.consumers: tuple[str, ...] = ()
        self.raw: bytes | msgspec.Raw = _UNSET
        self.blobs: list[str] | tuple[str, ...] = ()
        self.body: values.Encoded | None = None
        self.sent = 0.0  # monotonic seconds
        self.message_id = future_id  # under which it was last sent
        self.stage = 1
        self.attempt = 1
        self.executor = ""
        self.policy = 0  # epoch of the route by which it has its executor
        self.placed = ""  # why that route has given it this executor
        self.ranked = 0  # epoch of the decision that gave it its priority
        self.creator = ""
        self.session = ""
        self.priority = 0

    @property
    def arg(self) -> T:
        """This future itself, typed as its value: for passing it on under a type checker."""
        return cast("T", self)

    @property
    def metadata(self) -> FutureInfo:
        """What is known of it now."""
        return FutureInfo(
            self.id,
            self.method.where,
            self._state_name(),
            self.deps,
            self.creator,
            self.executor,
            self.consumers,
            self.session,
            self.stage,
            self.priority,
            self.attempt,
        )

    def _state_name(self) -> str:
        if self.cancelled():
            return "cancelled"
        if self.done():
            return "failed" if self.exception() is not None else "done"
        return "sent" if self.sent else "waiting"

    def available(self) -> bool:
        """Whether the outcome is there; never blocks."""
        return self.done()

    def value(self, timeout: float | None = None) -> T:
        """The value; from a thread this waits for it.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            ResultTimeout: it is not there in time; the call goes on.
            WouldBlock: called on the event loop before the value was there.
        """
        if not self.done():
            self._wait(timeout)
        return self.result()

    def when_done(self, callback: Callable[[Self], object]) -> None:
        """Call back when the outcome is there, without being one who waits for it."""
        asyncio.Future.add_done_callback(self, callback)

    def _wait(self, timeout: float | None) -> None:
        loop = self.get_loop()
        if running_loop() is loop:
            raise WouldBlock(
                f"{self.method.where} ({self.id}) has no value yet, and waiting here would block the event "
                "loop: 'await' the future, or make the workflow a plain 'def'"
            )
        there = threading.Event()

        def tell(_: Any) -> None:
            there.set()

        loop.call_soon_threadsafe(self.add_done_callback, tell)
        if not there.wait(timeout):
            loop.call_soon_threadsafe(self.remove_done_callback, tell)
            raise ResultTimeout(
                f"{self.method.where} ({self.id}) has no value after {timeout:g} s",
                future=self.id,
                timeout=timeout,
            )

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the call, here and on its host; False if the outcome is there already."""
        if self.done():
            return False
        loop = self.get_loop()
        if running_loop() is loop:
            return self._cancel_here(msg)
        loop.call_soon_threadsafe(self._cancel_here, msg)
        return True

    def _cancel_here(self, msg: Any) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self.maker.cancel(self)
        return cancelled

    def reprioritize(self, priority: int) -> bool:
        """Change its priority; False if the call has been sent already.

        Args:
            priority: above 0 is urgent, below 0 can wait; greater goes first.
        """
        if self.sent or self.done():
            return False
        self.priority = priority
        return True

    def __format__(self, spec: str) -> str:
        return str(self)

    def __str__(self) -> str:
        raise TypeError(f"{self!r} is put into a text before its value is there: 'await' it first")

    def __repr__(self) -> str:
        return f"<Future {self.id} {self.method.where} {self._state_name()}>"


class LazyValue(wrapt.LazyObjectProxy[Any]):
    """What a sync workflow gets for a call: the value itself, waited for when it is first touched.

    ``value``, ``available``, ``cancel``, ``add_done_callback`` and ``metadata`` are the future's; all
    else is the value's.
    """

    def __new__(cls, future: Future[Any]) -> Self:
        """With those special methods that are looked up before the value can be asked."""
        return super().__new__(cls, interface=_interface(future.method.signature.result_type))

    def __init__(self, future: Future[Any]) -> None:
        super().__init__(future.value)
        self._self_future = future

    def value(self, timeout: float | None = None) -> Any:
        """The value itself, waited for; see :meth:`Future.value`."""
        return self._self_future.value(timeout)

    def __travelling__(self) -> Any:
        return self.value()

    def available(self) -> bool:
        """Whether the outcome is there."""
        return self._self_future.available()

    def cancel(self) -> bool:
        """Cancel the call."""
        return self._self_future.cancel()

    def add_done_callback(self, callback: Callable[[Future[Any]], None]) -> None:
        """Call back, on the event loop, with the future when the outcome is there."""
        future = self._self_future
        future.get_loop().call_soon_threadsafe(future.when_done, callback)

    @property
    def metadata(self) -> FutureInfo:
        """What is known of the future."""
        return self._self_future.metadata

    @property
    def arg(self) -> Any:
        """This lazy value itself: type checkers, who see a future here, see its value then."""
        return self

    def __repr__(self) -> str:  # the value's: a list of lazy values must read like a list of values
        return repr(self.value())

    def __copy__(self) -> Any:
        return copy.copy(self.value())

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.value(), memo)

    def __reduce__(self) -> Any:
        return _same, (self.value(),)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()


def _same(value: Any) -> Any:
    return value


def _interface(annotation: Any) -> type:
    """The class whose special methods a value of this annotation may have."""
    kind = typing.get_origin(annotation) or annotation
    return kind if isinstance(kind, type) and kind not in _MANY else Iterable


def as_future(value: Any) -> Future[Any] | None:
    """The future that a value stands for, or None."""
    kind = type(value)
    if issubclass(kind, LazyValue):  # wrapt makes a class of its own for each interface
        return cast("Future[Any]", value._self_future)  # noqa: SLF001 - its other half
    return value if issubclass(kind, Future) else None


values.recognise(as_future)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop on which this code runs, if it does on any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
