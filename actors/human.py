"""A human as an actor: ``await human.ask("Shall we?", schema=bool)`` in a workflow."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from callboard.actors import local_waits
from callboard.actors.future import running_loop
from callboard.actors.local_maker import LocalMaker
from callboard.actors.scope import current
from callboard.actors.waiting import handed, is_text, on_board, shown, timeout_of
from callboard.infra.errors import InvalidResult, WaitInvalid

if TYPE_CHECKING:
    from callboard.actors.waits import Kind

T = TypeVar("T")

_terminal = ThreadPoolExecutor(1, thread_name_prefix="callboard-terminal")
"""Puts one question after the other."""


@overload
def ask(question: str, *, timeout: float | None = ..., to: str = ...) -> Awaitable[str]: ...
@overload
def ask(question: str, *, schema: type[T], timeout: float | None = ..., to: str = ...) -> Awaitable[T]: ...
@overload
def ask(
    question: str, *, schema: Any = ..., timeout: float | None = ..., to: str = ...
) -> Awaitable[Any]: ...
def ask(question: str, *, schema: Any = str, timeout: float | None = None, to: str = "") -> Awaitable[Any]:
    """Ask somebody: ``callboard inbox`` shows the question, ``callboard answer`` answers it.

    Without a board, on a terminal, the question is put there.

    Args:
        question: the text.
        schema: the type of the answer, or its JSON schema.
        timeout: seconds, a finite number; None waits until the journal's age comes near.
        to: whom it is for, one name; anyone can answer all the same.

    Raises:
        WaitTimeout: nobody answered in time.
        JournalExpired: nobody did while the journal is kept, and there was no timeout.
        WaitInvalid: an argument is of another type, or the time is longer than journals are kept.
        WaitMisplaced: called in a handler, or without a board and a terminal.
    """
    from callboard.actors.waits import Kind, of_run

    _check_text(question, "question")
    _check_text(to, "to")
    timeout = timeout_of(timeout, "human.ask")
    kind = Kind("human.ask", schema)
    scope = current.get()
    if (scope is None or isinstance(scope.maker, LocalMaker)) and sys.stdin.isatty():
        return _on_terminal(question, kind, sync=scope is not None and scope.sync)
    scope = on_board("human.ask")
    return handed(scope, of_run(scope, "human.ask").ask(scope, question, kind, timeout, to))


def _check_text(given: str, name: str) -> None:
    if not is_text(given):
        text = f"human.ask: {name} is {shown(given)}: give a text"
        raise WaitInvalid(text, wait="human.ask")


def _on_terminal(question: str, kind: Kind, *, sync: bool) -> Awaitable[Any]:
    loop = running_loop()
    if sync or loop is None:
        return cast("Awaitable[Any]", _prompt(question, kind))
    future = local_waits.begin(kind)
    prompting = loop.run_in_executor(_terminal, _prompt, question, kind)
    prompting.add_done_callback(lambda _: local_waits.resolve(future, prompting))
    future.when_done(lambda _: prompting.cancel())
    return future


def _prompt(question: str, kind: Kind) -> Any:
    told = question
    while True:
        typed = input(f"{told} ")
        try:
            return kind.read(_json(typed))
        except InvalidResult:
            pass  # not as JSON
        try:
            return kind.read(typed)
        except InvalidResult as error:
            told = f"{error.message}\n{question}"


def _json(typed: str) -> Any:
    try:
        return json.loads(typed)
    except ValueError:
        return typed
