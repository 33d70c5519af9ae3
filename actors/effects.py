"""What a declaration says of an effect, and the key that its handler is given."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from callboard.infra.errors import DeclarationInvalid, InvalidArguments, NoEffect, OutcomeUnknown

F = TypeVar("F", bound=Callable[..., Any])
Key = str | Callable[..., object]
"""The name of a parameter, or a function of the arguments."""

RECONCILES = "__callboard_reconciles__"
_LONGEST = 1024

current_key: contextvars.ContextVar[str] = contextvars.ContextVar("callboard_effect_key", default="")


class Effect:
    """The effect that a handler has.

    Args:
        where: ``actor.method``; function: the handler.
        key: what names the effect; None: each call is one of its own.

    Attributes:
        reconcile: tells whether the effect has happened; None if there is no such function.
    """

    def __init__(self, where: str, function: Callable[..., Any], key: Key | None) -> None:
        self.where = where
        self._key = key
        self._names = list(inspect.signature(function).parameters)
        self.reconcile: Callable[..., Any] | None = None
        if isinstance(key, str) and key not in self._names:
            raise DeclarationInvalid(
                f"{where}: key={key!r} is none of its parameters: give the name of one, or a function of them"
            )
        if key is not None and not isinstance(key, str) and not callable(key):
            raise DeclarationInvalid(
                f"{where}: key must be a parameter's name or a function of the arguments"
            )

    def reconciled_by(self, function: Callable[..., Any]) -> None:
        """Take up the function that tells whether the effect has happened.

        Raises:
            DeclarationInvalid: its parameters are not the handler's.
        """
        names = list(inspect.signature(function).parameters)
        if names != self._names:
            raise DeclarationInvalid(
                f"{self.where}: its reconcile function takes ({', '.join(names)}): it must take "
                f"({', '.join(self._names)}), as the handler does"
            )
        self.reconcile = function

    def key(self, arguments: Mapping[str, Any]) -> str:
        """The key for these arguments; empty if the declaration gives none.

        Raises:
            InvalidArguments: it is not a text or a number, empty, or too long.
        """
        if self._key is None:
            return ""
        given = arguments.get(self._key) if isinstance(self._key, str) else self._key(**arguments)
        text = "" if given is None or isinstance(given, bool) else str(given)
        if not 0 < len(text) <= _LONGEST:
            actor, _, method = self.where.partition(".")
            raise InvalidArguments(
                f"{self.where} was not run: its key is {text[:80]!r}"
                f"; it must have 1 to {_LONGEST} characters",
                actor=actor,
                method=method,
            )
        return text


def mark(function: F, options: Mapping[str, Any]) -> F:
    """Give an agent's method that is an effect its decorator ``reconcile``."""
    if options.get("effect"):

        def reconcile(found: F) -> F:
            setattr(found, RECONCILES, function)
            return found

        function.reconcile = reconcile  # type: ignore[attr-defined]
    return function


def effect_of(where: str, function: Callable[..., Any], key: Key | None, *, declared: bool) -> Effect | None:
    """The effect of a handler; None if it is none.

    Raises:
        DeclarationInvalid: there is a key and no effect, or the key cannot be used.
    """
    if declared:
        return Effect(where, function, key)
    if key is not None:
        raise DeclarationInvalid(f"{where}: a key names an effect: say effect=True too")
    return None


def effect_key() -> str:
    """In the handler of an effect: what names the effect for whoever carries it out.

    It is the key that the declaration gives, or else the call's id: the same in each retry. Pass it on as
    the idempotency key, or store it with what is done, for ``reconcile`` to find.

    Raises:
        NoEffect: no effect runs here.
    """
    key = current_key.get()
    if not key:
        raise NoEffect("there is no effect_key() here: it is for handlers declared with effect=True")
    return key


def unknown(
    where: str, intent: str, key: str, host: str, at: float, cause: BaseException | None = None
) -> OutcomeUnknown:
    """The error for an effect that was begun, when nobody knows how it has ended."""
    why = f": {cause}" if cause is not None else ""
    place = f" on host {host}" if host else ""
    error = OutcomeUnknown(
        f"{where} was begun{place}, and whether it has happened is not known{why}; look where it would show, "
        "then call it again or go on; a 'reconcile' of the tool can do that",
        intent=intent,
        key=key,
        host=host,
        at=at,
    )
    error.__cause__ = cause
    return error
