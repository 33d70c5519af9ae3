"""Ids of calls: derived from the place in the code, the same again for the same code."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.future import Maker
from callboard.actors.scope import Scope, checkpoint, current, install_task_factory
from callboard.actors.scope import random as replayed_random
from callboard.actors.scope import uuid as replayed_uuid
from callboard.infra.errors import CallCancelled

NOBODY = cast("Maker", None)
"""Makes no calls."""


def scope_of(prefix: str) -> Scope:
    """A scope in which nobody makes calls."""
    return Scope(NOBODY, prefix)


Program = list[Any]
"""A program: ``"call"`` makes a call, a nested program runs in a concurrent branch."""

PROGRAMS = st.recursive(
    st.lists(st.just("call"), max_size=3),
    lambda inner: st.lists(st.one_of(st.just("call"), inner), max_size=4),
    max_leaves=20,
)


async def run(program: Program, rng: random.Random, made: list[tuple[str, str]], place: str) -> None:
    """Run a program, giving way at random, and note which place got which id."""
    branches: list[asyncio.Task[None]] = []
    for number, step in enumerate(program):
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        here = f"{place}.{number}"
        if step == "call":
            scope = current.get()
            assert scope is not None
            made.append((here, scope.next_id()))
        else:
            branches.append(asyncio.ensure_future(run(step, rng, made, here)))
    for branch in branches:
        await branch


def ids_of(program: Program, seed: int) -> dict[str, str]:
    """Ids by the place in the program, with one of many possible orders of arrival."""
    made: list[tuple[str, str]] = []

    async def main() -> None:
        install_task_factory(asyncio.get_running_loop())
        current.set(scope_of("run:"))
        await run(program, random.Random(seed), made, "")

    asyncio.run(main())
    return dict(made)


@given(PROGRAMS, st.integers(0, 1000), st.integers(0, 1000))
def test_the_same_code_makes_the_same_ids(program: Program, one: int, other: int) -> None:
    """Whichever concurrent branch goes on first: branches are numbered where they are started."""
    assert ids_of(program, one) == ids_of(program, other)


def test_another_number_of_tasks_makes_other_ids() -> None:
    """A task more, whoever makes it, a library or another Python, moves those that are started after it."""
    plain = list(ids_of([["call"], "call"], 0).values())
    more = list(ids_of([[], ["call"], "call"], 0).values())
    assert len(plain) == len(more) == 2
    assert set(plain) != set(more)


@given(PROGRAMS, st.integers(0, 1000))
def test_no_two_calls_share_an_id(program: Program, seed: int) -> None:
    """Over all branches, nested to any depth."""
    ids = ids_of(program, seed)
    assert len(set(ids.values())) == len(ids)


PATHS = st.lists(st.tuples(st.sampled_from(["call", "branch", "attempt"]), st.integers(1, 12)), max_size=5)


def _prefix(path: list[tuple[str, int]]) -> str:
    """The prefix of a scope reached by nested calls, branches and further attempts."""
    prefix = "run:"
    for kind, number in path:
        if kind == "branch":
            prefix += f"{number}/"
        elif kind == "attempt":
            prefix += f"1~{number + 1}."
        else:
            prefix += f"{number}."
    return prefix


@given(PATHS, PATHS, st.integers(1, 30), st.integers(1, 30))
def test_places_apart_have_ids_apart(
    one: list[tuple[str, int]], other: list[tuple[str, int]], n: int, m: int
) -> None:
    """Calls of different handlers, branches and attempts never meet in one id."""
    same_place = (one, n) == (other, m)
    assert (f"{_prefix(one)}{n}" == f"{_prefix(other)}{m}") == same_place


async def test_a_task_given_a_context_of_its_own_is_in_that_contexts_scope() -> None:
    """Work started on the side with an empty context takes no number from the code that caused it."""
    loop = asyncio.get_running_loop()
    install_task_factory(loop)
    scope = scope_of("run:")
    token = current.set(scope)

    async def where() -> Scope | None:
        return current.get()

    assert await loop.create_task(where(), context=contextvars.Context()) is None
    assert scope.next_id() == "run:1"
    branch = await loop.create_task(where())
    assert branch is not None
    assert branch.prefix == "run:2/"
    current.reset(token)


async def test_outside_of_a_scope_tasks_are_plain() -> None:
    """The factory costs nothing and changes nothing where no run is."""
    install_task_factory(asyncio.get_running_loop())

    async def where() -> Scope | None:
        return current.get()

    assert await asyncio.create_task(where(), name="mine") is None


async def test_a_task_factory_set_before_is_kept() -> None:
    """Installing twice is installing once, and somebody's own factory still makes the tasks."""
    loop = asyncio.get_running_loop()
    made: list[str] = []

    def own(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **options)

    async def work() -> str:
        scope = current.get()
        return scope.prefix if scope else ""

    loop.set_task_factory(own)
    install_task_factory(loop)
    install_task_factory(loop)
    token = current.set(scope_of("run:"))
    assert await asyncio.create_task(work()) == "run:1/"
    assert made == ["work"]
    current.reset(token)


def in_scope(prefix: str, action: Callable[[], Any]) -> Any:
    """Run something in a scope of its own."""

    def enter() -> Any:
        current.set(scope_of(prefix))
        return action()

    return contextvars.copy_context().run(enter)


def test_random_numbers_and_uuids_are_the_same_at_the_same_place() -> None:
    """A replay draws what was drawn before; another run, and another place, draw something else."""

    def draw() -> tuple[float, float, str, str]:
        return (
            replayed_random().random(),
            replayed_random().random(),
            str(replayed_uuid()),
            str(replayed_uuid()),
        )

    first = in_scope("run:", draw)
    assert in_scope("run:", draw) == first
    assert len(set(first)) == 4
    assert not set(in_scope("other:", draw)) & set(first)
    assert not set(in_scope("run:1.", draw)) & set(first)


def test_outside_of_a_run_random_numbers_are_random() -> None:
    """Neither numbers nor UUIDs repeat."""
    assert replayed_random().random() != replayed_random().random()
    assert replayed_uuid() != replayed_uuid()


def test_a_checkpoint_stops_cancelled_code() -> None:
    """And only that; outside of a call it does nothing."""
    checkpoint()
    scope = scope_of("run:")
    scope.checkpoint()
    scope.cancel("its deadline passed")
    with pytest.raises(CallCancelled, match="its deadline passed"):
        scope.checkpoint()
