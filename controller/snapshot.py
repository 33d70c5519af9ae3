"""A view at one moment, for people and programs: few lines, the busiest first."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
import numpy as np
from numpy.typing import NDArray

from callboard.controller.reading import State
from callboard.controller.table import Rows
from callboard.controller.view import View

LINES = 20
"""At most so many lanes, sessions and runs."""


class HostLine(msgspec.Struct):
    """A host; cpu: cores in use; memory: bytes; late: seconds; running, waiting: calls there."""

    host: str
    cpu: float
    memory: int
    late: float
    draining: bool
    running: int
    waiting: int


class ActorLine(msgspec.Struct):
    """An actor.

    Attributes:
        hosts, busy, slots: of its instances; of a workflow the runs that are driven.
        held, rate: of a workflow: requests that wait to be accepted, and how many are, a second; None: all.
        announced, sent, waiting, running: futures by state.
        done, failed, retried: attempts that have ended since this view began; waited, took: seconds, lately.
    """

    actor: str
    workflow: bool
    hosts: int
    busy: int
    slots: int
    announced: int
    sent: int
    waiting: int
    running: int
    done: int
    failed: int
    retried: int
    waited: float
    took: float
    held: int = 0
    rate: float | None = None


class EngineLine(msgspec.Struct):
    """The engine of a model on a host, as it tells itself.

    Attributes:
        answers: whether it does; where not, nothing else is known of it, and all of that is 0.
        slots: requests that the host lets into it.
        running, waiting: requests in its batch, and before it; kv: share of its KV cache in use, 0 to 1.
        queried, hit: tokens looked for in its prefix cache, and found, since it was started. So are prompt
            and generated: tokens read and made, and preempted: requests put back from the batch.
    """

    actor: str
    host: str
    slots: int
    running: int
    waiting: int
    kv: float
    queried: int
    hit: int
    prompt: int
    generated: int
    preempted: int
    answers: bool = True


class LaneLine(msgspec.Struct):
    """A lane in which calls wait.

    Attributes:
        waiting: calls that are in it; oldest: seconds for which the first of them has waited.
        mailbox: of a host's own: calls of this band in its mailbox, from wherever they came.
    """

    lane: str
    waiting: int
    oldest: float
    mailbox: int = 0


class SessionLine(msgspec.Struct):
    """A session of which something is open."""

    session: str
    futures: int
    oldest: float


class RunLine(msgspec.Struct):
    """A run; age: seconds; driver: empty while nobody is known to drive it."""

    run: str
    workflow: str
    session: str
    driver: str
    age: float
    futures: int


class Snapshot(msgspec.Struct):
    """What a view shows.

    Attributes:
        at: unix seconds; leader: the controller that leads, or nothing.
        futures: by state; sessions_open, runs_open: how many there are, beyond those listed.
    """

    at: float
    leader: str
    futures: dict[str, int]
    sessions_open: int
    runs_open: int
    hosts: list[HostLine]
    actors: list[ActorLine]
    engines: list[EngineLine]
    lanes: list[LaneLine]
    sessions: list[SessionLine]
    runs: list[RunLine]


def snapshot(
    view: View, now: float, leader: str = "", rates: Mapping[str, float] = MappingProxyType({})
) -> Snapshot:
    """A view as it is.

    Args:
        now: unix seconds; rates: requests that are accepted a second, by workflow.
    """
    there = view.futures["alive"]
    states = np.bincount(view.futures["state"][there], minlength=len(State) + 1)
    return Snapshot(
        at=now,
        leader=leader,
        futures={state.name.lower(): int(states[state]) for state in State},
        sessions_open=len(view.sessions),
        runs_open=len(view.runs),
        hosts=_hosts(view),
        actors=_actors(view, rates),
        engines=_engines(view),
        lanes=_lanes(view, now),
        sessions=_sessions(view, now),
        runs=_runs(view, now),
    )


def _by_state(view: View, column: str, size: int) -> dict[State, NDArray[np.intp]]:
    state = view.futures["state"]
    return {one: view.futures.count_by(column, size, state == one) for one in State}


def _hosts(view: View) -> list[HostLine]:
    hosts = view.hosts
    calls = _by_state(view, "executor", len(hosts.keys))
    return [
        HostLine(
            hosts.keys[row],
            round(float(hosts["cpu"][row]), 3),
            int(hosts["memory"][row]),
            round(float(hosts["late"][row]), 3),
            bool(hosts["draining"][row]),
            int(calls[State.RUNNING][row]),
            int(calls[State.WAITING][row]),
        )
        for row in sorted(hosts.rows, key=lambda row: hosts.keys[row])
    ]


def _actors(view: View, rates: Mapping[str, float]) -> list[ActorLine]:
    actors, instances, size = view.actors, view.instances, len(view.actors.keys)
    calls = _by_state(view, "actor", size)
    there = instances["alive"]
    of = instances["actor"][there]
    hosts = np.bincount(of, minlength=size)
    busy = np.bincount(of, instances["busy"][there], size)
    slots = np.bincount(of, instances["slots"][there], size)
    held = np.bincount(of, instances["mailbox"][there], size)
    return [
        ActorLine(
            actor=actors.keys[row],
            workflow=bool(actors["workflow"][row]),
            hosts=int(hosts[row]),
            busy=int(busy[row]),
            slots=int(slots[row]),
            **{state.name.lower(): int(calls[state][row]) for state in State},
            done=int(actors["done"][row]),
            failed=int(actors["failed"][row]),
            retried=int(actors["retried"][row]),
            waited=round(float(actors["waited"][row]), 6),
            took=round(float(actors["took"][row]), 6),
            held=int(held[row]) if actors["workflow"][row] else 0,
            rate=rates.get(actors.keys[row]),
        )
        for row in sorted(actors.rows, key=lambda row: (bool(actors["workflow"][row]), actors.keys[row]))
    ]


def _engines(view: View) -> list[EngineLine]:
    told = view.instances
    rows = np.flatnonzero(told["alive"] & (told["engine"] | told["down"])).tolist()
    return [
        EngineLine(
            actor=view.actors.keys[told["actor"][row]],
            host=view.hosts.keys[told["host"][row]],
            slots=int(told["slots"][row]),
            running=int(told["in_batch"][row]),
            waiting=int(told["in_queue"][row]),
            kv=round(float(told["kv"][row]), 4),
            queried=int(told["queried"][row]),
            hit=int(told["hit"][row]),
            prompt=int(told["prompt"][row]),
            generated=int(told["generated"][row]),
            preempted=int(told["preempted"][row]),
            answers=bool(told["engine"][row]),
        )
        for row in sorted(rows, key=lambda row: told.keys[row])
    ]


def _oldest(view: View, column: str, size: int, among: NDArray[np.bool_]) -> NDArray[np.float64]:
    """When the oldest future of each row was made."""
    oldest = np.full(size, np.inf)
    chosen = among & (view.futures[column] >= 0)
    np.minimum.at(oldest, view.futures[column][chosen], view.futures["made"][chosen])
    return oldest


def _busiest(counts: NDArray[np.intp]) -> Rows:
    rows = np.flatnonzero(counts)
    return rows[np.argsort(-counts[rows], kind="stable")][:LINES]


def _lanes(view: View, now: float) -> list[LaneLine]:
    state, size = view.futures["state"], len(view.lanes.keys)
    sent = view.futures["alive"] & (state == State.SENT)
    counts = view.futures.count_by("lane", size, sent)
    oldest = _oldest(view, "lane", size, sent)
    own = view.lanes["alive"] & (view.lanes["host"] >= 0)
    mailbox = np.where(own, view.lanes["waiting"], 0)
    return [
        LaneLine(view.lanes.keys[row], int(counts[row]), _since(now, oldest[row]), int(mailbox[row]))
        for row in _busiest(counts + mailbox)
    ]


def _sessions(view: View, now: float) -> list[SessionLine]:
    size = len(view.sessions.keys)
    counts = view.futures.count_by("session", size)
    oldest = _oldest(view, "session", size, view.futures["alive"])
    return [
        SessionLine(view.sessions.keys[row], int(counts[row]), _since(now, oldest[row]))
        for row in _busiest(counts)
    ]


def _runs(view: View, now: float) -> list[RunLine]:
    runs = view.runs
    counts = view.futures.count_by("run", len(runs.keys))
    rows = runs.rows
    first = rows[np.argsort(runs["began"][rows], kind="stable")][:LINES]
    return [
        RunLine(
            runs.keys[row],
            view.actors.keys[runs["workflow"][row]],
            view.sessions.keys[runs["session"][row]] if runs["session"][row] >= 0 else "",
            view.hosts.keys[runs["driver"][row]] if runs["driver"][row] >= 0 else "",
            _since(now, float(runs["began"][row]) or now),
            int(counts[row]),
        )
        for row in first
    ]


def _since(now: float, at: float) -> float:
    return round(max(0.0, now - at), 3)
