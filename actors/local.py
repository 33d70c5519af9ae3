"""Running without NATS: what is called outside of any run is executed in this process."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from callboard.actors import values
from callboard.actors.arguments import encode_arguments
from callboard.actors.future import LazyValue, running_loop
from callboard.actors.local_maker import LocalMaker, Stage, background, encode_result
from callboard.actors.scope import Scope, current
from callboard.infra.errors import (
    CallMisplaced,
    DeadlineExceeded,
)
from callboard.infra.subjects import new_id

if TYPE_CHECKING:
    from callboard.actors.declared import Method


_on_board = False


def leave_to_board() -> None:
    """From now on this process is a host's: what is called outside of any run is a mistake, and refused."""
    global _on_board  # noqa: PLW0603 - the process as a whole is a host's
    _on_board = True


def _not_on_board(method: Method) -> None:
    if _on_board:
        raise CallMisplaced(
            f"{method.where} was called outside of any run: a thread or executor of your own does not know "
            "whose calls it makes; make them in the workflow or handler itself, or by asyncio.to_thread",
            actor=method.actor,
            method=method.name,
        )


def call(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call from outside of any run: a future in async code, a lazy value in sync code.

    Raises:
        CallMisplaced: this process is a host's.
    """
    _not_on_board(method)
    loop = running_loop()
    maker = LocalMaker(Stage(loop or background.loop()), ())
    future = maker.call(f"{new_id()}:1", method, args, kwargs)
    return future if loop else LazyValue(future)


def run(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A workflow from outside of any run; a coroutine if it is async.

    Raises:
        CallMisplaced: this process is a host's.
    """
    _not_on_board(method)
    arguments = method.signature.decode_arguments(encode_arguments(method, args, kwargs).body)
    if method.is_async:
        return _run_async(method, arguments)
    return _run_sync(method, arguments)


def _run_sync(method: Method, arguments: dict[str, Any]) -> Any:
    maker = LocalMaker(Stage(background.loop()), (method.actor,))
    scope = Scope(maker, f"{new_id()}:", sync=True)
    over = threading.Event()

    def end() -> None:
        over.set()
        scope.cancel("its deadline has passed")
        maker.end()

    timer = threading.Timer(method.directives.timeout or 0.0, end)
    timer.daemon = True
    if method.directives.timeout is not None:
        timer.start()
    try:
        value = contextvars.copy_context().run(_in_scope, scope, method.function, arguments)
        encoded = encode_result(method, value)
        for part in encoded.futures:
            part.value()
    except (Exception, asyncio.CancelledError) as error:
        if over.is_set():
            raise _too_late(method) from error
        raise
    finally:
        timer.cancel()
        maker.end()
    if over.is_set():
        raise _too_late(method)
    return _resolved(method, value, encoded)


async def _run_async(method: Method, arguments: dict[str, Any]) -> Any:
    maker = LocalMaker(Stage(asyncio.get_running_loop()), (method.actor,))
    token = current.set(Scope(maker, f"{new_id()}:"))
    running = asyncio.timeout(method.directives.timeout)
    try:
        async with running:
            value = await method.function(**arguments)
            encoded = encode_result(method, value)
            for part in encoded.futures:
                await part
    except TimeoutError as error:
        if not running.expired():
            raise  # the workflow's own
        raise _too_late(method) from error
    finally:
        current.reset(token)
        maker.end()
    return _resolved(method, value, encoded)


def _too_late(method: Method) -> DeadlineExceeded:
    return DeadlineExceeded(f"{method.actor} did not end before its deadline")


def _resolved(method: Method, value: Any, encoded: values.Encoded) -> Any:
    """A workflow's result, with the values of the futures that it holds."""
    held = bool(encoded.futures)
    encoded.join()
    decoded = method.signature.decode_result(encoded.body)
    return decoded if held else value


def run_to_end(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A workflow from sync code, to its result."""
    outcome = run(method, args, kwargs)
    if isinstance(outcome, Coroutine):
        return asyncio.run_coroutine_threadsafe(outcome, background.loop()).result()
    return outcome


def _in_scope(scope: Scope, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    current.set(scope)
    return function(**arguments)
