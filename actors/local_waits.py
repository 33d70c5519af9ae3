"""Waits without NATS: futures as on a board, kept by the event loop of the code that waits."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors.local_maker import LocalMaker, Stage
from callboard.actors.scope import current
from callboard.infra.errors import InvalidResult
from callboard.infra.subjects import new_id

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.actors.waits import Kind


def begin(kind: Kind) -> Future[Any]:
    """A future of the running event loop that whoever asks for it resolves."""
    scope = current.get()
    maker = None if scope is None else scope.maker
    if scope is not None and isinstance(maker, LocalMaker) and maker.on_loop():
        return maker.wait(scope.next_id(), kind)
    return LocalMaker(Stage(asyncio.get_running_loop()), ()).wait(f"{new_id()}:1", kind)


def sleep(seconds: float) -> Future[None]:
    """A future that is done after so many seconds, from now on."""
    from callboard.actors.waits import Kind

    future = begin(Kind("callboard.sleep"))
    timer = asyncio.get_running_loop().call_later(max(0.0, seconds), _end, future)
    future.when_done(lambda _: timer.cancel())
    return future


def over() -> Future[None]:
    """A future that is done."""
    from callboard.actors.waits import Kind

    future = begin(Kind("callboard.sleep"))
    future.set_result(None)
    return future


def resolve(future: Future[Any], ended: asyncio.Future[Any]) -> None:
    """Give a future the outcome of another one, if it waits for that still."""
    if ended.cancelled():
        future.cancel()
    elif (error := ended.exception()) is not None:
        if not future.done():
            future.set_exception(error)
    elif not future.done():
        try:
            future.raw = msgspec.Raw(msgspec.msgpack.encode(ended.result()))
        except (TypeError, ValueError, OverflowError, RecursionError) as problem:
            text = f"{future.method.where}: what was given cannot travel: {problem}"
            future.set_exception(InvalidResult(text, actor="", method=future.method.where))
        else:
            future.set_result(ended.result())


def pause(seconds: float) -> None:
    """Hold up this thread for so many seconds."""
    time.sleep(max(0.0, seconds))


def _end(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
