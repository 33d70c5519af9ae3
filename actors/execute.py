"""Running a handler: on the event loop, in a thread, or in a process of its own."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors import confine, values
from callboard.actors.alone import Alone, process_address
from callboard.actors.app import AppUnloadable, own_traceback
from callboard.actors.declared import AgentClass, Method, declaration
from callboard.actors.failures import call_in_thread, describe, restore, text_of
from callboard.actors.scope import Scope, current
from callboard.actors.threads import Threads
from callboard.infra.errors import CallboardError, CallFailed, DeclarationInvalid
from callboard.infra.messages.run import ErrorInfo

if TYPE_CHECKING:
    from pebble import ProcessPool

ASYNC_SLOTS = 256
THREAD_SLOTS = 16


def slots(methods: dict[str, Method], concurrency: int | None) -> int:
    """How many handlers of an actor may run at once."""
    if concurrency is not None:
        return concurrency
    if any(m.directives.cpu for m in methods.values()):
        return os.cpu_count() or 1
    if all(m.is_async for m in methods.values()):
        return ASYNC_SLOTS
    return THREAD_SLOTS


class Executor:
    """Runs the handlers of one actor.

    Args:
        name: of the actor, shown as the threads' name.
        owner: the agent's declaration; None for a tool.
        width: processes at most.
    """

    def __init__(self, name: str, owner: AgentClass[Any] | None, width: int) -> None:
        self._name = name
        self._owner = owner
        self._width = width
        self._instance: Any = None
        self._threads: Threads | None = None
        self._processes: ProcessPool | None = None

    def create(self) -> None:
        """Make the agent's instance. Idempotent.

        Raises:
            AppUnloadable: its constructor raised.
        """
        if self._owner is None or self._instance is not None:
            return
        try:
            self._instance = self._owner.create()
        except CallboardError:
            raise
        except Exception as error:
            raise AppUnloadable(
                f"agent {self._name} cannot be made: {text_of(error)}",
                app=self._name,
                reason="not_made",
                traceback=own_traceback(error),
            ) from error

    @property
    def agent(self) -> Any:
        """The agent's instance; None for a tool."""
        return self._instance

    def close(self) -> None:
        """Let threads end by themselves and end processes. Idempotent."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        if self._processes is not None:
            self._processes.stop()  # type: ignore[no-untyped-call]
            # They end only while somebody waits for them; nobody should have to.
            threading.Thread(target=self._processes.join, name="callboard-end", daemon=True).start()
            self._processes = None

    async def run(self, method: Method, arguments: dict[str, Any], scope: Scope, body: bytes) -> Any:
        """Run a handler to its end.

        Args:
            arguments: by name; body: the same, encoded, for a process.
            scope: where its own calls are made.
        """
        sandbox = method.directives.sandbox
        if sandbox is not None:
            return await confine.run(method, sandbox, body, scope.prefix)
        if method.directives.cpu:
            return await self._in_process(method, body, scope.prefix)
        function = self._bound(method)
        if method.is_async:
            current.set(scope)  # this task's own context
            return await function(**arguments)
        return await self._in_thread(function, arguments, scope)

    def _bound(self, method: Method) -> Callable[..., Any]:
        if method.owner is None:
            return method.function
        bound: Callable[..., Any] = method.function.__get__(self._instance)
        return bound

    async def _in_thread(self, function: Callable[..., Any], arguments: dict[str, Any], scope: Scope) -> Any:
        if self._threads is None:
            self._threads = Threads(f"callboard-{self._name}")
        context = contextvars.copy_context()
        context.run(current.set, scope)
        try:
            work = self._threads.submit(context.run, call_in_thread, function, arguments)
        except RuntimeError as error:
            raise CallFailed(
                f"{self._name} could not be started: {error}; threads that wait for their own calls count, "
                "so make it async, call it less deep, or raise the limit of threads"
            ) from error
        outcome = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            outcome.add_done_callback(_unwanted)
            scope.cancel("cancelled by its maker, its deadline or its timeout")
            work.cancel()
            raise

    async def _in_process(self, method: Method, body: bytes, prefix: str) -> Any:
        work = self._pool().schedule(run_in_process, args=[*process_address(method), body, prefix])
        ok, outcome = await asyncio.wrap_future(work)  # cancelling it ends the process
        if not ok:
            raise restore(msgspec.msgpack.decode(outcome, type=ErrorInfo))
        return method.signature.decode_result(outcome)

    def _pool(self) -> ProcessPool:
        if self._processes is None:
            from pebble import ProcessPool

            context = multiprocessing.get_context("spawn")
            self._processes = ProcessPool(max_workers=self._width, context=context)
        return self._processes


def _unwanted(outcome: asyncio.Future[Any]) -> None:
    """What a thread gives after it was cancelled is looked at, so that asyncio does not complain."""
    if not outcome.cancelled():
        outcome.exception()


def run_in_process(module: str, name: str, method: str, body: bytes, prefix: str) -> tuple[bool, bytes]:
    """In the child: find the handler, run it, and return its encoded result or its exception."""
    found = declaration(getattr(importlib.import_module(module), name))
    if found is None:
        raise DeclarationInvalid(f"{module}.{name} is no actor")
    target = found.methods[method]
    try:
        arguments = target.signature.decode_arguments(body)
        function = target.function
        if isinstance(found, AgentClass):
            function = function.__get__(_instance(found))
        current.set(Scope(Alone(target.where), prefix, sync=True))
        return True, values.encode(function(**arguments)).body
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is its outcome
        return False, msgspec.msgpack.encode(describe(error))


_instances: dict[type, Any] = {}


def _instance(owner: AgentClass[Any]) -> Any:
    if owner.cls not in _instances:
        _instances[owner.cls] = owner.create()
    return _instances[owner.cls]
