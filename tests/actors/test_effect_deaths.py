"""A thousand effects whose hosts die between any two steps: none happens twice, and nobody is left untold."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from tests.support.board import Board, instance
from tests.support.waiting import eventually

from callboard import ManagedCounter, NotDone, OutcomeUnknown, agent, effect_key, method, tool, workflow
from callboard.actors import managed
from callboard.actors import outcomes as attempts
from callboard.infra import subjects
from callboard.infra.errors import Poisoned
from callboard.infra.store import Store
from callboard.state.intents import Intents
from callboard.state.journal import Journal

FIRST = ("before the intent", "intent stored", "begun", "happened", "returned", "outcome stored")
LATER = (*FIRST, "intent read", "reconciling", "reconciled")
RAISED = "raised"
"""The attempt's failure is stored, its schedule is not."""
COMMITTED = "committed"
"""The state and the outcome are stored together; the journal has not heard of it."""
ALSO = {"try_twice.call": (RAISED,), "Till.take": (COMMITTED,)}
ROUNDS = 3
"""Hosts that one call may see die; less than make it a deadly one."""


class Ledger:
    """What has happened in the world, told by the handlers: SQLite, outside of Callboard and NATS.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._base = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._base.execute("PRAGMA synchronous=OFF")
        self._base.execute("CREATE TABLE done (name TEXT NOT NULL)")

    async def write(self, name: str) -> None:
        """Something happens; twice, if it is told to."""
        await asyncio.to_thread(self._execute, "INSERT INTO done VALUES (?)", name)

    async def has(self, name: str) -> bool:
        """Whether it has happened."""
        return bool(await asyncio.to_thread(self._execute, "SELECT 1 FROM done WHERE name = ?", name))

    def counts(self) -> Counter[str]:
        """How often what has happened."""
        return Counter(name for (name,) in self._execute("SELECT name FROM done"))

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def _execute(self, statement: str, *values: str) -> list[tuple[str]]:
        with self._lock:
            return self._base.execute(statement, values).fetchall()


class Deaths:
    """Which call is at which step when its host dies: it stands still there until then.

    Args:
        seed: of what is drawn.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._plans: dict[str, list[str]] = {}
        self.round = 0
        self.standing: dict[str, str] = {}
        self.seen: Counter[str] = Counter()

    def is_due(self, step: str, future: str, also: tuple[str, ...] = ()) -> bool:
        """Whether this call is to stand still at this step in this round."""
        plan = self._plans.get(future)
        if plan is None:
            first, later = (*FIRST, *also), (*LATER, *also)
            plan = self._plans[future] = [
                self._chance.choice(first),
                *(self._chance.choice((*later, "")) for _ in range(ROUNDS - 1)),
            ]
        if self.round > ROUNDS or plan[self.round - 1] != step:
            return False
        self.standing[future] = step
        self.seen[step] += 1
        return True

    async def step(self, step: str, future: str, also: tuple[str, ...] = ()) -> None:
        """A call is at a step."""
        if self.is_due(step, future, also):
            await asyncio.get_running_loop().create_future()


DEATHS = Deaths(0)
LEDGER: Ledger


@tool(effect=True, concurrency=1000)
async def charge(name: str) -> str:
    """Nobody can tell afterwards."""
    await DEATHS.step("begun", effect_key())
    await LEDGER.write(name)
    await DEATHS.step("happened", effect_key())
    return name


@tool(effect=True, concurrency=1000)
async def ship(name: str) -> str:
    """The ledger tells."""
    await DEATHS.step("begun", effect_key())
    await LEDGER.write(name)
    await DEATHS.step("happened", effect_key())
    return name


@ship.reconcile
async def shipped(name: str) -> str:
    """Looks into the ledger."""
    await DEATHS.step("reconciling", effect_key())
    if not await LEDGER.has(name):
        raise NotDone
    await DEATHS.step("reconciled", effect_key())
    return name


@tool(effect=True, concurrency=1000, retries=1, backoff=0.05)
async def try_twice(name: str) -> str:
    """Raises the first time, before anything has happened."""
    future = effect_key()
    await DEATHS.step("begun", future)
    ATTEMPTS[future] += 1
    if ATTEMPTS[future] == 1:
        raise ValueError(name)
    await LEDGER.write(name)
    await DEATHS.step("happened", future)
    return name


@agent(concurrency=1000)
class Till:
    """An effect that also changes the state of its session."""

    count: ManagedCounter

    @method(effect=True)
    async def take(self, name: str) -> str:
        """Count it."""
        future = effect_key()
        await DEATHS.step("begun", future)
        self.count += 1
        await LEDGER.write(name)
        await DEATHS.step("happened", future)
        return name

    @method
    async def counted(self) -> int:
        """What was counted."""
        return self.count


ATTEMPTS: dict[str, int] = defaultdict(int)


@workflow
async def buying(kind: str, names: list[str]) -> dict[str, str]:
    """All of them at once; of each, what its caller was told."""
    call: Any = {"charge": charge, "ship": ship, "try_twice": try_twice}[kind]
    given = await asyncio.gather(*(call(name) for name in names), return_exceptions=True)
    return {name: told(name, one) for name, one in zip(names, given, strict=True)}


@workflow
async def taking(name: str) -> dict[str, Any]:
    """One effect in a session of its own; then what the session says."""
    (given,) = await asyncio.gather(Till.take(name), return_exceptions=True)
    return {name: told(name, given), "counted": await Till.counted()}


def told(name: str, outcome: object) -> str:
    """What has become of a call: ``done``, ``unknown``, ``never`` begun, or what nobody expects."""
    if isinstance(outcome, OutcomeUnknown):
        return "unknown"
    if isinstance(outcome, Poisoned):  # it was delivered too often, and each time its host died too soon
        return "never"
    return "done" if outcome == name else repr(outcome)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int) -> Any:
    """Steps between the lines of Callboard, and a ledger."""
    global DEATHS, LEDGER  # noqa: PLW0603 - handlers are declared at the top of a module
    DEATHS = Deaths(seed)
    LEDGER = Ledger(tmp_path / "ledger")
    ATTEMPTS.clear()
    put, outcomes, succeed, commit = Intents.put, Intents.outcomes, attempts.succeed, managed.commit
    put_result, store_put = Journal.put_result, Store.put

    async def stepping_put(self: Intents, run: str, intent: Any, after: int = 0) -> int:
        await DEATHS.step("before the intent", intent.future, ALSO.get(intent.call, ()))
        sequence = await put(self, run, intent, after)
        await DEATHS.step("intent stored", intent.future)
        return sequence

    async def stepping_outcomes(self: Intents, run: str, intent: Any) -> Any:
        found = await outcomes(self, run, intent)
        await DEATHS.step("intent read", intent.future)
        return found

    async def stepping_succeed(instance: Any, call: Any, value: Any, session: Any = None) -> None:
        await DEATHS.step("returned", call.id)
        await succeed(instance, call, value, session)

    async def stepping_commit(instance: Any, session: Any, call: Any, result: Any, held: Any) -> bool:
        committed = await commit(instance, session, call, result, held)
        await DEATHS.step(COMMITTED, call.id)
        return committed

    def stepping_result(self: Journal, run: str, result: Any, on_stored: Any) -> None:
        def stored(outcome: Any) -> None:
            if not DEATHS.is_due("outcome stored", result.future):
                on_stored(outcome)

        put_result(self, run, result, stored)

    def stepping_store(
        self: Store, subject: str, body: bytes, head: Any = None, told: Any = None, ack: str = ""
    ) -> None:
        future = subject.removeprefix("cb.timer.").rpartition("~")[0]
        if not subject.startswith("cb.timer.") or not DEATHS.is_due(RAISED, future):
            store_put(self, subject, body, head, told, ack)

    monkeypatch.setattr(Intents, "put", stepping_put)
    monkeypatch.setattr(Intents, "outcomes", stepping_outcomes)
    monkeypatch.setattr(attempts, "succeed", stepping_succeed)
    monkeypatch.setattr(managed, "commit", stepping_commit)
    monkeypatch.setattr(Journal, "put_result", stepping_result)
    monkeypatch.setattr(Store, "put", stepping_store)
    yield
    LEDGER.close()


async def until_no_host_is_left_to_die(board: Board) -> None:
    """Start a host; when each of its calls has ended or stands still, it dies, and the next one comes."""
    actors = (charge, ship, try_twice, Till)
    node = await board.node()
    while True:
        DEATHS.round += 1
        DEATHS.standing.clear()
        host = await board.host(*actors)

        moving: dict[str, Any] = {}

        async def stands(host: Any = host, moving: dict[str, Any] = moving) -> bool:
            calls = [call for actor in actors for call in instance(host, actor).running.values()]
            # A call that was delivered too often is none any more, and its message is held all the same.
            held = {number for pull in host.pulls() if pull.stream == subjects.CALLS for number in pull.held}
            left = (await node.topology.api("STREAM.INFO.CALLS"))["state"]["messages"]
            # What comes after a call that stands still, in its session, waits for it.
            still = {call.session for call in calls if call.id in DEATHS.standing and call.method.managed}
            moving.clear()
            moving |= {
                call.id: (call.attempt, call.delivered)
                for call in calls
                if call.id not in DEATHS.standing and call.session not in still
            }
            if left != len(held):
                moving["messages left, and held"] = (left, len(held))
            return not moving

        try:
            await eventually(stands, 60)
        except AssertionError as error:
            raise AssertionError(f"round {DEATHS.round}, host {host.id}: {moving}") from error
        if DEATHS.round > ROUNDS:
            return
        await board.kill(host)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1])
@pytest.mark.usefixtures("stage")
async def test_a_thousand_deaths_between_two_steps(board: Board) -> None:
    """Of each effect the ledger has one entry at most; who was not told its result was told so."""
    await board.host(buying, taking)
    client = await board.client()
    runs = [
        await client.submit(buying.name, {"kind": kind, "names": [f"{kind} {part} {n}" for n in range(100)]})
        for kind in ("charge", "ship", "try_twice")
        for part in range(3)
    ]
    tills = [await client.submit(taking.name, {"name": f"till {number}"}) for number in range(100)]
    outcomes: dict[str, Any] = {}
    async with asyncio.TaskGroup() as group:  # it must not wait for runs whose hosts do not come
        group.create_task(until_no_host_is_left_to_die(board))
        for run in runs:
            outcomes |= await client.result(run, 240)
        for run in tills:
            found = await client.result(run, 240)
            counted = found.pop("counted")
            assert counted <= 1
            outcomes |= found
    times = LEDGER.counts()
    assert len(outcomes) == 1000
    assert [name for name, count in times.items() if count > 1] == []
    assert set(outcomes.values()) <= {"done", "unknown", "never"}
    assert [name for name, what in outcomes.items() if what == "never" and times[name] > 0] == []
    assert [name for name, what in outcomes.items() if what == "done" and times[name] != 1] == []
    assert sum(DEATHS.seen.values()) >= 1000
    assert set(DEATHS.seen) >= {*LATER, RAISED, COMMITTED}
