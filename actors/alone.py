"""What a handler can do in a process of its own: it has no connection, so it makes no calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from callboard.infra.errors import CallMisplaced

if TYPE_CHECKING:
    from callboard.actors.declare import Method
    from callboard.actors.future import Future

T = TypeVar("T")


class Alone:
    """The maker of calls of a ``cpu`` handler, on a board and without.

    Args:
        where: ``actor.method`` of the handler.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    def call(self, future_id: str, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        """Refuse it.

        Raises:
            CallMisplaced: always.
        """
        raise CallMisplaced(
            f"{self._where} is a cpu handler, whose process has no connection, so it cannot call "
            f"{method.where}: make the call in the workflow or in another handler, and pass on its result",
            actor=method.actor,
            method=method.name,
        )

    def remember(self, future_id: str, what: str, make: Callable[[], T]) -> T:
        """Nothing is replayed here: make it."""
        return make()

    def cancel(self, future: Future[Any]) -> None:
        """There is none."""
