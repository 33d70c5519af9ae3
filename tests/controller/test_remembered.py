"""What policies remember of sessions: the same as in dictionaries, while places are used again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from callboard.controller.remembered import Keys, Remembered, Returns
from callboard.controller.table import Table
from callboard.controller.view import View

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


def call(view: View, session: str, key: str) -> int:
    """An open call of a session, in a run of its own with this key."""
    run, future = view.runs.row(f"r{len(view.futures)}"), view.futures.row(f"r{len(view.futures)}:1")
    view.runs.set(np.array([run]), key=view.keys.row(key), driver=-1, session=-1)
    view.futures.set(np.array([future]), run=run, session=view.sessions.row(session))
    return future


KEYED = st.lists(st.tuples(SESSIONS, st.sampled_from(["", "a", "c"])), max_size=12)


@given(st.lists(KEYED, max_size=12))
def test_keys(rounds: list[list[tuple[str, str]]]) -> None:
    """Calls have the same number if they have the same key: their run's, else their session's."""
    view, keys = View(), Keys()
    for calls in rounds:
        view.end_runs(view.runs.rows)
        view.sessions.drop(view.sessions.rows)
        view.prune(0.0)
        expected = {call(view, session, key): key or session.partition("/")[0] for session, key in calls}
        rows = np.array(list(expected), np.intp)
        numbers = keys.of(view, rows).tolist()
        pairs = set(zip(numbers, expected.values(), strict=True))
        assert len({number for number, _ in pairs}) == len({key for _, key in pairs}) == len(pairs)


def test_keys_that_are_no_more_are_forgotten() -> None:
    """However many come and go, the view holds what is used, and the numbers stay small."""
    view, keys, most = View(), Keys(), 0
    for number in range(2_500):
        view.end_runs(view.runs.rows)
        view.sessions.drop(view.sessions.rows)
        view.prune(0.0)
        rows = np.array([call(view, f"key {number}/chat", ""), call(view, "chat", f"team {number}")])
        most = int(keys.of(view, rows).max())
    assert most < 2_000
    assert len(view.keys) == 2


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
