"""Subjects, tokens and ids."""

from __future__ import annotations

import re
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.infra import subjects
from callboard.infra.subjects import NameInvalid

ALLOWED = string.ascii_letters + string.digits + "_-"
TOKENS = st.text(st.sampled_from(ALLOWED), min_size=1, max_size=128)
TIMES = st.integers(0, (1 << 48) * 1_000_000 - 1)


@given(TOKENS)
def test_a_token_is_given_back(value: str) -> None:
    """1 to 128 letters, digits, underscores and hyphens can be used as they are."""
    assert subjects.token("id", value) == value
    assert subjects.is_token(value)


@given(st.text().filter(lambda text: not re.fullmatch(r"[A-Za-z0-9_\-]{1,128}", text)))
def test_anything_else_is_refused(value: str) -> None:
    """What would break a subject apart is a typed error that shows the value, shortened."""
    assert not subjects.is_token(value)
    with pytest.raises(NameInvalid) as caught:
        subjects.token("run id", value)
    assert caught.value.fields == {"what": "run id", "value": value[:140]}


@pytest.mark.parametrize("value", ["a\n", "\na", "a.b", "a b", "*", ">", "", "ä", "x" * 129])
def test_what_a_regular_expression_easily_lets_through(value: str) -> None:
    """No line end at the edge, no dot, no wildcard, no letter outside of ASCII, not too long."""
    assert not subjects.is_token(value)


def test_new_ids_are_unique_tokens_that_sort_by_time() -> None:
    """26 characters of Crockford's alphabet, of which a later millisecond sorts later."""
    before = subjects.derived_id(time.time_ns() - 1_000_000, "earlier")
    ids = [subjects.new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", one) for one in ids)
    assert all(before[:10] <= one[:10] for one in ids)
    assert ids[0][:10] <= ids[-1][:10]


@given(TIMES, st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_a_derived_id_is_the_same_again(at: int, parts: list[str]) -> None:
    """The same time and parts give the same id, of the same kind as a new one."""
    one = subjects.derived_id(at, *parts)
    assert one == subjects.derived_id(at, *parts)
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", one)


@given(TIMES, st.lists(st.text(st.sampled_from("ab1"), max_size=4), min_size=2, max_size=4, unique=True))
def test_other_parts_give_another_id(at: int, parts: list[str]) -> None:
    """Neither the order of the parts nor where one ends and the next begins is lost."""
    joined = "".join(parts)
    ids = {subjects.derived_id(at, *parts), subjects.derived_id(at, *reversed(parts))}
    assert len(ids) == 2
    assert subjects.derived_id(at, joined) not in ids


@given(TIMES, TIMES)
def test_derived_ids_sort_by_their_time(one: int, other: int) -> None:
    """The time, in milliseconds, decides before the parts do."""
    first, second = sorted((one, other))
    if first // 1_000_000 < second // 1_000_000:
        assert subjects.derived_id(first, "z") < subjects.derived_id(second, "a")


@pytest.mark.parametrize(
    ("future", "kind", "children"),
    [
        ("r:7", "result", "result.7"),
        ("r:3/2", "result", "result.3_2"),
        ("r:7.2", "result.7", "result.7-2"),
        ("r:7~2.1", "result.7+2", "result.7+2-1"),
        ("r:3/2.1/4", "result.3_2", "result.3_2-1_4"),
    ],
)
def test_results_stand_apart_by_who_made_the_call(future: str, kind: str, children: str) -> None:
    """The results of a workflow's own calls stand under ``result``, nested ones under their parent."""
    assert subjects.result_kind(future) == kind
    assert subjects.children_kind(future) == children


POSITIONS = st.from_regex(r"[1-9]{1,2}(?:[/.~][1-9]{1,2}){0,4}", fullmatch=True)


@given(POSITIONS)
def test_a_child_reports_where_its_parent_listens(parent: str) -> None:
    """Whoever makes a call hears of it: the kind of a child's result is the children kind of its parent."""
    assert subjects.result_kind(f"r:{parent}.4") == subjects.children_kind(f"r:{parent}")


@given(POSITIONS, POSITIONS)
def test_two_parents_never_share_a_kind(one: str, other: str) -> None:
    """Nobody hears of somebody else's calls."""
    same = subjects.children_kind(f"r:{one}") == subjects.children_kind(f"r:{other}")
    assert same == (one == other)
