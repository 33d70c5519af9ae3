"""Calls executed in this process, without NATS.

Arguments and results are encoded and decoded as on the wire, so that what works here travels there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from callboard.actors import values
from callboard.actors.alone import Alone
from callboard.actors.arguments import encode_arguments
from callboard.actors.called_at import placed
from callboard.actors.failures import call_in_thread, note_path, text_of
from callboard.actors.future import Future, running_loop
from callboard.actors.local_effects import LocalClaim, LocalEffects
from callboard.actors.local_turns import LocalTurns
from callboard.actors.retry import retry_delay
from callboard.actors.scope import Scope, chosen, current
from callboard.actors.speech import LocalLine, Speech
from callboard.infra.errors import (
    CallCancelled,
    CallFailed,
    CallTimeout,
    DependencyFailed,
    InvalidArguments,
    InvalidResult,
)
from callboard.infra.subjects import new_id

if TYPE_CHECKING:
    from callboard.actors.declared import AgentClass, Method
    from callboard.actors.local_state import LocalStates
    from callboard.actors.waits import Kind

T = TypeVar("T")

_THREADS = 1024


class Background:
    """An event loop in a thread of its own, for sync code; started when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: ThreadPoolExecutor | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="callboard-local", daemon=True).start()
            return self._loop

    def threads(self) -> ThreadPoolExecutor:
        """Threads for plain handlers: as many as wait for each other, since each may call the next."""
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="callboard-local")
            return self._threads


background = Background()


class Stage:
    """What all calls of one run share.

    Attributes:
        loop: where handlers run; session: whose run it is.
        makers: where in handlers of other runs it was begun, from the outermost on.
        effects: that the run has had; turns: in the sessions of stateful agents.
        line, speech: what models say in it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.session = chosen.get().session or new_id()
        self.makers = _makers()
        self.effects: LocalEffects = {}
        self.turns = LocalTurns()
        self.line = LocalLine()
        self.speech = Speech(self.line.publish)
        self._instances: dict[AgentClass[Any], Any] = {}

    def instance(self, owner: AgentClass[Any]) -> Any:
        """The run's instance of an agent."""
        if owner not in self._instances:
            self._instances[owner] = owner.create()
        return self._instances[owner]

    @functools.cached_property
    def states(self) -> LocalStates:
        """The managed state of the run's sessions, loaded when an agent has any."""
        from callboard.actors.local_state import LocalStates

        return LocalStates(self.makers)


def _makers() -> tuple[str, ...]:
    """Where this code is, as the ids of the calls made here begin."""
    scope = current.get()
    if scope is None:
        return ()
    outer = scope.maker.makers if isinstance(scope.maker, LocalMaker) else ()
    return (*outer, scope.prefix)


class LocalMaker:
    """Executes calls in this process.

    Args:
        stage: what the calls of the run share.
        path: ``actor.method`` of each call from the workflow down to here.
        depth: of the call whose handler makes the calls, in the run.
    """

    def __init__(self, stage: Stage, path: tuple[str, ...], depth: int = 0) -> None:
        self._stage = stage
        self._depth = depth
        self._loop = stage.loop
        self._path = path
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._open: dict[str, Future[Any]] = {}

    @property
    def makers(self) -> tuple[str, ...]:
        """Where in handlers of other runs this one was begun."""
        return self._stage.makers

    @property
    def line(self) -> LocalLine:
        """How pieces of answers reach whoever made the call."""
        return self._stage.line

    @property
    def speech(self) -> Speech:
        """Where a model's handler tells what it answers."""
        return self._stage.speech

    def spent(self, tokens: int) -> None:
        """Nobody is told."""

    def served(self, model: str, request: object) -> None:
        """Nobody has a choice of engines."""

    @property
    def may_have_begun(self) -> bool:
        """Whether this attempt may have begun before."""
        return False

    @property
    def rank(self) -> float:
        """Whose turn it is at an engine: whoever came first. Unix seconds."""
        return time.time()

    @property
    def of_handler(self) -> bool:
        """Whether it makes the calls of a handler, not of a workflow."""
        return "." in (self._path or ("",))[-1]

    def call(
        self, future_id: str, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Start a call; returns its future at once.

        Raises:
            InvalidArguments: the arguments do not fit.
        """
        encoded = encode_arguments(method, args, kwargs)
        future: Future[Any] = Future(self._loop, future_id, method, self)
        future.deps = tuple(dep.id for dep in encoded.futures)
        for dep in encoded.futures:
            dep.consumers += (future.id,)
        own = chosen.get()
        future.session = own.session or self._stage.session
        future.priority = own.priority or 0
        future.stage = 1 + max((dep.stage for dep in encoded.futures), default=self._depth)
        future.sent = 0.0 if encoded.futures else time.monotonic()
        self._keep(future)
        if self.on_loop():
            self._start(future, encoded)
        else:
            self._loop.call_soon_threadsafe(self._start, future, encoded)
        return future

    def wait(self, future_id: str, kind: Kind) -> Future[Any]:
        """A future for what is no call; whoever asks for it resolves it."""
        future: Future[Any] = Future(self._loop, future_id, cast("Method", kind), self)
        future.session = self._stage.session
        self._keep(future)
        return future

    def on_loop(self) -> bool:
        """Whether this code runs on the event loop of the run."""
        return running_loop() is self._loop

    def remember(self, future_id: str, what: str, make: Callable[[], T]) -> T:
        """Nothing is replayed here: make it."""
        return make()

    def cancel(self, future: Future[Any]) -> None:
        """Stop the handler."""
        task = self._tasks.get(future.id)
        if task is not None:
            task.cancel()

    def end(self) -> None:
        """Whoever made calls here has ended: stop those that are still open."""
        for future in list(self._open.values()):
            future.cancel()

    def _keep(self, future: Future[Any]) -> None:
        self._open[future.id] = future
        future.when_done(self._closed)

    def _closed(self, future: Future[Any]) -> None:
        self._open.pop(future.id, None)
        if not future.cancelled():
            self._depth = max(self._depth, future.stage)

    def _start(self, future: Future[Any], encoded: values.Encoded) -> None:
        task = self._loop.create_task(self._execute(future, encoded))
        self._tasks[future.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(future.id, None))

    async def _execute(self, future: Future[Any], encoded: values.Encoded) -> None:
        try:
            await self._resolve_dependencies(future, encoded)
            value = await self._attempts(future, encoded.body)
        except asyncio.CancelledError:
            if future.done():  # it was cancelled, and this with it
                raise
            text = f"{future.method.where} waited for something that was cancelled"
            self._fail(future, CallCancelled(text, future=future.id))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - every outcome of a handler is the future's
            self._fail(future, error)
        else:
            if not future.done():
                future.set_result(value)

    def _fail(self, future: Future[Any], error: BaseException) -> None:
        if future.done():
            return
        if not isinstance(error, Exception):
            error = CallFailed(f"{future.method.where} raised {text_of(error)}", future=future.id)
        note_path(error, (*self._path, future.method.where))
        future.set_exception(error)
        if future.consumers:
            future.exception()

    async def _resolve_dependencies(self, future: Future[Any], encoded: values.Encoded) -> None:
        if encoded.futures:
            await asyncio.wait(encoded.futures)  # which does not cancel them if this is cancelled
        for dep in encoded.futures:
            error = asyncio.CancelledError() if dep.cancelled() else dep.exception()
            if error is not None:
                how = "was cancelled" if dep.cancelled() else f"failed: {text_of(error)}"
                raise DependencyFailed(
                    f"{future.method.where} was not called: its argument {dep.method.where} {how}",
                    future=future.id,
                    actor=future.method.actor,
                    method=future.method.name,
                    dependency=dep.id,
                ) from error
        encoded.join()
        if encoded.called_at is not None:
            try:
                future.method.signature.check(encoded.body)
            except InvalidArguments as error:
                raise placed(error, encoded.called_at) from error.__cause__
        future.sent = future.sent or time.monotonic()

    async def _attempts(self, future: Future[Any], body: bytes) -> Any:
        while True:
            try:
                return await self._once(future, body)
            except Exception as error:
                delay = retry_delay(future.method.directives, error, future.attempt)
                if delay is None:
                    raise
            await asyncio.sleep(delay)
            future.attempt += 1

    async def _once(self, future: Future[Any], body: bytes) -> Any:
        method = future.method
        arguments = method.signature.decode_arguments(body)
        rules = method.owner.rules if method.owner is not None else None
        async with self._turn(future):
            encoded = await (
                self._ended(future, arguments)
                if rules is None
                else self._stage.states.handle(future, rules, lambda: self._ended(future, arguments))
            )
        future.raw = msgspec.Raw(encoded.body)
        return method.signature.decode_result(encoded.body)

    def _turn(self, future: Future[Any]) -> contextlib.AbstractAsyncContextManager[None]:
        if future.method.owner is None or not future.method.owner.directives.stateful:
            return contextlib.nullcontext()
        return self._stage.turns.turn(future)

    async def _ended(self, future: Future[Any], arguments: dict[str, Any]) -> values.Encoded:
        """What the handler gives, encoded; of an effect what it gave when it happened."""
        method = future.method
        if method.effect is None:
            return await self._limited(future, arguments)
        claim = LocalClaim(self._stage.effects, method, future.id, future.attempt, arguments)
        return await claim.settle(
            lambda: self._limited(future, arguments), lambda: self._reconcile(method, future, arguments)
        )

    async def _reconcile(
        self, method: Method, future: Future[Any], arguments: dict[str, Any]
    ) -> values.Encoded:
        assert method.reconcile is not None
        maker = LocalMaker(self._stage, (*self._path, method.reconcile.where))
        try:
            return encode_result(method, await self._handle(method.reconcile, future, arguments, maker))
        finally:
            maker.end()

    async def _limited(self, future: Future[Any], arguments: dict[str, Any]) -> values.Encoded:
        """Run the handler within its timeout."""
        method = future.method
        timeout = method.directives.timeout
        running = asyncio.timeout(timeout)
        maker = LocalMaker(self._stage, (*self._path, method.where), future.stage)
        try:
            async with running:
                with _items(future):
                    value = await self._handle(method, future, arguments, maker)
            encoded = encode_result(method, value)
            for part in encoded.futures:
                await part
        except TimeoutError as error:
            if not running.expired():
                raise  # the handler's own
            raise CallTimeout(
                f"{method.where} took longer than its timeout of {timeout:g} s", timeout=timeout
            ) from error
        finally:
            maker.end()
        encoded.join()
        return encoded

    async def _handle(
        self, method: Method, future: Future[Any], arguments: dict[str, Any], maker: LocalMaker
    ) -> Any:
        own = Alone(method.where) if method.directives.cpu else maker
        path = future.id if future.attempt == 1 else f"{future.id}~{future.attempt}"
        scope = Scope(own, f"{path}.", sync=not method.is_async)
        function = self._bound(method)
        if method.directives.batchable:
            arguments = {name: [value] for name, value in arguments.items()}
        if method.directives.sandbox is not None:
            from callboard.actors import confine

            body = values.encode(arguments).body
            limits = method.directives.sandbox
            value = await confine.run(method, limits, body, scope.prefix)
        elif method.is_async:
            current.set(scope)  # this task's own context
            value = await function(**arguments)
        else:
            context = contextvars.copy_context()
            context.run(current.set, scope)
            threads = background.threads()
            try:
                value = await self._loop.run_in_executor(
                    threads, context.run, call_in_thread, function, arguments
                )
            except asyncio.CancelledError:
                scope.cancel("cancelled by its maker, its deadline or its timeout")
                raise
        return _single(method, value) if method.directives.batchable else value

    def _bound(self, method: Method) -> Callable[..., Any]:
        if method.owner is None:
            return method.function
        bound: Callable[..., Any] = method.function.__get__(self._stage.instance(method.owner))
        return bound


def _items(future: Future[Any]) -> AbstractContextManager[None]:
    """What a batchable handler finds of its items: here there is one."""
    if not future.method.directives.batchable:
        return nullcontext()
    from callboard.actors.items import serving
    from callboard.state.managed import current as state

    return serving([future.session], [state.get()])


def encode_result(method: Method, value: Any) -> values.Encoded:
    """What a handler or workflow has returned, encoded.

    Raises:
        InvalidResult: it cannot travel.
    """
    try:
        return values.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        text = f"{method.where} returned what cannot travel: {error}"
        raise InvalidResult(text, actor=method.actor, method=method.name) from error


def _single(method: Method, value: Any) -> Any:
    if not isinstance(value, list) or len(value) != 1:
        raise InvalidResult(
            f"{method.where} is batchable: it must return a list with one result for each item",
            actor=method.actor,
            method=method.name,
        )
    if isinstance(value[0], Exception):
        raise value[0]
    return value[0]
