"""Tables of columns: rows keep their places, and their places are used again."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from callboard.controller.table import Table
from callboard.controller.view import View
from callboard.infra.messages.registry import ActorInfo
from callboard.infra.messages.telemetry import Report

KEYS = st.sampled_from([f"k{number}" for number in range(200)])
STEPS = st.lists(st.tuples(st.booleans(), st.lists(KEYS, max_size=90), st.integers(0, 9)), max_size=12)


@given(STEPS)
def test_it_is_a_dictionary_of_rows(steps: list[tuple[bool, list[str], int]]) -> None:
    """Whatever is added, set and dropped, in whatever order, each key has the values it was given last."""
    table, model = Table(number=np.int64), dict[str, int]()
    for adds, keys, value in steps:
        if adds:
            rows, fresh = table.add(keys)
            assert [key in model for key in keys] == [not one for one in fresh]
            table.set(rows, number=value)
            model |= dict.fromkeys(keys, value)
        else:
            table.drop(table.find(keys))
            for key in keys:
                model.pop(key, None)
        assert len(table) == len(model)
        assert {table.keys[row]: int(table["number"][row]) for row in table.rows} == model
        assert {key: key in table for key in keys} == {key: key in model for key in keys}
        chosen = {table.keys[row] for row in table.where(number=3)}
        assert chosen == {key for key, number in model.items() if number == 3}


def test_counting_by_rows_of_another_table() -> None:
    """Only rows that are there count, and -1 counts for nothing."""
    table = Table(of=np.int32)
    rows, _ = table.add(["a", "b", "c", "d", "e"])
    table.set(rows, of=[0, 2, 2, -1, 2])
    table.drop(table.find(["e"]))
    assert table.count_by("of", 4).tolist() == [1, 0, 2, 0]
    among = np.isin(np.arange(len(table.keys)), table.find(["b"]))
    assert table.count_by("of", 4, among).tolist() == [0, 0, 1, 0]


def test_a_row_that_is_used_again_is_empty() -> None:
    """Nothing of who had it before is left."""
    table = Table(number=np.int64)
    table.set(np.array([table.row("a")]), number=7)
    table.drop(table.find(["a", "a", "nobody"]))
    assert table["number"][table.row("b")] == 0


def test_a_view_grows_while_it_is_looked_at() -> None:
    """More hosts and actors than the first tables have rows for."""
    view = View()
    for number in range(200):
        name = f"n-{number}"
        body = msgspec.msgpack.encode(Report(name, 1, 1.0, names=["a"]))
        assert view.read(name, body)[0] is not None
        view.announce([ActorInfo(name, "tool", "v", directives={"min_instances": number})])
    assert (len(view.hosts), len(view.actors)) == (200, 200)
    assert view.actors["least"][view.actors.row("n-199")] == 199


def test_what_is_told_of_instances_may_be_anything() -> None:
    """Anybody may write to the registry."""
    view = View()
    for value in (-1, "many", None, 1e99, 10**30, [1]):
        view.announce([ActorInfo("a", "tool", "v", directives={"min_instances": value})])
        assert 0 <= view.actors["least"][view.actors.row("a")] <= 1_000_000
