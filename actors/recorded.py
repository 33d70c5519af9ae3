"""What a journal has of the calls of one maker, before the code comes by their places again.

Each outcome is given once the code has made the call, in the order of the journal, so that code which depends
on who comes first takes the same way again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterable

from callboard.infra.errors import Diverged, Overloaded
from callboard.infra.messages.run import Result

_PATIENCE = 20


class Recorded:
    """Outcomes that are known before their calls are made.

    Args:
        loop: of the maker.
        waiting: ids of the calls that have been made and have no outcome.
        give: gives an outcome to its call.

    Attributes:
        keep: somebody may have made calls before, or be ahead: outcomes of calls not made yet are kept.
        refused: ids of calls that a full lane has refused.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, waiting: Container[str], give: Callable[[Result], None]
    ) -> None:
        self.keep = False
        self.refused: set[str] = set()
        self._loop = loop
        self._waiting = waiting
        self._give: Callable[[Result], None] | None = give
        self._known: dict[str, Result] = {}
        self._line: deque[Result] = deque()  # what is to be given in order
        self._in_line: set[str] = set()
        self._used: set[str] = set()  # ids that the code has come by

    def let_go(self) -> None:
        """Give nothing more: nothing here leads back to the maker."""
        self._give = None

    @property
    def replaying(self) -> bool:
        """Whether outcomes are still to be given in order."""
        return bool(self._line)

    def take_up(self, results: Iterable[Result]) -> None:
        """A journal, in its order."""
        for result in results:
            if is_refusal(result):
                self.refused.add(result.future)
            elif result.future not in self._known:
                self.add(result)
        self._loop.call_soon(self._next, 0)

    def add(self, result: Result) -> None:
        """An outcome that came after all that is still to be given: it must not overtake them."""
        self._known[result.future] = result
        self._line.append(result)
        self._in_line.add(result.future)

    def _next(self, tries: int) -> None:
        if not self._line or self._give is None:
            return
        result = self._line[0]
        if result.future in self._waiting:
            self._step()
            self._known.pop(result.future, None)
            self._give(result)
            tries = 0
        elif result.future not in self._known:  # remembered, and asked for already
            self._step()
        elif tries >= _PATIENCE:  # the code is not there yet; it is given when it is
            self._step()
            tries = 0
        self._loop.call_soon(self._next, tries + 1)

    def _step(self) -> None:
        self._in_line.discard(self._line.popleft().future)

    def early(self, result: Result) -> None:
        """An outcome has come that no open call waits for: the code may come by its place later."""
        if not self.keep or result.future in self._used or is_refusal(result) or self.holds(result.future):
            return
        if self._line:
            self.add(result)
        else:
            self._known[result.future] = result

    def come_by(self, future_id: str) -> Result | None:
        """The code makes this call: what is known of it."""
        if self.keep:
            self._used.add(future_id)
        return self._known.get(future_id)

    def give_soon(self, future_id: str) -> None:
        """Give what is known to a call that has just been made, unless its turn will come."""
        if future_id not in self._in_line:
            self._loop.call_soon(self._give_known, future_id)

    def _give_known(self, future_id: str) -> None:
        result = self._known.pop(future_id, None)
        if result is not None and self._give is not None:
            self._give(result)

    def taken(self, future_id: str) -> None:
        """What is known has been used."""
        self._known.pop(future_id, None)

    def expects(self, future_id: str) -> bool:
        """Whether the code may come by this call later."""
        return self.keep and future_id not in self._used

    def holds(self, future_id: str) -> bool:
        """Whether an outcome that is known is still to be given."""
        return future_id in self._known

    def leftover(self) -> Result | None:
        """An outcome of a call that the code has never made, if there is one."""
        return next((result for result in self._known.values() if result.future not in self._used), None)


def is_refusal(result: Result) -> bool:
    """Whether it is no outcome: a full lane has refused the call, which will be sent again."""
    return result.error is not None and result.error.code == Overloaded.code


def diverged(workflow: str, known: Result, code: str) -> Diverged:
    """The error for a place where the journal and the code name different calls.

    Args:
        code: what the code calls there; empty: nothing.
    """
    return Diverged(
        f"workflow {workflow} has changed under its run: at {known.future} the journal has a call of "
        f"{known.call}, the code {f'calls {code}' if code else 'makes no call'}; run it with the code it was "
        "started with, or cancel it and start a new run",
        future=known.future,
        journal=known.call,
        code=code,
    )
