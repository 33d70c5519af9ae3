"""What has happened in a run, made from its journal: a tree of calls, for `run --watch` and `show`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import convert

from callboard.cli.output import lately, table
from callboard.infra.durations import seconds
from callboard.infra.messages.run import Awaited

if TYPE_CHECKING:
    from rich.table import Table

    from callboard.actors.events import Event
    from callboard.infra.messages.control import RunCalls

_COLORS = {
    "done": "green",
    "failed": "red",
    "retrying": "yellow",
    "running": "cyan",
    "begun": "cyan",
    "sent": "dim",
    "waiting": "dim",
    "not called": "yellow",
    "unfinished": "yellow",
}
_GONE = 2
_ENDED = frozenset({"done", "failed", "not called", "unfinished"})


@dataclass
class Call:
    """One call of a run.

    Attributes:
        path: its place, for example ``7.2``: the second call made by call 7.
        state: ``waiting`` (for other futures, or for a time, a signal or an answer), ``sent`` (and queued,
            as far as is known), ``running`` (as its host says), ``begun`` (its effect was announced,
            and nobody has told its outcome), ``retrying``, ``done``, ``failed``, ``not called``
            (what it waited for failed) or ``unfinished`` (the run ended).
        waited, took: seconds in the queue and in the handler; at: unix seconds of the latest news.
        after: paths of the calls whose values it takes.
        effect: ``effect`` and its key, if it has announced one.
        awaits: of a wait, the signal's name and until when.
    """

    path: str
    name: str = "?"
    state: str = "sent"
    host: str = ""
    attempt: int = 1
    waited: float = 0.0
    took: float = 0.0
    at: float = 0.0
    after: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    effect: str = ""
    awaits: str = ""
    missed: int = 0
    """How often its host has not told of it since it did."""

    @property
    def ended(self) -> bool:
        """Whether it has its outcome."""
        return self.state in _ENDED

    @property
    def depth(self) -> int:
        """How many calls it is nested in."""
        return self.path.count(".")

    @property
    def order(self) -> list[int]:
        """What sorts calls as the code makes them."""
        return [int(number) for number in re.findall(r"\d+", self.path)]


class History:
    """The story of one run; feed it with events."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.owners: list[dict[str, Any]] = []
        self.signals: list[dict[str, Any]] = []
        self.done: dict[str, Any] | None = None
        self.afterwards: list[Call] = []
        """Dead calls that were run after all: too late for the run."""

    def add(self, event: Event) -> list[Call]:
        """Take in an event; returns the calls that it tells of."""
        data = event.data
        if event.kind == "pending":
            return [self._announced(one, event.at) for one in data["futures"]]
        if event.kind in {"result", "attempt"}:
            return [self._outcome(data, event.at, final=event.kind == "result")]
        if event.kind == "intent":
            return [self._begun(data, event.at)]
        if event.kind == "owner":
            self.owners.append({"epoch": data["epoch"], "driver": data["driver"], "at": event.at})
        elif event.kind == "signal":
            told = {"name": data["name"], "reason": data.get("reason", ""), "at": event.at}
            self.signals.append(told | ({"future": data["future"]} if data.get("future") else {}))
        elif event.kind == "aside":
            waits = (self._waits(convert(one, Awaited), event.at) for one in data.get("awaited", ()))
            return [call for call in waits if call is not None]
        elif event.kind == "done":
            self.done = data
            return self._unfinished(event.at)
        return []

    def _unfinished(self, at: float) -> list[Call]:
        left = [call for call in self.calls.values() if not call.ended]
        for call in left:
            call.state, call.at = "unfinished", at
        return left

    def _announced(self, data: Mapping[str, Any], at: float) -> Call:
        call = self._call(data["future"], data["call"])
        call.after = [_path(dep) for dep in data.get("deps", ())]
        if not call.ended:
            call.at = at
            self._awaited(call)
        return call

    def _begun(self, data: Mapping[str, Any], at: float) -> Call:
        call = self._call(data["future"], data["call"])
        call.effect = f"effect {data.get('key', '')}".rstrip()
        if not call.ended:
            call.state, call.host, call.attempt = "begun", data.get("host", ""), data.get("attempt", 1)
            call.at = at
        return call

    def _waits(self, told: Awaited, at: float) -> Call | None:
        """A wait as a call, if this is news."""
        call = self._call(told.future, told.call)
        if call.ended or call.state == "waiting":
            return None
        until = f"until {lately(told.until)}" if told.until else ""
        call.state, call.at = "waiting", at
        call.awaits = ", ".join(filter(None, (told.name, until)))
        return call

    def _outcome(self, data: Mapping[str, Any], at: float, *, final: bool) -> Call:
        call = self._call(data["future"], data["call"])
        if call.ended:  # a late copy: the first outcome counts
            if not _dead(call.error) or _dead(data.get("error")):
                return call
            call = Call(call.path, call.name)
            self.afterwards.append(call)
        call.error = data.get("error")
        call.state = ("failed" if call.error else "done") if final else "retrying"
        call.host, call.attempt, call.at = data.get("host", ""), data.get("attempt", 1), at
        call.waited, call.took = data.get("waited", 0.0), data.get("took", 0.0)
        parent = _parent(call.path)
        if parent and (made_by := self._call(f":{parent}")).state == "sent":
            made_by.state = "running"
        if final:
            self._resolved(call)
        return call

    def _resolved(self, call: Call) -> None:
        for other in list(self.calls.values()):
            if other.state == "waiting" and call.path in other.after:
                other.at = call.at
                self._awaited(other)
                if other.ended:
                    self._resolved(other)

    def _awaited(self, call: Call) -> None:
        states = [self.calls[dep].state if dep in self.calls else "sent" for dep in call.after]
        if any(state in {"failed", "not called"} for state in states):
            call.state = "not called"
        else:
            call.state = "sent" if all(state == "done" for state in states) else "waiting"

    def hosts_have(self, told: Iterable[RunCalls]) -> list[Call]:
        """Take in what hosts say that they have now; returns the calls that have begun since."""
        begun: list[Call] = []
        seen: set[str] = set()
        for sent in (sent for told_by in told for sent in told_by.sent):
            call = self._call(sent.future, sent.call)
            if call.state == "sent":
                call.waited = sent.waited
        for host, one in ((told_by.host, one) for told_by in told for one in told_by.calls):
            call = self._call(one.future, one.call)
            if call.ended or one.took is None:
                continue
            seen.add(call.path)
            if (call.state, call.host, call.attempt) != ("running", host, one.attempt):
                begun.append(call)
            call.state, call.host, call.attempt = "running", host, one.attempt
            call.waited, call.took = one.waited, one.took
        waits = (self._waits(one, time.time()) for told_by in told for one in told_by.waits)
        begun += [call for call in waits if call is not None]
        for call in self.calls.values():
            call.missed = call.missed + 1 if call.path not in seen and call.state == "running" else 0
            if call.missed > _GONE and call.host:  # its host has died, or has given it back
                call.state, call.host = "sent", ""
        return begun

    def _call(self, future: str, name: str = "?") -> Call:
        path = _path(future)
        call = self.calls.setdefault(path, Call(path))
        if name != "?":
            call.name = name
        return call

    # -- showing --------------------------------------------------------------------------------------

    def sorted(self) -> list[Call]:
        """All calls in the order of the code, each before the calls it made."""
        return sorted(self.calls.values(), key=lambda call: call.order)

    def table(self, rows: int | None = None, start: float = 0.0) -> Table:
        """The calls as a table.

        Args:
            rows: most of them; those that are not over and the latest come first.
            start: unix seconds; with it, the times at which calls ended are shown.
        """
        titles = ["call", "", "state", "host", "waited", "took", "after", *(["ended at"] if start else [])]
        calls = table(titles, numbers=("waited", "took", "ended at"), texts=("after",))
        shown = self._most_telling(rows)
        for call in shown:
            over = call.state in {"done", "failed"}
            ended = [f"+{seconds(call.at - start)}" if over else ""] if start else []
            calls.add_row(*_cells(call), *ended)
        left = len(self.calls) - len(shown)
        if left:
            calls.add_row("", f"[dim]and {left} more[/]")
        return calls

    def _most_telling(self, rows: int | None) -> list[Call]:
        calls = self.sorted()
        if rows is None or len(calls) <= rows:
            return calls
        chosen = sorted(calls, key=lambda call: (call.ended, -call.at))[:rows]
        return sorted(chosen, key=lambda call: call.order)

    def counts(self) -> str:
        """How many calls are in which state."""
        found: dict[str, int] = {}
        for call in self.calls.values():
            found[call.state] = found.get(call.state, 0) + 1
        return ", ".join(f"{number} {state}" for state, number in found.items()) or "no calls yet"


def line(call: Call) -> str:
    """A call in one line of plain text."""
    text = f"{call.path:<8} {call.name:<24} {call.state:<8}"
    if call.awaits:
        text = f"{text.rstrip()}  ({call.awaits})"
    if call.state == "waiting":
        return f"{text} for {', '.join(call.after)}" if call.after else text.rstrip()
    if not call.host:
        return text.rstrip()
    if call.effect:
        text += f", {call.effect}"
    text += f" on {call.host}, waited {seconds(call.waited)}"
    if call.state not in {"running", "begun"}:
        text += f", took {seconds(call.took)}"
    if call.attempt > 1:
        text += f", attempt {call.attempt}"
    return f"{text}: {call.error['message']}" if call.error else text


def errors(calls: Iterable[Call]) -> list[tuple[Call, dict[str, Any]]]:
    """The failed calls with their errors."""
    return [(call, call.error) for call in calls if call.error and call.state == "failed"]


def _cells(call: Call) -> list[str]:
    from rich.markup import escape

    color = _COLORS[call.state]
    state = call.state if call.attempt == 1 else f"{call.state} ({call.attempt})"
    waited = seconds(call.waited) if call.host or call.waited else ""
    took = seconds(call.took) if call.host else ""
    name = f"{'  ' * call.depth}{escape(call.name)}"
    if more := call.effect or call.awaits:
        name += f" [dim]({escape(more)})[/]"
    return [call.path, name, f"[{color}]{state}[/]", call.host, waited, took, ", ".join(call.after)]


def _dead(error: Mapping[str, Any] | None) -> bool:
    return error is not None and error["code"] == "poisoned"


def _path(future: str) -> str:
    return future.partition(":")[2]


def _parent(path: str) -> str:
    """The path of the call that made this one; empty for the workflow itself."""
    return re.sub(r"~\d+$", "", path.rpartition(".")[0])
