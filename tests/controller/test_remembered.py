"""What policies remember of sessions: the same as in dictionaries, while places are used again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from callboard.controller.remembered import Keys, Remembered, Returns
from callboard.controller.table import Table

SESSIONS = st.sampled_from([f"{key}/{number}" for key in "ab" for number in range(4)] + ["bare"])
OPENED = st.lists(st.tuples(SESSIONS, st.integers(0, 2), st.integers(1, 4)), max_size=10)


def tables() -> tuple[Table, Table]:
    """Sessions and futures, as far as they matter here."""
    return Table(added=np.uint32), Table(session=np.int32, call=np.int32, stage=np.uint16)


def open_calls(sessions: Table, futures: Table, opened: list[tuple[str, int, int]]) -> None:
    """These calls are open, and no others."""
    futures.drop(futures.rows)
    rows, _ = futures.add([str(place) for place in range(len(opened))])
    for row, (session, call, stage) in zip(rows, opened, strict=True):
        futures.set(np.array([row]), session=sessions.row(session), call=call, stage=stage)


@given(st.lists(st.tuples(st.sets(SESSIONS), OPENED), max_size=12))
def test_returns(rounds: list[tuple[set[str], list[tuple[str, int, int]]]]) -> None:
    """The stages at which each session has come to a method, for as long as it is in the view."""
    sessions, futures = tables()
    returns, seen = Returns(), dict[str, dict[int, set[int]]]()
    for gone, opened in rounds:
        for session in gone:
            seen.pop(session, None)
        futures.drop(futures.rows)
        sessions.drop(sessions.find(gone))
        open_calls(sessions, futures, opened)
        for session, call, stage in opened:
            seen.setdefault(session, {}).setdefault(call, set()).add(stage)
        rows, times = returns.of(sessions, futures)
        found = {sessions.keys[row]: count for row, count in zip(rows.tolist(), times.tolist(), strict=True)}
        assert found == {name: max(map(len, calls.values())) for name, calls in seen.items()}


@given(st.lists(st.tuples(st.sets(SESSIONS), st.sets(SESSIONS)), max_size=12))
def test_keys(rounds: list[tuple[set[str], set[str]]]) -> None:
    """Sessions have the same number if they have the same key."""
    sessions, _ = tables()
    keys = Keys()
    for gone, come in rounds:
        sessions.drop(sessions.find(gone))
        sessions.add(sorted(come))
        numbers = keys.of(sessions)
        names = {int(numbers[row]): sessions.keys[row].partition("/")[0] for row in sessions.rows}
        assert len(set(names.values())) == len(names)
        assert all(names[int(numbers[row])] == sessions.keys[row].partition("/")[0] for row in sessions.rows)


def test_keys_that_are_no_more_are_forgotten() -> None:
    """However many come and go, the numbers stay small."""
    sessions, _ = tables()
    keys, most = Keys(), 0
    for number in range(5_000):
        sessions.drop(sessions.rows)
        sessions.row(f"key {number}/chat")
        most = int(keys.of(sessions).max())
    assert most < 2_000


def test_a_place_that_is_used_again() -> None:
    """What was remembered of the one before is forgotten; other tables have nothing to do with it."""
    sessions, _ = tables()
    remembered = Remembered(seconds=np.float64)
    row = sessions.row("a")
    remembered.follow(sessions)
    remembered["seconds"][row] = 3.0
    assert remembered.follow(sessions).tolist() == []
    assert remembered["seconds"][row] == 3.0
    sessions.drop(np.array([row]))
    assert sessions.row("b") == row
    assert remembered.follow(sessions).tolist() == [row]
    assert remembered["seconds"][row] == 0.0
    other, _ = tables()
    other.row("c")
    remembered.follow(other)
    assert not remembered["seconds"].any()
