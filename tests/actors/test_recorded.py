"""What a journal has is given in its order, whatever comes meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.waiting import until

from callboard.actors.recorded import Recorded
from callboard.infra.errors import Overloaded
from callboard.infra.messages.run import ErrorInfo, Result


def outcome(future: str) -> Result:
    """Of a call."""
    return Result(future, "quick.call")


class Journal:
    """A journal of two outcomes, and the code that comes by their places."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.given: list[str] = []
        self.recorded = Recorded(asyncio.get_running_loop(), self.open, self.give)
        self.recorded.keep = True
        self.recorded.take_up([outcome("1"), outcome("2")])

    def give(self, result: Result) -> None:
        """It goes to its call."""
        self.given.append(result.future)
        self.open.discard(result.future)

    def make(self, *futures: str) -> None:
        """The code makes calls."""
        for future in futures:
            known = self.recorded.come_by(future)
            self.open.add(future)
            if known is not None:
                self.recorded.give_soon(future)


@pytest.mark.parametrize("called", ["before", "after"])
async def test_what_comes_meanwhile_overtakes_nothing(called: str) -> None:
    """Neither an outcome that a call waits for, nor one whose call is not made yet."""
    journal = Journal()
    if called == "before":
        journal.make("1", "2", "3")
        journal.recorded.add(outcome("3"))
    else:
        journal.recorded.early(outcome("3"))
        journal.make("3", "2", "1")
    await until(lambda: len(journal.given) == 3)
    assert journal.given == ["1", "2", "3"]
    assert not journal.recorded.replaying
    assert journal.recorded.leftover() is None


async def test_a_place_that_the_code_comes_by_late_holds_up_nothing() -> None:
    """What follows is given, and it when its call is made."""
    journal = Journal()
    journal.make("2")
    await until(lambda: journal.given == ["2"])
    left = journal.recorded.leftover()
    assert left is not None
    assert left.future == "1"
    journal.make("1")
    await until(lambda: journal.given == ["2", "1"])
    assert journal.recorded.leftover() is None


async def test_a_refusal_is_no_outcome() -> None:
    """The call is sent again, under another message id."""
    journal = Journal()
    refusal = Result("4", "quick.call", error=ErrorInfo(Overloaded.code, "Overloaded", "no"))
    journal.recorded.take_up([refusal])
    journal.recorded.early(refusal)
    assert journal.recorded.refused == {"4"}
    assert not journal.recorded.holds("4")
