"""Collections do what the plain types do, through rollbacks, reopening and crashes between any two writes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.state.conftest import Process
from tests.support.state import Actor, Crash, CrashingShelf, small_trees

from callboard.infra.settings import Settings
from callboard.state.dicts import ManagedDict
from callboard.state.lists import ManagedList
from callboard.state.managed import Managed, ManagedCounter
from callboard.state.shelf import MemoryShelf, Place, Shelf

SETTINGS = Settings.load({}, state_history=8, inline_limit=20)
"""Heads every few commits; items of more than 20 bytes are large."""


class Desk:
    """One attribute of each kind."""

    items: ManagedList[list[int]]
    notes: ManagedDict[str, list[int]]
    value: Managed[list[int]]
    count: ManagedCounter


class Plain:
    """The same in plain Python."""

    def __init__(self) -> None:
        self.items: list[list[int]] = []
        self.notes: dict[str, list[int]] = {}
        self.value: list[int] = []
        self.count = 0

    def copy(self) -> Plain:
        """As it would be read back: what was the same object is two."""
        made = Plain()
        made.items = [list(one) for one in self.items]
        made.notes = {key: list(one) for key, one in self.notes.items()}
        made.value = list(self.value)
        made.count = self.count
        return made


class Op:
    """One operation: a name and numbers, out of which each kind makes what it needs."""

    def __init__(self, name: str, a: int, b: int, c: int) -> None:
        self.name, self.a, self.b, self.c = name, a, b, c

    def __repr__(self) -> str:
        return f"{self.name}({self.a}, {self.b}, {self.c})"

    @property
    def item(self) -> list[int]:
        """An item, sometimes a large one."""
        return [self.c] * (self.c % 4 if self.c % 11 else 25)

    @property
    def many(self) -> list[list[int]]:
        """Some items."""
        return [[self.c, place] for place in range(self.c % 9)]

    @property
    def key(self) -> str:
        """A key of a dict."""
        return f"k{self.a % 13}"


Items = Any  # a list or a ManagedList
Notes = Any


def add_and_change(items: Items, op: Op) -> None:
    """An item that is changed after it was put in."""
    items.append(item := op.item)
    item.append(op.c)


LISTS: dict[str, Callable[[Items, Op], Any]] = {
    "append": lambda x, o: x.append(o.item),
    "extend": lambda x, o: x.extend(o.many),
    "insert": lambda x, o: x.insert(o.a, o.item),
    "set": lambda x, o: x.__setitem__(o.a, o.item),
    "get": lambda x, o: x[o.a],
    "no index": lambda x, o: x[o.key],
    "insert nowhere": lambda x, o: x.insert(o.key, o.item),
    "slice": lambda x, o: x[o.a : o.b],
    "step": lambda x, o: x[o.a : o.b : o.c % 5 - 2],
    "set slice": lambda x, o: x.__setitem__(slice(o.a, o.b), o.many),
    "set step": lambda x, o: x.__setitem__(slice(o.a, o.b, o.c % 5 - 2), o.many),
    "del": lambda x, o: x.__delitem__(o.a),
    "del slice": lambda x, o: x.__delitem__(slice(o.a, o.b)),
    "del step": lambda x, o: x.__delitem__(slice(o.a, o.b, o.c % 5 - 2)),
    "pop": lambda x, o: x.pop(),
    "pop at": lambda x, o: x.pop(o.a),
    "remove": lambda x, o: x.remove(o.item),
    "index": lambda x, o: x.index(o.item, o.b),
    "count": lambda x, o: x.count(o.item),
    "in": lambda x, o: o.item in x,
    "sort": lambda x, o: x.sort(reverse=bool(o.c % 2)),
    "sort by": lambda x, o: x.sort(key=len),
    "reverse": lambda x, o: x.reverse(),
    "clear": lambda x, o: x.clear() if o.c % 5 == 0 else None,
    "change": lambda x, o: x[o.a].append(o.c),
    "change all": lambda x, o: [one.append(1) for one in x][:0],
    "change added": add_and_change,
    "plus": lambda x, o: x + o.many,
    "times": lambda x, o: x.__imul__(o.c % 3) if len(x) < 40 else None,
    "reversed": lambda x, o: list(reversed(x)),
    "equal": lambda x, o: (x == list(x), x == [], x < [[o.c]], x != o.many),
    "loop": lambda x, o: [x.append([1]) for place, _ in zip(range(3), x, strict=False)],
    "len": lambda x, o: (len(x), bool(x), repr(x), x.copy()),
}

DICTS: dict[str, Callable[[Notes, Op], Any]] = {
    "set": lambda x, o: x.__setitem__(o.key, o.item),
    "get": lambda x, o: x[o.key],
    "get or": lambda x, o: x.get(o.key, o.item),
    "del": lambda x, o: x.__delitem__(o.key),
    "pop": lambda x, o: x.pop(o.key),
    "pop or": lambda x, o: x.pop(o.key, None),
    "popitem": lambda x, o: x.popitem(),
    "setdefault": lambda x, o: x.setdefault(o.key, o.item).append(o.c),
    "update": lambda x, o: x.update({f"k{(o.a + i) % 40}": one for i, one in enumerate(o.many)}),
    "ior": lambda x, o: x.__ior__({o.key: o.item}),
    "or": lambda x, o: list((x | {o.key: o.item}).items()),
    "ror": lambda x, o: list(({o.key: o.item} | x).items()),
    "in": lambda x, o: (o.key in x, 7 in x, o.item in x.values()),
    "items": lambda x, o: (list(x.items()), list(x), list(x.keys()), list(x.values()), list(reversed(x))),
    "last first": lambda x, o: [list(reversed(one)) for one in (x.keys(), x.values(), x.items())],
    "clear": lambda x, o: x.clear() if o.c % 4 == 0 else None,
    "change": lambda x, o: x[o.key].append(o.c),
    "change all": lambda x, o: [one.append(1) for one in x.values()][:0],
    "move": lambda x, o: x.__setitem__(o.key, x.pop(o.key)),
    "swap": lambda x, o: x.__setitem__(o.key, x[f"k{o.b % 13}"]),
    "equal": lambda x, o: (x == dict(x), x == {}, x != {"a": 1}, len(x), repr(x), x.copy()),
    "grow": lambda x, o: [x.__setitem__(f"{key}+", [1]) for key in x],
}


def unset_value(desk: Any, op: Op) -> None:
    """What was done to the value before does not matter any more."""
    desk.value.append(op.c)
    if isinstance(desk, Plain):
        desk.value = []
    else:
        del desk.value


OTHERS: dict[str, Callable[[Any, Op], Any]] = {
    "assign items": lambda d, o: setattr(d, "items", o.many),
    "add items": lambda d, o: setattr(d, "items", d.items.__iadd__(o.many)),
    "assign notes": lambda d, o: setattr(d, "notes", {o.key: o.item, "z": [1]}),
    "assign value": lambda d, o: setattr(d, "value", o.item),
    "change value": lambda d, o: d.value.append(o.c),
    "value": lambda d, o: list(d.value),
    "unset value": unset_value,
    "count": lambda d, o: setattr(d, "count", d.count + o.c),
    "counted": lambda d, o: d.count,
    "share": lambda d, o: [d.items.append(d.value), d.value.append(1)][:0],
}


def outcome(function: Callable[[], Any]) -> Any:
    """What it gives, or which exception it raises."""
    try:
        given = function()
    except (IndexError, ValueError, KeyError, RuntimeError, TypeError) as error:
        return type(error)
    return given.copy() if isinstance(given, ManagedList | ManagedDict) else given


def perform(desk: Any, op: Op) -> Any:
    """Do an operation to a Desk or a Plain."""
    kind, _, name = op.name.partition(": ")
    if kind == "list":
        return outcome(lambda: LISTS[name](desk.items, op))
    if kind == "dict":
        return outcome(lambda: DICTS[name](desk.notes, op))
    return outcome(lambda: OTHERS[name](desk, op))


def same(desk: Any, plain: Plain) -> None:
    """Hold them against each other, the order of the dict included."""
    assert list(desk.items) == plain.items
    assert list(desk.notes.items()) == list(plain.notes.items())
    assert (desk.value, desk.count) == (plain.value, plain.count)
    assert (len(desk.items), len(desk.notes)) == (len(plain.items), len(plain.notes))


NAMES = (
    *(f"list: {name}" for name in LISTS),
    *(f"dict: {name}" for name in DICTS),
    *(f"other: {name}" for name in OTHERS),
)
ops = st.builds(Op, st.sampled_from(NAMES), st.integers(-9, 30), st.integers(-9, 40), st.integers(0, 100))
ENDINGS = ("commit", "raise", "reopen", "crash before", "crash after", "fold", "fold beside", "fold, crash")
endings = st.sampled_from(["commit", "commit", *ENDINGS])
calls = st.lists(st.tuples(st.lists(ops, max_size=6), endings, st.integers(1, 6)), max_size=30)


async def drive(shelf: Shelf, script: list[tuple[list[Op], str, int]]) -> None:
    """Run the calls of a script on a state and on plain objects alike."""
    crashing = CrashingShelf(shelf)
    desk, plain = Actor(Desk, crashing, SETTINGS), Plain()
    for number, (done, ending, writes) in enumerate(script, 1):
        after = plain.copy()
        if ending.startswith("crash"):
            crashing.left, crashing.after = writes, ending == "crash after"
        try:
            async with desk.call(f"call {number}", result=number):
                for op in done:
                    assert perform(desk.agent, op) == perform(after, op), op
                same(desk.agent, after)
                if ending == "raise":
                    raise ZeroDivisionError
            await desk.sessions.idle()
            plain = after.copy()
        except ZeroDivisionError:
            pass
        except Crash:
            crashing.left = None
            desk.restart()
            if await (await desk.open()).applied(f"call {number}") is not None:
                plain = after.copy()
        crashing.left = None
        if ending == "fold, crash":
            await crash_folding(desk, crashing, writes)
        if ending == "reopen":
            desk.restart()
        folding = (await desk.open()).fold() if ending.startswith("fold") else asyncio.sleep(0)
        beside = asyncio.create_task(folding)
        await (asyncio.sleep(0) if ending == "fold beside" else beside)
        async with desk.call():
            same(desk.agent, plain)
        await beside
        await desk.sessions.idle()


async def crash_folding(desk: Actor, shelf: CrashingShelf, writes: int) -> None:
    """The process dies at its n-th write while it folds the session, or right after that."""
    shelf.left, shelf.after = writes, writes % 2 == 0
    with contextlib.suppress(Crash):
        await (await desk.open()).fold()
        await desk.sessions.idle()
    shelf.left = None
    desk.restart()


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_trees(monkeypatch)


@pytest.mark.usefixtures("_small")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls)
def test_like_plain_python(script: list[tuple[list[Op], str, int]]) -> None:
    """Any operations on all kinds give what plain Python gives, wherever the process dies."""
    asyncio.run(drive(MemoryShelf(SETTINGS), script))


@pytest.mark.usefixtures("_small")
async def test_like_plain_python_on_nats(process: Process) -> None:
    """The same on a server, with long scripts."""
    dice = random.Random(7)
    for _ in range(4):
        script = [
            (
                [
                    Op(dice.choice(NAMES), dice.randint(-9, 30), dice.randint(-9, 40), dice.randint(0, 100))
                    for _ in range(dice.randint(0, 6))
                ],
                dice.choice(["commit", *ENDINGS]),
                dice.randint(1, 6),
            )
            for _ in range(60)
        ]
        await process.shelf.erase(Place("Desk", "s"))
        await drive(process.shelf, script)
