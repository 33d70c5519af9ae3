"""Threads for blocking handlers: as many as are needed, and no longer than they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from callboard.actors import threads as module
from callboard.actors.threads import Threads

WITHIN = 30.0


@pytest.fixture
def threads() -> Iterator[Threads]:
    """Threads of the test's own."""
    made = Threads("mine")
    yield made
    made.close()


def running() -> list[threading.Thread]:
    """Those that have not ended."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("mine_")]


def end_all() -> None:
    """Wait until they have ended."""
    for thread in running():
        thread.join(WITHIN)
        assert not thread.is_alive()


def test_everything_runs_at_once(threads: Threads) -> None:
    """However many wait for each other."""
    together = threading.Barrier(100)
    made = [threads.submit(together.wait, WITHIN) for _ in range(100)]
    assert sorted(one.result(WITHIN) for one in made) == list(range(100))


def test_a_free_thread_is_used_again(threads: Threads) -> None:
    """One after the other needs only one."""
    names = {threads.submit(lambda: threading.current_thread().name).result(WITHIN) for _ in range(200)}
    assert len(names) == 1


def test_threads_without_work_end(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; further work gets new ones."""
    monkeypatch.setattr(module, "_IDLE", 0.01)
    threads.submit(int).result(WITHIN)
    end_all()
    assert threads.submit(int, "7").result(WITHIN) == 7


def test_work_that_comes_while_a_thread_ends_is_done(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes it."""
    monkeypatch.setattr(module, "_IDLE", 0.0)
    for number in range(2000):
        assert threads.submit(int, number).result(WITHIN) == number
    end_all()


def test_errors_and_cancelled_work(threads: Threads) -> None:
    """An error is the outcome; what was cancelled before it began does not run, and harms nobody."""
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(WITHIN)
    ran: list[int] = []
    cancelled: Future[None] = Future()
    cancelled.cancel()
    module._done(cancelled, ran.append, (1,))()
    assert ran == []
    assert threads.submit(int).result(WITHIN) == 0


def test_closing_ends_them(threads: Threads) -> None:
    """Those without work at once, the others when they are done."""
    going_on = threading.Event()
    busy = threads.submit(going_on.wait, WITHIN)
    threads.submit(int).result(WITHIN)
    threads.close()
    threads.close()
    going_on.set()
    assert busy.result(WITHIN)
    end_all()
