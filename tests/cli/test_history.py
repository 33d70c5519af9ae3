"""The story of a run, told by its journal."""

from __future__ import annotations

import io
import re
from typing import Any

from msgspec import to_builtins
from rich.console import Console

from callboard.actors.events import Event
from callboard.cli.history import Call, History, errors, line
from callboard.infra.durations import seconds
from callboard.infra.messages.control import RunCall, RunCalls, SentCall
from callboard.infra.messages.run import Awaited

RUN = "01RUN"


def told(*events: tuple[str, dict[str, Any]]) -> History:
    """The history after these events, a second apart."""
    history = History()
    for number, (kind, data) in enumerate(events, 1):
        history.add(Event(kind, number, float(number), data))
    return history


def result(path: str, call: str = "a.call", **more: Any) -> tuple[str, dict[str, Any]]:
    """The outcome of a call."""
    return "result", {"future": f"{RUN}:{path}", "call": call, "host": "h-1", **more}


def failed(path: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """The failure of a call."""
    return result(path, error={"code": "call_failed", "message": "no"}, **more)


def pending(**deps: str) -> tuple[str, dict[str, Any]]:
    """Announced calls, each with the paths it waits for."""
    futures = [
        {"future": f"{RUN}:{path[1:]}", "call": "b.call", "deps": [f"{RUN}:{dep}" for dep in of.split()]}
        for path, of in deps.items()
    ]
    return "pending", {"futures": futures}


def states(history: History) -> dict[str, str]:
    """The state of each call."""
    return {call.path: call.state for call in history.sorted()}


def test_a_call_waits_until_what_it_needs_is_there() -> None:
    """It is sent then; whether it runs the journal does not tell."""
    first = pending(c3="1 2")
    assert states(told(first)) == {"3": "waiting"}
    assert states(told(first, result("1"))) == {"1": "done", "3": "waiting"}
    assert states(told(first, result("1"), result("2"))) == {"1": "done", "2": "done", "3": "sent"}
    assert states(told(result("1"), result("2"), first))["3"] == "sent"


def test_waits_are_told() -> None:
    """What a run waits for besides its calls: as its driver says, or as it was put aside."""
    paid = Awaited(f"{RUN}:2", "callboard.signal", "paid", 1000.0)
    slept = Awaited(f"{RUN}:3", "callboard.sleep", until=2000.0)
    history = History()
    assert [call.path for call in history.hosts_have([RunCalls("h-1", [], [paid])])] == ["2"]
    assert not history.hosts_have([RunCalls("h-1", [], [paid])])
    history.add(Event("aside", 5, 6.0, {"awaited": [to_builtins(paid), to_builtins(slept)]}))
    assert states(history) == {"2": "waiting", "3": "waiting"}
    assert re.match(r"2 +callboard.signal +waiting +\(paid, until 1970-.*\)$", line(history.calls["2"]))
    history.add(Event("result", 7, 8.0, {"future": f"{RUN}:2", "call": "callboard.signal", "signal": 6}))
    assert states(history) == {"2": "done", "3": "waiting"}
    screen = Console(width=120, record=True, file=io.StringIO())
    screen.print(history.table(start=1.0))
    assert re.search(r"2 +callboard.signal \(paid, until .*\) +done +\+7.00 s", screen.export_text())


def test_what_waits_for_a_failure_is_never_called() -> None:
    """Nor is what waits for that."""
    history = told(pending(c2="1", c3="2"), failed("1"))
    assert states(history) == {"1": "failed", "2": "not called", "3": "not called"}
    assert [(call.path, error["message"]) for call, error in errors(history.sorted())] == [("1", "no")]


def test_attempts_lead_to_an_outcome() -> None:
    """A failed attempt is no failure yet; the first outcome counts."""
    attempt = ("attempt", failed("1")[1])
    assert states(told(attempt)) == {"1": "retrying"}
    history = told(attempt, result("1", attempt=2), failed("1", attempt=3))
    assert states(history) == {"1": "done"}
    assert history.calls["1"].attempt == 2


def test_an_effect_is_begun_until_it_has_its_outcome() -> None:
    """With its key; it stays so where its host has died, and its state is unfinished at the end."""
    intent = ("intent", {"future": f"{RUN}:1", "call": "pay.call", "key": "order-7", "host": "h-1"})
    history = told(intent)
    assert states(history) == {"1": "begun"}
    assert "effect order-7" in line(history.calls["1"])
    assert states(told(intent, result("1"))) == {"1": "done"}
    assert states(told(result("1"), intent)) == {"1": "done"}
    ended = told(intent, ("done", {"run": RUN, "workflow": "w", "status": "cancelled"}))
    assert states(ended) == {"1": "unfinished"}
    assert ended.calls["1"].effect == "effect order-7"


def test_calls_made_by_calls_stand_below_them() -> None:
    """Also before their parent is heard of, in a branch, and for a second attempt of the parent."""
    history = told(result("10"), result("2.1"), result("3/2"), result("2~2.1"), result("2.1.1"))
    assert [call.path for call in history.sorted()] == ["2", "2.1", "2.1.1", "2~2.1", "3/2", "10"]
    assert states(history)["2"] == "running"
    assert [history.calls[path].depth for path in ("2", "2.1", "2.1.1", "3/2")] == [0, 1, 2, 0]


def test_the_end_of_a_run_ends_what_still_ran() -> None:
    """A call that nobody waited for, for example."""
    history = told(pending(c1=""), ("done", {"run": RUN, "workflow": "w", "status": "completed"}))
    assert states(history) == {"1": "unfinished"}
    assert history.done is not None


def test_owners_and_signals_are_kept() -> None:
    """Who drove the run, and what reached it from outside."""
    history = told(
        ("owner", {"driver": "h-1", "epoch": 1}),
        ("owner", {"driver": "h-2", "epoch": 2}),
        ("signal", {"name": "cancel", "reason": "enough"}),
    )
    assert [(owner["driver"], owner["epoch"], owner["at"]) for owner in history.owners] == [
        ("h-1", 1, 1.0),
        ("h-2", 2, 2.0),
    ]
    assert history.signals == [{"name": "cancel", "reason": "enough", "at": 3.0}]


def printed(history: History, **options: Any) -> list[str]:
    """The table's lines."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(history.table(**options))
    return capture.get().splitlines()


def test_the_table_shows_who_waited_for_whom() -> None:
    """One line a call, indented below the call that made it."""
    outcomes = (result("1"), result("2"), result("3", "b.call", took=0.5), result("3.1"))
    lines = printed(told(pending(c3="1 2"), *outcomes))
    assert len(lines) == 5
    assert "500.0 ms" in lines[3]
    assert lines[3].rstrip().endswith("1, 2")
    assert lines[3].index("b.call") + 2 == lines[4].index("a.call")


def test_a_table_that_does_not_fit_shows_what_goes_on() -> None:
    """Calls that are not over come first, then the latest; the rest is counted."""
    history = told(pending(c90="89"), *(result(str(number)) for number in range(1, 21)))
    lines = printed(history, rows=3)
    assert [text.split()[0] for text in lines[1:4]] == ["19", "20", "90"]
    assert "and 18 more" in lines[4]
    assert history.counts() == "1 waiting, 20 done"


def test_names_are_no_markup() -> None:
    """Somebody's actor may be called as rich's colors are."""
    assert "[red]" in "".join(printed(told(result("1", call="[red].call"))))


def test_a_line_of_text_says_the_same() -> None:
    """For logs and pipes."""
    history = told(pending(c2="1"), failed("1", waited=0.0005, took=1.5, attempt=2))
    assert line(Call("2", "b.call", "waiting", after=["1"])).split() == ["2", "b.call", "waiting", "for", "1"]
    text = line(history.calls["1"])
    assert "on h-1, waited 500 µs, took 1.50 s, attempt 2: no" in text


def test_durations() -> None:
    """In the unit that fits."""
    assert [seconds(value) for value in (0.0000005, 0.0123, 1.0, 59.9, 61.2)] == [
        "0 µs",
        "12.3 ms",
        "1.00 s",
        "59.90 s",
        "1 min 1 s",
    ]


def test_a_dead_call_that_was_run_after_all() -> None:
    """Stays dead for its run; what came of it is told beside that. A copy of its death is no news."""
    dead = result("1", error={"code": "poisoned", "message": "dead"})
    waits = pending(c2="1")
    history = told(waits, dead, dead, ("done", {"status": "failed"}), failed("1"), result("1", host="h-2"))
    assert states(history) == {"1": "failed", "2": "not called"}
    assert [(call.path, call.state, call.host) for call in history.afterwards] == [
        ("1", "failed", "h-1"),
        ("1", "done", "h-2"),
    ]


def has(path: str, took: float | None = 0.5, host: str = "h-1", **more: Any) -> RunCalls:
    """What a host says of one call."""
    return RunCalls(host, [RunCall(f"{RUN}:{path}", "a.call", took=took, **more)])


def test_hosts_tell_what_runs_now() -> None:
    """A call that no entry tells of yet is there, with its host; one in a mailbox does not run."""
    history = told(pending(c3="1"))
    (begun,) = history.hosts_have([has("1", waited=0.25), has("2", took=None, host="h-2")])
    assert (begun.path, begun.name, begun.host, begun.took) == ("1", "a.call", "h-1", 0.5)
    assert line(begun).endswith("running  on h-1, waited 250.0 ms")
    assert states(history) == {"1": "running", "2": "sent", "3": "waiting"}
    assert history.hosts_have([has("1", took=1.0)]) == []
    assert history.calls["1"].took == 1.0


def test_calls_that_nobody_has_begun_are_there() -> None:
    """What was sent, and for how long: whoever made it says so; one that runs is not put back."""
    history = told(pending(c3="1"))
    sent = [SentCall(f"{RUN}:{path}", "b.call", waited=7.0) for path in ("1", "2")]
    (begun,) = history.hosts_have([RunCalls("h-9", sent=sent), has("1", waited=0.25)])
    assert (begun.path, begun.waited) == ("1", 0.25)
    assert states(history) == {"1": "running", "2": "sent", "3": "waiting"}
    assert (history.calls["2"].name, history.calls["2"].waited) == ("b.call", 7.0)
    assert not history.hosts_have([RunCalls("h-9", sent=sent), has("1", waited=0.25)])
    assert states(history)["1"] == "running"
    screen = Console(width=120, record=True, file=io.StringIO())
    screen.print(history.table(start=1.0))
    assert re.search(r"2 +b.call +sent +7.00 s", screen.export_text())


def test_a_call_whose_host_is_silent_is_not_said_to_run() -> None:
    """Once may be chance; and whatever hosts say late, an outcome stays."""
    history = told()
    history.hosts_have([has("1")])
    history.hosts_have([])
    assert states(history) == {"1": "running"}
    history.hosts_have([])
    history.hosts_have([])
    assert (states(history), history.calls["1"].host) == ({"1": "sent"}, "")
    (again,) = history.hosts_have([has("1", host="h-2", attempt=2)])
    assert (again.host, again.attempt) == ("h-2", 2)
    history.add(Event("result", 9, 9.0, result("1", host="h-2")[1]))
    assert history.hosts_have([has("1", host="h-2")]) == []
    assert states(history) == {"1": "done"}
