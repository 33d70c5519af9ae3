"""A handler in a process of its own: where that finds it, and why it makes no calls there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from callboard.infra.errors import CallMisplaced, DeclarationInvalid

if TYPE_CHECKING:
    from callboard.actors.declared import Method
    from callboard.actors.future import Future

T = TypeVar("T")


def process_address(method: Method) -> tuple[str, str, str]:
    """Where a process finds a cpu handler.

    Raises:
        DeclarationInvalid: it is not declared at the top of a module.
    """
    holder = method.function if method.owner is None else method.owner.cls
    if "<locals>" in holder.__qualname__:
        raise DeclarationInvalid(
            f"{method.where} is a cpu handler, so it must be declared at the top of a module"
        )
    return holder.__module__, holder.__qualname__, method.name


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
