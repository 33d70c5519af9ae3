"""What a failed attempt leads to: how often, and how much later."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.directives import Directives
from callboard.actors.retry import retry_delay
from callboard.infra import errors
from callboard.infra.errors import CallTimeout, InvalidArguments, Overloaded, Terminal


class Flaky(Exception):
    """A user's error."""


class VeryFlaky(Flaky):
    """A more special one."""


class NoMoney(Terminal):
    """A user's error that no retry can help."""


@given(
    st.integers(1, 100_000),
    st.floats(0.001, 100),
    st.floats(0.001, 1000),
    st.integers(0, 100_000),
)
def test_the_delay_stays_within_its_bounds(
    attempt: int, backoff: float, backoff_max: float, retries: int
) -> None:
    """It doubles from ``backoff`` to ``backoff_max``, at least half of it for certain, at any attempt."""
    directives = Directives(retries=retries, backoff=backoff, backoff_max=backoff_max)
    delay = retry_delay(directives, Flaky(), attempt)
    if attempt > retries:
        assert delay is None
        return
    full = min(backoff_max, backoff * 2 ** min(attempt - 1, 60))
    assert delay is not None
    assert full / 2 <= delay <= full


def test_what_failed_together_does_not_come_back_together() -> None:
    """Part of the delay is drawn at random."""
    directives = Directives(retries=1, backoff=1.0)
    delays = {retry_delay(directives, Flaky(), 1) for _ in range(20)}
    assert len(delays) > 10


@pytest.mark.parametrize(
    ("options", "error", "again"),
    [
        ({}, Flaky(), True),
        ({}, Terminal("no"), False),
        ({}, NoMoney("no"), False),
        ({}, InvalidArguments("no"), False),
        ({}, Overloaded("later"), True),
        ({}, CallTimeout("slow"), False),
        ({"idempotent": True}, CallTimeout("slow"), True),
        ({"retry_on": ("Flaky",)}, Flaky(), True),
        ({"retry_on": ("Flaky",)}, VeryFlaky(), True),
        ({"retry_on": ("VeryFlaky",)}, Flaky(), False),
        ({"retry_on": ("NoMoney",)}, NoMoney("no"), True),
        ({"retry_on": ("OSError",)}, FileNotFoundError(), True),
        ({}, KeyboardInterrupt(), False),
        ({}, SystemExit(1), False),
    ],
)
def test_which_errors_are_tried_again(options: dict[str, Any], error: BaseException, again: bool) -> None:  # noqa: FBT001 - a case
    """A user's exception is; a terminal one is not; a time-out only if running again does no harm."""
    assert (retry_delay(Directives(retries=1, **options), error, 1) is not None) == again


@pytest.mark.parametrize("cls", [cls for _, cls in sorted(errors.by_code().items())])
def test_callboards_own_errors_say_themselves(cls: type[errors.CallboardError]) -> None:
    """An error's class says whether trying again can help."""
    delay = retry_delay(Directives(retries=1, idempotent=True), cls("x"), 1)
    assert (delay is not None) == (cls.retryable and not issubclass(cls, Terminal))
