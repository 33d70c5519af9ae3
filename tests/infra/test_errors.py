"""Errors are data: codes, fields, pickling."""

from __future__ import annotations

import pickle

import pytest

from callboard.infra import errors
from callboard.infra.errors import CallboardError, CallTimeout, ResultTimeout, WaitTimeout, by_code

CLASSES = [cls for _, cls in sorted(by_code().items())]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.code)
def test_an_error_survives_pickling(cls: type[CallboardError]) -> None:
    """Class, text and fields are the same in another process."""
    error = cls("what happened, to what", queue=3, path=["w", "a.b"])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is cls
    assert (again.message, again.fields) == (error.message, error.fields)
    assert str(again) == "what happened, to what"


def test_every_error_has_a_code_of_its_own() -> None:
    """Programs match on codes, so no two classes share one."""
    declared = [
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, CallboardError)
    ]
    assert len(by_code()) == len(declared)
    assert {cls.code for cls in declared} == set(by_code())


def test_a_users_subclass_does_not_take_the_place_of_its_base() -> None:
    """A subclass declared elsewhere shares its base's code, which still means the base."""

    class NoMoney(errors.Terminal):
        """Somebody's own error."""

    assert NoMoney.code == errors.Terminal.code
    assert by_code()[NoMoney.code] is errors.Terminal


@pytest.mark.parametrize("cls", [CallTimeout, ResultTimeout, WaitTimeout])
def test_who_waits_catches_what_python_calls_it(cls: type[CallboardError]) -> None:
    """As with asyncio and concurrent.futures, and nothing is lost by that."""
    with pytest.raises(TimeoutError, match=r"^it is late$") as caught:
        raise cls("it is late", timeout=2.0)
    assert isinstance(caught.value, CallboardError)
    assert (caught.value.message, caught.value.fields) == ("it is late", {"timeout": 2.0})
