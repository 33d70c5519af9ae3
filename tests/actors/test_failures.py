"""Exceptions as data, and back."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.failures import code_of, describe, path_of, restore, text_of
from callboard.infra import errors
from callboard.infra.errors import CallboardError, CallFailed, CallTimeout, Terminal
from callboard.infra.messages.run import ErrorInfo

CONTEXT = {"future": "run:7", "actor": "Agent", "method": "work", "attempt": 2, "host": "h-1"}


class NoMoney(Terminal):
    """A user's error on top of Callboard's."""


class Broke(Terminal):
    """A user's error on top of Callboard's, with an attribute and a constructor of its own."""

    def __init__(self, debt: int) -> None:
        super().__init__(f"owes {debt}", bank="Coutts")
        self.debt = debt


class Rich(ValueError):
    """A user's error with attributes and a constructor of its own."""

    def __init__(self, shop: str, *, price: float) -> None:
        super().__init__(f"too dear at {shop}")
        self.shop = shop
        self.price = price


class Counted(Exception):
    """Counts how often it is made."""

    made = 0

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        Counted.made += 1


class Wordy(Counted):
    """Its text is made by its constructor."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.__dict__["said"] = object()  # which cannot travel

    def __str__(self) -> str:
        return f"{self.args[0]}, {'said' if 'said' in vars(self) else 'and nothing said'}"


class Picky(Exception):
    """Cannot be made from its ``args``."""

    def __new__(cls, one: int, *, two: int) -> Self:
        """Demand more than what ``args`` holds."""
        return super().__new__(cls, one)

    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(one)


class Mute(Exception):
    """Cannot even be told."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Slotted(Exception):
    """Has fields that are no attributes of a dictionary."""

    __slots__ = ("place",)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return {}


class Outer:
    """Holds an error inside of it."""

    class Inner(Exception):
        """An error with a qualified name."""


def travel(error: BaseException, path: tuple[str, ...] = ("flow", "Agent.work")) -> BaseException:
    """Describe, encode, decode, restore: the way from a host to a driver."""
    body = msgspec.msgpack.encode(describe(error, path))
    return restore(msgspec.msgpack.decode(body, type=ErrorInfo), **CONTEXT)


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("k"),
        ValueError(),
        OSError(2, "No such file"),
        FileNotFoundError(2, "No such file", "name"),
        ZeroDivisionError("division by zero"),
        NoMoney("broke", account=7),
        Outer.Inner("deep"),
        TimeoutError("mine"),
    ],
    ids=repr,
)
def test_a_users_exception_comes_back_as_itself(error: Exception) -> None:
    """Class, arguments and text, where both sides have the class."""
    again = travel(raised(error))
    assert type(again) is type(error)
    assert (again.args, str(again)) == (error.args, str(error))


def test_attributes_of_an_exception_travel() -> None:
    """Though its constructor takes other arguments than ``args`` holds, and is not called."""
    again = travel(raised(Rich("Harrods", price=2.5)))
    assert isinstance(again, Rich)
    assert (again.shop, again.price, str(again)) == ("Harrods", 2.5, "too dear at Harrods")


def test_a_constructor_is_called_only_where_the_text_needs_it() -> None:
    """It may do anything: open a file, count, take other arguments."""
    for error, times in ((Counted("plain"), 0), (Wordy("a word"), 1)):
        Counted.made = 0
        again = travel(raised(error))
        assert (type(again), str(again), Counted.made) == (type(error), str(error), times)


def test_attributes_travel_on_top_of_callboards_own_errors() -> None:
    """Beside the fields that such an error has, over any number of hosts."""
    error: BaseException = Broke(7)
    for _ in range(3):
        error = travel(raised(error))
    assert isinstance(error, Broke)
    assert (error.debt, error.message, error.fields["bank"]) == (7, "owes 7", "Coutts")


def test_an_exception_of_the_standard_library_with_attributes() -> None:
    """``json``'s error keeps where it happened."""
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads('{"a": ]')
    again = travel(caught.value)
    assert isinstance(again, json.JSONDecodeError)
    assert (again.pos, again.lineno, again.doc) == (6, 1, '{"a": ]')


@pytest.mark.parametrize("cls", [cls for _, cls in sorted(errors.by_code().items())])
def test_callboards_own_errors_come_back_as_themselves(cls: type[CallboardError]) -> None:
    """With their fields; those about a call know the call as well."""
    again = travel(raised(cls("what happened", queue=3)))
    assert type(again) is cls
    assert isinstance(again, CallboardError)
    assert (again.message, again.fields["queue"]) == ("what happened", 3)
    if issubclass(cls, CallFailed):
        assert {key: again.fields[key] for key in CONTEXT} == CONTEXT
        assert again.fields["path"] == ["flow", "Agent.work"]


def test_what_happened_is_told_in_notes() -> None:
    """The workflow path, the call, its attempt and host, and the remote traceback."""
    again = travel(raised(ValueError("x")))
    notes = "\n".join(again.__notes__)
    assert "workflow path: flow > Agent.work" in notes
    assert "call run:7, attempt 2, on host h-1" in notes
    assert "remote traceback" in notes
    assert "test_failures.py" in notes


def test_a_class_that_is_not_here_becomes_call_failed() -> None:
    """Nothing is imported because a message names it; the error says what it was."""
    info = describe(raised(ValueError("x")), ("flow", "Agent.work"))
    info.type = "no.such.module:Oops"
    again = restore(info, **CONTEXT)
    assert type(again) is CallFailed
    assert "Agent.work raised ValueError: x" in again.message
    assert again.fields["remote_type"] == "no.such.module:Oops"
    assert "Traceback" in again.fields["remote_traceback"]


def test_nothing_is_imported_because_a_message_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that could be imported, and has the class, stays out."""
    (tmp_path / "told_of_only.py").write_text("class Oops(Exception): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    info = describe(raised(ValueError("x")), ("flow", "Agent.work"))
    info.type = "told_of_only:Oops"
    assert type(restore(info, **CONTEXT)) is CallFailed
    assert "told_of_only" not in sys.modules
    importlib.import_module("told_of_only")
    try:
        assert type(restore(info, **CONTEXT)).__name__ == "Oops"
    finally:
        del sys.modules["told_of_only"]


@pytest.mark.parametrize(
    "kind", ["os:system", "builtins:KeyboardInterrupt", "builtins:int", "sys:", "", ":", "a:b.c"]
)
def test_a_name_that_is_no_exception_is_not_made(kind: str) -> None:
    """Whatever a message names, only exception classes are ever instantiated."""
    info = ErrorInfo("call_failed", "x", kind, ["echo"])
    assert type(restore(info, **CONTEXT)) is CallFailed


@pytest.mark.parametrize(
    "error",
    [
        Picky(1, two=2),
        Mute("x"),
        Slotted("x"),
        ValueError(object()),
        ValueError([lambda: None]),
        ExceptionGroup("many", [ValueError("x")]),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "why"),
        SystemExit(3),
        CallFailed("x", weird=object()),
        CallboardError("x", value=2**70),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_that_cannot_be_made_again_is_told_all_the_same(error: BaseException) -> None:
    """Its outcome must reach the caller, whatever its class demands: it never gets lost on the way."""
    again = travel(raised(error))
    assert isinstance(again, Exception)
    assert "remote traceback" in "\n".join(again.__notes__)


def test_a_loop_in_an_argument_does_not_stop_it() -> None:
    """Arguments that cannot be encoded are left out."""
    loop: list[Any] = []
    loop.append(loop)
    assert type(travel(raised(ValueError(loop)))) is CallFailed


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 3_000_000),
        KeyError(b"x" * 3_000_000),
        CallboardError("x", data="x" * 3_000_000),
        ValueError(list(range(1_000_000))),
        json.JSONDecodeError("bad", "x" * 3_000_000, 5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_huge_error_is_cut_to_a_size_that_travels(error: Exception) -> None:
    """A message has room for a megabyte; an error must fit, with its causes, and say that it was cut."""
    deepest = error
    for _ in range(12):
        above = ValueError("y" * 100_000)
        above.__cause__ = deepest
        deepest = above
    for one in (error, deepest):
        assert len(msgspec.msgpack.encode(describe(raised(one)))) < 500_000
        again = travel(raised(one))
        assert isinstance(again, Exception)
        assert len(str(again)) < 50_000


def test_causes_come_along() -> None:
    """With their own class, text and traceback, as deep as they go, within reason."""
    try:
        try:
            raise KeyError("k")
        except KeyError as cause:
            raise ValueError("x") from cause
    except ValueError as error:
        again = travel(error)
    assert type(again.__cause__) is KeyError
    assert "remote traceback" in "\n".join(again.__cause__.__notes__)
    assert again.__cause__.__cause__ is None


def test_a_cause_whose_class_is_not_here() -> None:
    """It says what it was and does not pretend to know which call raised it."""
    info = describe(ValueError("x"))
    info.cause = ErrorInfo("call_failed", "Oops: deep", "no.such.module:Oops")
    cause = restore(info, **CONTEXT).__cause__
    assert type(cause) is CallFailed
    assert "Oops: deep" in cause.message
    assert "None" not in cause.message


def test_a_group_comes_back_with_its_parts() -> None:
    """So that ``except*`` finds them; a group within it is told in words."""
    inner = ExceptionGroup("inner", [KeyError("k")])
    group = restore(describe(ExceptionGroup("outer", [ValueError("a"), OSError(2, "gone"), inner])))
    assert isinstance(group, ExceptionGroup)
    assert group.message == "outer"
    assert [repr(part) for part in group.exceptions[:2]] == [
        "ValueError('a')",
        "FileNotFoundError(2, 'gone')",
    ]
    assert "inner (1 sub-exception)" in str(group.exceptions[2])
    many = restore(describe(ExceptionGroup("many", [ValueError("x" * 100_000)] * 100)))
    assert len(many.exceptions) == 16  # type: ignore[attr-defined]
    size = len(msgspec.msgpack.encode(describe(ExceptionGroup("many", [ValueError("x" * 100_000)] * 100))))
    assert size < 500_000


def test_a_loop_of_causes_ends() -> None:
    """An exception that is its own cause is described in finite time."""
    error = ValueError("x")
    error.__cause__ = KeyError("k")
    error.__cause__.__cause__ = error
    assert type(travel(error)) is ValueError


@given(
    st.text(max_size=50), st.lists(st.one_of(st.integers(-(2**63), 2**63), st.text(), st.none()), max_size=4)
)
def test_any_message_and_arguments_survive(message: str, args: list[Any]) -> None:
    """A user's exception with whatever arguments."""
    again = travel(RuntimeError(message, *args))
    assert type(again) is RuntimeError
    assert again.args == (message, *args)


TEXTS = st.text(max_size=12)
NAMES = st.one_of(TEXTS, st.sampled_from(["message", "self", "path", "args"]))
INFOS = st.builds(
    ErrorInfo,
    code=st.one_of(TEXTS, st.sampled_from(sorted(errors.by_code()))),
    message=TEXTS,
    type=st.one_of(
        TEXTS,
        st.sampled_from(
            [
                "builtins:ValueError",
                "builtins:OSError",
                "builtins:UnicodeDecodeError",
                "builtins:ExceptionGroup",
                "callboard.infra.errors:CallTimeout",
                "callboard.infra.errors:CallFailed",
            ]
        ),
    ),
    args=st.none() | st.lists(st.one_of(TEXTS, st.integers(0, 9)), max_size=3),
    fields=st.dictionaries(
        st.one_of(TEXTS, st.sampled_from(["message", "self", "path", "args", "__notes__"])), TEXTS, max_size=3
    ),
    path=st.lists(TEXTS, max_size=2),
    traceback=TEXTS,
)


@given(INFOS, st.one_of(st.none(), INFOS))
def test_any_description_can_be_restored(info: ErrorInfo, cause: ErrorInfo | None) -> None:
    """A description is somebody else's data: whatever it says, an exception comes out, never another one."""
    info.cause = cause
    error = restore(info, **CONTEXT)
    assert isinstance(error, Exception)
    assert isinstance(text_of(error), str)
    assert isinstance(code_of(error), str)


def test_a_restored_error_can_be_pickled() -> None:
    """Users' own tools carry errors between processes, too."""
    again = travel(raised(CallTimeout("slow", timeout=2.0)))
    copy = pickle.loads(pickle.dumps(again))  # noqa: S301 - our own bytes
    assert type(copy) is CallTimeout
    assert copy.fields["timeout"] == 2.0


def test_an_error_of_a_deep_call_is_told_once_for_each_host() -> None:
    """Attributes and notes of the user's own stay; the text grows with the depth, not with its power."""
    error: BaseException = raised(Rich("Harrods", price=2.5))
    error.add_note("try the market")
    path = ("flow", *["Agent.work"] * 60)
    sizes = []
    for depth in range(60, 0, -1):
        error = raised(travel(error, path[: depth + 1]))
        sizes.append(len("\n".join(error.__notes__)))
    assert isinstance(error, Rich)
    assert (error.shop, error.price) == ("Harrods", 2.5)
    assert error.__notes__[0] == "try the market"
    assert path_of(error) == [*path]
    notes = "\n".join(error.__notes__)
    assert notes.count("workflow path:") == 1
    assert sizes[9] < 12 * sizes[0]
    assert notes.count(f"call {CONTEXT['future']}") <= 60
    assert "Rich: too dear at Harrods" in notes.splitlines()[-2]


def test_a_long_traceback_is_cut_at_a_line() -> None:
    """Its end is kept, which is where the exception came from, and it says that it was cut."""

    def dig(depth: int) -> None:
        if depth:
            return dig_on(depth)
        raise ValueError("bottom")

    def dig_on(depth: int) -> None:
        dig(depth - 1)

    with pytest.raises(ValueError, match="bottom") as caught:
        dig(200)
    lines = describe(caught.value).traceback.splitlines()
    assert lines[0].startswith("[... ")
    assert lines[0].endswith(" characters more ...]")
    assert lines[-1] == "ValueError: bottom"
    assert all(line.startswith(("  ", "[", "ValueError")) for line in lines)
