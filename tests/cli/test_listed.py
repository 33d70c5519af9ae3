"""Tables on narrow terminals."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from callboard.cli.output import clock, lately, table

RUN = "01M819BVG3KCR9NRZS0GF9QANM"
ERROR = "ValueError: nobody is there"


def lines(width: int) -> list[str]:
    """A list of runs, on a terminal that is so wide."""
    listed = table(("run", "workflow", "status", "took", "error"), numbers=("took",), texts=("error",))
    listed.add_row(RUN, "research", "failed", "12.2 ms", ERROR)
    screen = Console(width=width, file=io.StringIO(), record=True)
    screen.print(listed)
    return screen.export_text().splitlines()


@pytest.mark.parametrize(("width", "fits"), [(120, True), (80, True), (60, False), (40, False)])
def test_what_people_copy_is_whole(width: int, fits: bool) -> None:  # noqa: FBT001 - a case
    """Other columns are cut before, and a text is left out where nothing of it could be read."""
    head, *rows = lines(width)
    assert rows[0].startswith(f"{RUN} ")
    assert all(len(row) <= width for row in rows)
    assert ("error" in head) == fits
    assert fits or len(rows) == 1


def test_a_text_that_has_to_be_broken_is_all_there() -> None:
    """It goes on in the next line, in its column."""
    head, *rows = lines(75)
    assert len(rows) > 1
    said = [row[head.index("error") :].strip() for row in rows]
    assert " ".join(said) == ERROR


def test_times_of_today_are_short() -> None:
    """Others have their day."""
    now = time.time()
    assert lately(now - 48 * 3600) == clock(now - 48 * 3600)
    assert clock(now).endswith(lately(now))
