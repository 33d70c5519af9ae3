"""Policies decide while their controller leads: what is stored, what is refused, who is switched off."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs
from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard import tool, workflow
from callboard.actors.entries import STREAM
from callboard.actors.host import Host
from callboard.controller import loading
from callboard.controller.controller import Controller
from callboard.controller.deciding import Deciders
from callboard.controller.decisions import Decisions, choose, chosen, reset, rounds, running
from callboard.controller.limited import within
from callboard.controller.policy import Act, Entry, Held, Policy
from callboard.controller.rounds import Rounds
from callboard.controller.view import View
from callboard.infra import subjects
from callboard.infra.errors import Fenced, PolicyTooSlow, PolicyUnusable
from callboard.infra.messages.policy import Admission, Decision, Priority
from callboard.infra.messages.registry import Leader

FILE = '''
from callboard.controller.policy import Policy

class First(Policy):
    """All calls to the first host."""
    every = 0.02
    def decide(self, view, act):
        hosts = sorted(view.hosts.keys[row] for row in view.hosts.rows)
        act.route("double", hosts, [1.0] + [0.0] * (len(hosts) - 1), reason="it is the first")
        act.route("double", hosts, [1.0] * len(hosts))

class Last(Policy):
    """All calls to the last host."""
    every = 0.02
    def decide(self, view, act):
        hosts = [host for host in (view.hosts.keys[row] for row in view.hosts.rows)]
        hosts = sorted(host for host in hosts if f"double@{host}" in view.instances)
        if hosts:
            act.route("double", [hosts[-1], "h-nowhere"], [1.0, 5.0])

class Chat(Policy):
    """The chat comes first."""
    every = 0.0
    def decide(self, view, act):
        act.set_priority("chat/7", 99)

class Narrow(Policy):
    """Few at a time."""
    every = 0.02
    rate = 0.5
    def decide(self, view, act):
        act.admit("doubling", self.rate)
        act.admit("doubling", 9.0)

class Broken(Policy):
    """Decides once."""
    every = 0.02
    rounds = 0
    def decide(self, view, act):
        self.rounds += 1
        act.set_priority(f"round-{self.rounds}", 1)
        if self.rounds > 1:
            raise ZeroDivisionError("no hosts")

class Odd(Policy):
    """Decides what cannot be written down."""
    every = 0.02
    by = object()
    def decide(self, view, act):
        hosts = [view.hosts.keys[row] for row in view.hosts.rows]
        act.route("double", hosts, [1.0] * len(hosts), by=self.by)

class Odder(Odd):
    """What nobody could read."""
    by = 5

class Ends(Policy):
    """Ends everything."""
    def decide(self, view, act):
        raise KeyboardInterrupt("all")

class Wordy(Policy):
    """Has much to say."""
    every = 0.02
    def decide(self, view, act):
        for number in range(1000):
            act.set_priority(f"s-{number}", 1, reason="x" * 5000)

class Many(Policy):
    """Too much at once."""
    every = 0.02
    def decide(self, view, act):
        for number in range(1500):
            act.set_priority(f"s-{number}", 1)
'''


@tool
async def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


@tool(concurrency=1)
async def takes_time(number: int) -> int:
    """Twenty a second."""
    await asyncio.sleep(0.05)
    return number


@workflow
async def slowly(number: int) -> int:
    """One call."""
    return await takes_time(number)


@workflow
async def doubling(count: int) -> list[int]:
    """One call after the other."""
    return [await double(number) for number in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with policies."""
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


@pytest.fixture
async def controllers() -> AsyncIterator[list[Controller]]:
    """Controllers that end with the test."""
    started: list[Controller] = []
    yield started
    for one in started:
        await one.stop()


async def lead(board: Board, controllers: list[Controller], *policies: str) -> Controller:
    """A controller that leads."""
    calm = board.settings(dead_after=3.0)  # a server that is slow for a moment is to end no lease
    controller = Controller(calm, policies=policies)
    controllers.append(controller)
    await controller.start()
    await controller.led()
    return controller


def held(controller: Controller) -> dict[str, Entry]:
    """What it knows to be decided."""
    assert controller.deciders is not None
    return controller.deciders.decisions.held.entries


def states(controller: Controller) -> dict[str, str]:
    """How its policies stand, by the class's name."""
    assert controller.deciders is not None
    return {one.name.rpartition(":")[2]: one.state for one in controller.deciders.states}


async def test_what_a_policy_decides_is_followed(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """With its epoch, the controller's, the policy's name and the reason; whoever is not there is left out."""
    driver, hosts = await board.host(doubling), [await board.host(double), await board.host(double)]
    controller = await lead(board, controllers, f"{file}:Last")
    await until(lambda: len(controller.view.instances) == 3)
    last = max(host.id for host in hosts)
    await until(lambda: [route.hosts for route in driver.routes.all()] == [{last: 1.0}])
    (route,) = driver.routes.all()
    assert (route.policy, route.reason) == (f"{file}:Last", "All calls to the last host.")
    assert (route.term, route.epoch > 0) == (controller.epoch, True)
    run = await board.submit(doubling, count=4)
    assert (await board.done(run)).status == "completed"
    results = await board.results(run)
    assert {(result.host, result.policy) for result in results} == {(last, route.epoch)}


async def test_a_decision_is_followed_within_50_ms(board: Board) -> None:
    """By whoever makes calls, and whoever has them; once at least, on a machine that does other work, too."""
    driver, host, node = await board.host(doubling), await board.host(double), await board.node()
    decisions = Decisions(node, "c-1", lambda _: None, host.caller.spawn)
    await decisions.lead(1)
    took: list[float] = []
    for number in range(100):
        key, begun = subjects.priority(f"s-{number}"), time.monotonic()
        await decisions.write([Decision("priority", key, value=1, policy="p", reason="a test")])
        for one in (driver, host):
            await until(lambda count=number + 1, one=one: len(one.priorities) == count)  # type: ignore[misc]
        took.append(time.monotonic() - begun)
        if took[-1] < 0.05:
            break
    assert min(took) < 0.05


async def test_a_limit_is_followed_and_ends_with_its_policy(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """Drivers accept as many as it says, until the policy is followed no more."""
    driver, node = await board.host(doubling), await board.node()
    controller = await lead(board, controllers, f"{file}:Narrow")
    await until(lambda: driver.admissions.of("doubling") is not None)
    limit = driver.admissions.of("doubling")
    assert limit is not None
    assert (limit.rate, limit.policy, limit.reason) == (0.5, f"{file}:Narrow", "Few at a time.")
    assert held(controller) == {subjects.admission("doubling"): limit}
    await choose(node, [])
    await until(lambda: driver.admissions.of("doubling") is None)


async def test_admission_by_predicted_wait(
    board: Board, controllers: list[Controller], tmp_path: Path
) -> None:
    """More is asked for than can be done in time: some wait, until it is so no more, and all are done."""
    own = tmp_path / "quick.py"
    own.write_text(
        "from callboard.controller.policies.admission import Admission\n"
        "class Quick(Admission):\n"
        "    every = 0.25\n"
        "    allowed = 1.0\n"
        "    least = 10\n"
    )
    driver, client = await board.host(slowly), await board.client()
    await board.host(takes_time)
    await lead(board, controllers, f"{own}:Quick")
    begun = time.monotonic()
    runs = [await client.submit(slowly.name, {"number": number}) for number in range(90)]
    more: list[str] = []
    await until(lambda: driver.admissions.of("slowly") is not None)
    limit = driver.admissions.of("slowly")
    assert limit is not None
    # Some 20 a second can be done, at least those ten by now; half of that are accepted.
    assert 0.5 * 10 / (time.monotonic() - begun) <= limit.rate < 40
    assert "allowed are 1" in limit.reason
    more = [await client.submit(slowly.name, {"number": number}) for number in range(90, 120)]
    (flow,) = [member for member in driver.instances() if member.name == "slowly"]
    await until(lambda: flow.info().mailbox > 0)
    for run in runs + more:
        await client.result(run, 30)
    await until(lambda: driver.admissions.of("slowly") is None)


async def test_a_limit_that_people_set_is_left_alone(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """No policy changes or ends it."""
    driver, client = await board.host(doubling), await board.client()
    by_hand = await client.admit("doubling", 100.0)
    controller = await lead(board, controllers, f"{file}:Narrow", f"{file}:Chat")
    await until(lambda: len(driver.priorities))
    assert held(controller)[subjects.admission("doubling")] == by_hand == driver.admissions.of("doubling")


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_an_error(rate: float) -> None:
    """The policy is at fault, and is to hear of it."""
    with pytest.raises(ValueError, match="rate"):
        Act(View(), "p").admit("doubling", rate)


@pytest.mark.parametrize("rate", [np.int64(3), np.float32(3), "3"])
def test_a_rate_may_come_from_a_column(rate: float) -> None:
    """It is stored as any other."""
    act = Act(View(), "p")
    act.admit("doubling", rate, reason=7)  # type: ignore[arg-type]
    (decision,) = msgspec.msgpack.decode(msgspec.msgpack.encode(act.decisions), type=list[Decision])
    assert (decision.rate, decision.reason) == (3.0, "7")


def test_a_limit_that_holds_already_is_not_decided_again() -> None:
    """Nor is the end of one that is not there."""
    known = Held({subjects.admission("w"): Admission("w", 2.0, term=1, policy="p")})
    act = Act(View(), "p", held=known)
    act.admit("w", 2.0001)
    act.admit("other", None)
    act.admit("no name\r\n", 1.0)
    assert act.decisions == []
    act = Act(View(), "p", held=known)
    act.admit("w", 0)
    assert [(one.what, one.key, one.rate) for one in act.decisions] == [
        ("admit", subjects.admission("w"), 0.0)
    ]


async def test_decisions_are_stored_when_they_change_something(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """However often a policy says the same."""
    controller = await lead(board, controllers, f"{file}:Chat")
    await until(lambda: held(controller))
    (entry,) = held(controller).values()
    assert isinstance(entry, Priority)
    assert (entry.session, entry.value, entry.reason) == ("chat/7", 9, "The chat comes first.")
    before = (await board.stream(STREAM))["last_seq"]
    host = await board.host(double)
    await until(lambda: controller.view.hosts["sequence"][controller.view.hosts.row(host.id)] > 2)
    assert (await board.stream(STREAM))["last_seq"] == before


async def test_one_that_raises_is_switched_off_and_its_last_decisions_stay(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """The others go on; why is told."""
    controller = await lead(board, controllers, f"{file}:Broken", f"{file}:Chat", "unheard_of")
    await until(lambda: states(controller).get("Broken") == "disabled")
    node = await board.node()
    told = await eventually(lambda: running(node))
    assert told is not None

    async def off() -> list[str]:
        told = await running(node)
        assert told is not None
        return [one.problem for one in told.policies if one.state == "disabled"]

    assert await eventually(off) == ["ZeroDivisionError: no hosts"]
    assert states(controller) == {"Broken": "disabled", "Chat": "deciding", "unheard_of": "unusable"}
    await until(lambda: len(held(controller)) == 2)
    entries = [entry for entry in held(controller).values() if isinstance(entry, Priority)]
    assert {entry.session for entry in entries} == {"round-1", "chat/7"}


async def test_what_cannot_be_stored_does_not_end_deciding(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """Whoever has decided it is switched off; the others go on."""
    await board.host(double)
    odd = "Odd", "Odder", "Ends"
    controller = await lead(board, controllers, *(f"{file}:{name}" for name in odd), f"{file}:Chat")
    await until(lambda: states(controller) == dict.fromkeys(odd, "disabled") | {"Chat": "deciding"})
    await until(lambda: held(controller))
    assert {entry.policy for entry in held(controller).values()} == {f"{file}:Chat"}


async def test_a_surprise_does_not_end_deciding(
    board: Board, controllers: list[Controller], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever kind."""
    surprises = [ValueError("nobody knows why")]
    decide = Rounds.decide

    def surprising(*args: Any) -> list[Decision]:
        if surprises:
            raise surprises.pop()
        return decide(*args)

    monkeypatch.setattr(Rounds, "decide", surprising)
    controller = await lead(board, controllers, f"{file}:Chat")
    await until(lambda: held(controller))
    assert not surprises


async def test_more_than_fits_into_a_message_is_decided(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """As several rounds; of a long reason the beginning is kept."""
    controller, node = await lead(board, controllers, f"{file}:Wordy"), await board.node()
    await until(lambda: len(held(controller)) == 1000)
    found = await rounds(node, 3000)
    assert [one.epoch for one in found] == sorted({one.epoch for one in found})
    told = [decision for one in found for decision in one.decisions]
    assert len(told) == 1000
    assert {decision.reason for decision in told} == {"x" * 1000}


async def test_policies_are_changed_while_the_controller_runs(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """By a key of the bucket; what is followed no more is cleared, what people decide stays."""
    host, client, node = await board.host(double), await board.client(), await board.node()
    by_hand = await client.route("other", "h-1")
    controller = await lead(board, controllers, f"{file}:Chat")
    await until(lambda: subjects.priority(subjects.session_token("chat/7")) in held(controller))
    await choose(node, [f"{file}:Last"])
    assert await chosen(node) == [f"{file}:Last"]
    await until(lambda: set(held(controller)) == {subjects.route("other"), subjects.route("double")})
    assert held(controller)[subjects.route("double")].policy == f"{file}:Last"
    await choose(node, [])
    await until(lambda: held(controller) == {subjects.route("other"): by_hand})
    await until(lambda: host.routes.all() == [by_hand])


async def test_what_was_chosen_goes_before_what_is_given(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """Whoever starts a controller with others hears so."""
    await choose(await board.node(), [f"{file}:Last"])
    with capture_logs() as logs:
        controller = await lead(board, controllers, f"{file}:Chat")
        await until(lambda: states(controller) == {"Last": "deciding"})
        await until(lambda: [one for one in logs if one["event"] == "policies_not_followed"])
    (told,) = [one for one in logs if one["event"] == "policies_not_followed"]
    assert told["policies"] == [f"{file}:Chat"]
    assert "callboard policy set" in told["fix"]


@pytest.mark.parametrize("given", ["Chat", ""])
async def test_controllers_go_back_to_what_they_were_started_with(
    board: Board, controllers: list[Controller], file: Path, given: str
) -> None:
    """After others were chosen; what those have decided is cleared, also where it was started with none."""
    await board.host(double)
    node = await board.node()
    await choose(node, [f"{file}:Last"])
    controller = await lead(board, controllers, *([f"{file}:{given}"] if given else []))
    await until(lambda: set(held(controller)) == {subjects.route("double")})
    with capture_logs() as logs:
        await reset(node)
        await until(lambda: states(controller) == ({given: "deciding"} if given else {}))
        own = {subjects.priority(subjects.session_token("chat/7"))} if given else set()
        await until(lambda: set(held(controller)) == own)
    assert [one["by"] for one in logs if one["event"] == "policies"] == ["--policy"]
    assert await chosen(node) is None
    await choose(node, [])
    await until(lambda: not states(controller) and not held(controller))


async def test_what_people_decide_is_left_alone(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """A policy does not change a route that was set by hand, until it is cleared."""
    driver, host, client = await board.host(doubling), await board.host(double), await board.client()
    by_hand = await client.route("double", "h-1")
    await lead(board, controllers, f"{file}:Last", f"{file}:Chat")
    await until(lambda: len(driver.priorities))
    assert driver.routes.all() == [by_hand]
    await client.clear_route("double")
    await until(lambda: [route.hosts for route in driver.routes.all()] == [{host.id: 1.0}])


async def test_the_next_controller_goes_on_with_what_was_decided(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """And with the policies that were chosen."""
    host, node = await board.host(double), await board.node()
    await choose(node, [f"{file}:Last"])
    first = await lead(board, controllers)
    await until(host.routes.all)
    (route,) = host.routes.all()
    await first.stop()
    assert host.routes.all() == [route]
    second = await lead(board, controllers)
    await until(lambda: states(second) == {"Last": "deciding"})
    await until(lambda: second.complete)
    assert host.routes.all() == [route]
    assert held(second) == {subjects.route("double"): route}


async def test_what_an_older_controller_decides_is_stored_nowhere(board: Board) -> None:
    """Two that both believe to lead: from the moment the later one does, the older one is refused."""
    node, host = await board.node(), await board.host(double)

    def decisions() -> Decisions:
        return Decisions(node, "c-1", lambda _: None, host.caller.spawn)

    def urgent(session: str) -> list[Decision]:
        return [Decision("priority", subjects.priority(session), value=1)]

    old, new = decisions(), decisions()
    await old.lead(1)
    await old.write(urgent("a"))
    await new.lead(2)
    with pytest.raises(Fenced):
        await old.write(urgent("b"))
    with pytest.raises(Fenced):
        await old.lead(1)
    await new.write(urgent("c"))
    await until(lambda: host.priorities.of("double", "c"))
    assert [host.priorities.of("double", one) is None for one in "abc"] == [False, True, False]
    assert await node.reader.read(STREAM, subjects.priority("b")) == []


async def test_a_controller_that_was_replaced_decides_no_more(board: Board, file: Path) -> None:
    """It notices at its next write, and ends; what it had decided stays."""
    node, host = await board.node(), await board.host(double)
    old = Deciders(node, "c-old", View(), [f"{file}:Many"])
    new = Deciders(node, "c-new", View(), [f"{file}:Chat"])
    await old.start()
    await new.start()
    try:
        old.lead(1)
        await until(lambda: len(host.priorities))
        new.lead(2)
        assert old._task is not None
        await until(old._task.done)
        await until(lambda: host.priorities.of("double", "chat/7"))
    finally:
        old.stop()
        new.stop()


async def test_what_others_write_in_its_place_does_not_end_deciding(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """Whoever leads goes on, although somebody has put there what no controller writes."""
    node, host = await board.node(), await board.host(double)
    controller = await lead(board, controllers, f"{file}:Many")
    await until(lambda: len(host.priorities))
    for rubbish in (b"", b"rubbish", b"[1,2]"):
        await node.store.stored(subjects.policy_leader(), rubbish)
    await choose(node, [f"{file}:Chat"])
    await until(lambda: host.priorities.of("double", "chat/7"))
    assert controller.leading


async def test_what_others_write_over_the_states_of_policies_is_told_again(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """How the policies stand is seen again, without anything having to change."""
    node = await board.node()
    await lead(board, controllers, f"{file}:Chat")
    for rubbish in (b"rubbish", b""):
        await eventually(lambda: running(node))
        await node.store.stored(subjects.policies_running(), rubbish)
    told = await eventually(lambda: running(node))
    assert told is not None
    assert [one.name for one in told.policies] == [f"{file}:Chat"]


async def test_a_lease_that_was_lost_begins_after_what_was_decided(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """Its epochs begin at 1 again where the registry was made anew; what decides has a later one, and is none."""
    node, host = await board.node(), await board.host(double)
    later = Leader("c-before", 57, time.time())
    await node.store.stored(subjects.policy_leader(), msgspec.msgpack.encode(later))
    controller = await lead(board, controllers, f"{file}:Chat")
    await until(lambda: host.priorities.of("double", "chat/7"))
    assert (controller.leading, controller.epoch) == (True, 58)


def acting(policy: Policy, view: View, most: int = 1000) -> Act:
    """What a policy decides in one round."""
    act = Act(view, "p", loading.reason(policy), most=most)
    within(5.0, policy, view, act)
    return act


def test_decisions_of_a_round_are_limited(file: Path) -> None:
    """What was too many is counted; the next round comes to it, since what holds does not count."""
    act = acting(loading.load(f"{file}:Many"), View())
    assert (len(act.decisions), act.left) == (1000, 500)


class _Endless(Policy):
    """Never ends."""

    ended = False

    def decide(self, view: View, act: Act) -> None:
        """Go round and round."""
        try:
            while True:
                pass
        finally:
            self.ended = True


async def test_one_that_does_not_end_is_stopped() -> None:
    """The controller goes on."""
    policy, view = _Endless(), View()
    begun = time.monotonic()
    with pytest.raises(PolicyTooSlow):
        within(0.05, policy, view, Act(view, "p"))
    assert time.monotonic() - begun < 5
    await until(lambda: policy.ended)


_STOPPED = """
import os, signal, sys
from callboard.controller.limited import within
from callboard.controller.policy import Act, Policy
from callboard.controller.view import View

class Asks(Policy):
    def decide(self, view, act):
        print("begun", flush=True)
        sys.stdin.readline()
        sum(range(3_000_000))

view = View()
within(1.0, Asks(), view, Act(view, "p"))
print("decided", flush=True)
"""


async def test_a_machine_that_stands_still_makes_no_policy_slow() -> None:
    """What counts is how long the controller has waited, not what a clock says afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _STOPPED, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        process.stdin.write(b"\n")
        process.send_signal(signal.SIGCONT)
        assert await process.stdout.readline() == b"decided\n"
    finally:
        process.stdin.close()
        await process.wait()


@pytest.mark.parametrize(
    "name",
    ["nothing", "nothing.py:A", "{file}:Nothing", "{file}", "{broken}:A", "{exits}:A", "{never}:Never"],
)
def test_what_cannot_be_loaded_is_told(name: str, file: Path, tmp_path: Path) -> None:
    """With its name and what is wrong; a file that ends its process ends no controller."""
    texts = {
        "broken": "import nothing_like_this",
        "exits": "import sys\nsys.exit(2)",
        "never": f"{FILE}\nclass Never(Chat):\n    every = '1s'\n",
    }
    for key, text in texts.items():
        (tmp_path / f"{key}.py").write_text(text)
    given = name.format(file=file, **{key: tmp_path / f"{key}.py" for key in texts})
    with pytest.raises(PolicyUnusable) as refused:
        loading.load(given)
    assert refused.value.fields["policy"] == given


ENDLESS = """
import time
while True:
    time.sleep(0.01)
"""


async def test_what_does_not_end_being_loaded_blocks_nothing(
    board: Board, controllers: list[Controller], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of and left out; the others decide, and what is chosen later does, too."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(loading, "LIMIT", 1.0)
    (tmp_path / "endless_beside.py").write_text(ENDLESS)
    stuck = tmp_path / "stuck.py"
    stuck.write_text(f"import endless_beside\n{FILE}")
    await board.host(double)
    with capture_logs() as logs:
        controller = await lead(board, controllers, f"{stuck}:First", f"{file}:Last")
        await until(lambda: states(controller) == {"First": "unusable", "Last": "deciding"})
        await until(lambda: subjects.route("double") in held(controller))
    (told,) = [one for one in logs if one["event"] == "policy_unusable"]
    assert "it has not been loaded within 1 s" in told["error"]
    await choose(await board.node(), [f"{file}:Chat"])
    await until(lambda: states(controller) == {"Chat": "deciding"})


def test_what_stands_beside_a_file_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the controller was started."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside_own.py").write_text("MOST = 0.75")
    (tmp_path / "own.py").write_text(f"from beside_own import MOST\n{FILE}\nChat.every = MOST\n")
    assert loading.load(f"{tmp_path / 'own.py'}:Chat").every == 0.75


async def test_earlier_policies_go_before_later_ones(
    board: Board, controllers: list[Controller], file: Path
) -> None:
    """Also in rounds in which the earlier one has nothing to change."""
    hosts: list[Host] = [await board.host(double), await board.host(double)]
    controller = await lead(board, controllers, f"{file}:First", f"{file}:Last", f"{file}:Chat")
    await until(lambda: hosts[0].routes.all() and len(hosts[0].priorities))
    seen = controller.view.hosts["sequence"].sum()
    await until(lambda: controller.view.hosts["sequence"].sum() > seen + 4)
    (route,) = hosts[0].routes.all()
    assert (route.hosts, route.policy) == ({min(host.id for host in hosts): 1.0}, f"{file}:First")
