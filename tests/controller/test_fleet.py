"""Hosts that the leading controller starts and ends as processes of this machine, on a real server."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs
from tests.controller import fleet_app
from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard.controller import decisions, recording
from callboard.controller.changes import running
from callboard.controller.controller import Controller
from callboard.controller.provisioning import fleet, local, roster
from callboard.controller.provisioning.local import LocalProcesses
from callboard.controller.why import why
from callboard.infra.errors import ProvisionerUnusable, ProvisionFailed, RecordingInvalid
from callboard.infra.messages.policy import Decision

APP = Path(fleet_app.__file__)
WITHIN = 30.0
CALM: dict[str, Any] = {"pulse_every": 0.1, "dead_after": 1.5}
"""Settings of all: processes that start beside each other may be late."""
POLICIES = '''
from pathlib import Path
from callboard.controller.policies.scale import Scale
from callboard.controller.policy import Policy

HERE = Path(__file__).parent

class More(Policy):
    """There is one."""
    every = 0.05
    def decide(self, view, act):
        if not (HERE / "enough").exists():
            act.provision("extra")
            (HERE / "enough").touch()

class Greedy(Policy):
    """There are never enough."""
    every = 0.05
    def decide(self, view, act):
        for actor in ("work", "heavy"):
            act.provision(actor)
            act.provision(actor, "nowhere")

class Fewer(Policy):
    """One less, when the test says so."""
    every = 0.05
    def decide(self, view, act):
        if (HERE / "fewer").exists():
            for row in view.hosts.rows:
                act.kill(view.hosts.keys[row])

class Quick(Scale):
    """As many as are needed, soon."""
    every, calm = 0.1, 20

class Three(Policy):
    """Three, until there are."""
    every = 0.05
    def decide(self, view, act):
        if not (HERE / "fewer").exists():
            act.provision("work")
'''


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ran, and where."""
    monkeypatch.setenv("FLEET_LEDGER", str(tmp_path / "ledger"))
    for name, value in CALM.items():
        monkeypatch.setenv(f"CALLBOARD_{name.upper()}", str(value))
    return tmp_path / "ledger"


@pytest.fixture
def policies(tmp_path: Path) -> Callable[[str], str]:
    """Names of the policies above."""
    (tmp_path / "own.py").write_text(POLICIES)
    return lambda name: f"{tmp_path / 'own.py'}:{name}"


class Controllers:
    """Starts controllers that start hosts.

    Args:
        board: on which.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._started: list[Controller] = []

    async def lead(self, app: str, *names: str, most: int = 6, **settings: Any) -> Controller:
        """One that leads."""
        given = self._board.settings(**{**CALM, **settings})
        hosts = LocalProcesses([f"{APP}:{app}"], given, most, ["--log-level", "error"])
        controller = Controller(given, policies=names, provisioner=hosts)
        self._started.append(controller)
        await controller.start()
        await controller.led()
        return controller

    async def close(self) -> None:
        """End them, and with them their hosts."""
        for one in self._started:
            await one.stop()


@pytest.fixture
async def controllers(board: Board) -> AsyncIterator[Controllers]:
    """Controllers that end with the test, with all hosts."""
    before = set(psutil.Process().children())
    made = Controllers(board)
    yield made
    await made.close()
    await until(lambda: set(psutil.Process().children()) <= before)


def works(controller: Controller, actor: str) -> dict[int, str]:
    """The hosts of an actor that are its controller's and go on, by process."""
    view = controller.view
    return {
        view.processes[host][1]: host
        for host in view.processes
        if f"{actor}@{host}" in view.instances
        and view.hosts["provided"][view.hosts.row(host)]
        and not view.hosts["draining"][view.hosts.row(host)]
    }


async def decided(board: Board, what: str) -> list[Decision]:
    """What was decided, and stored."""
    node = await board.node()
    found = await decisions.rounds(node, 10_000)
    return [decision for one in found for decision in one.decisions if decision.what == what]


async def test_the_least_is_kept_and_what_crashes_comes_back(board: Board, controllers: Controllers) -> None:
    """Later each time; that there are too few is a decision with a reason, a crash is none."""
    with capture_logs() as logs:
        controller = await controllers.lead("work,working")
        await until(lambda: len(works(controller, "work")) == 2, WITHIN)
        for _ in range(2):
            victim = min(works(controller, "work"))
            os.kill(victim, signal.SIGKILL)
            await until(lambda: len(works(controller, "work").keys() - {victim}) == 2, WITHIN)  # noqa: B023
    waits = [one["retry_in_s"] for one in logs if one["event"] == "host_crashed"]
    assert waits in ([0.2, 0.4], [0.2, 0.2])  # one host twice, or each of them once
    assert all("SIGKILL" in one["reason"] for one in logs if one["event"] == "host_crashed")
    made = await decided(board, "provision")
    assert [one.key.rpartition(".")[2] for one in made] == ["work", "work"]
    assert {one.reason for one in made} == {"min_instances is 2, and there are 0"}
    assert {one.policy for one in made} == {roster.KEEPER}


async def test_what_is_provisioned_takes_calls(
    board: Board, controllers: Controllers, policies: Callable[[str], str]
) -> None:
    """A policy decides that there is one more; it is stored with its reason and place."""
    await board.host(fleet_app.asking, **CALM)
    run = await board.submit(fleet_app.asking)
    controller = await controllers.lead("extra", policies("More"))
    done = await board.done(run, WITHIN)
    assert done.status == "completed"
    where = await (await board.client()).result(run)
    await until(lambda: where in works(controller, "extra"), WITHIN)
    (made,) = await decided(board, "provision")
    assert (made.policy, made.reason, made.where) == (policies("More"), "There is one.", os.uname().nodename)


async def test_what_is_killed_drains_and_nothing_is_lost(
    board: Board,
    controllers: Controllers,
    policies: Callable[[str], str],
    ledger: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of many calls: each of them runs once; never fewer are left than there have to be."""
    monkeypatch.setenv("CALLBOARD_DEAD_AFTER", str(WITHIN))  # each is to run once, on a busy machine too
    await board.host(fleet_app.working, pulse_every=0.1, dead_after=WITHIN)
    controller = await controllers.lead("work", policies("Three"), policies("Fewer"), grace=WITHIN)
    await until(lambda: len(works(controller, "work")) == 3, WITHIN)
    before = works(controller, "work")
    (ledger.parent / fleet_app.HOLD).touch()  # until all of them have some calls, and one of them drains
    run = await board.submit(fleet_app.working, count=60)
    await until(lambda: ledger.exists() and len(set(pids(ledger))) == 3)
    with capture_logs() as logs:
        (ledger.parent / "fewer").touch()
        await until(lambda: len(works(controller, "work")) == 2, WITHIN)
        (ledger.parent / fleet_app.HOLD).unlink()
        assert (await board.done(run, WITHIN)).status == "completed"
        await until(lambda: sum(map(psutil.pid_exists, before)) == 2, WITHIN)
    assert "host_crashed" not in {one["event"] for one in logs}
    assert "host_killed" not in {one["event"] for one in logs}
    assert numbers(ledger) == Counter({str(number): 1 for number in range(60)})
    (made,) = await decided(board, "kill")
    assert made.reason == "One less, when the test says so."
    ended = made.key.rpartition(".")[2]
    assert ended in before.values()
    call = next(one.future for one in await board.results(run) if one.host == ended)
    told = await why(await board.node(), call)
    assert told.ended == {ended: made}
    assert f"{policies('Fewer')} has ended {ended}: {made.reason}" in "\n".join(told.lines())


def numbers(ledger: Path) -> Counter[str]:
    """Of the calls that ran."""
    return Counter(line.split()[1] for line in ledger.read_text().splitlines())


def pids(ledger: Path) -> Iterator[int]:
    """Of the processes in which calls ran."""
    return (int(line.split()[-1]) for line in ledger.read_text().splitlines())


@pytest.fixture
async def sticking(board: Board, ledger: Path, policies: object, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A workflow whose call blocks the event loop of its host, and policies that start and end such hosts."""
    monkeypatch.setattr(local, "AFTER_GRACE", 0.3)
    (ledger.parent / "own.py").write_text(POLICIES.replace('"extra"', '"stuck"'))
    await board.host(fleet_app.sticking, **CALM)
    return board


async def test_what_does_not_end_is_killed_after_its_grace(
    sticking: Board, controllers: Controllers, policies: Callable[[str], str], ledger: Path
) -> None:
    """A handler that blocks the event loop keeps a host from draining; whoever takes over has its call."""
    controller = await controllers.lead("stuck", policies("More"), policies("Fewer"), grace=0.2)
    await sticking.submit(fleet_app.sticking)
    await until(lambda: ledger.exists() and list(pids(ledger)), WITHIN)
    with capture_logs() as logs:
        (ledger.parent / "fewer").touch()
        await until(lambda: "host_killed" in {one["event"] for one in logs}, WITHIN)
        await until(lambda: not works(controller, "stuck"), WITHIN)


async def test_one_that_stands_still_is_replaced_and_ended(
    board: Board, controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for one that is starting, for ever."""
    monkeypatch.setattr(local, "AFTER_GRACE", 0.3)
    controller = await controllers.lead("work", grace=0.2)
    await until(lambda: len(works(controller, "work")) == 2, WITHIN)
    victim = min(works(controller, "work"))
    monkeypatch.setattr(roster, "SILENT", 2 * WITHIN)
    os.kill(victim, signal.SIGSTOP)
    await until(lambda: len(works(controller, "work").keys() - {victim}) == 2, WITHIN)
    assert psutil.pid_exists(victim)
    monkeypatch.setattr(roster, "SILENT", 0.5)
    await until(lambda: not psutil.pid_exists(victim), WITHIN)
    assert len(works(controller, "work").keys() - {victim}) == 2


async def test_a_hung_host_of_one_that_leads_no_more_is_killed(
    sticking: Board, controllers: Controllers, policies: Callable[[str], str], ledger: Path
) -> None:
    """It does not hear that it is to drain; whoever minds its process does, and ends it for the one that leads."""
    first = await controllers.lead("stuck", policies("More"), grace=0.2)
    lease, hosts = first._lease, first.fleet and first.fleet._provisioner
    assert lease is not None
    assert isinstance(hosts, LocalProcesses)
    await until(lambda: [slot.works for slot in hosts._slots.values()] == [True], WITHIN)
    await sticking.submit(fleet_app.sticking)
    await until(lambda: ledger.exists() and list(pids(ledger)), WITHIN)
    await lease.stop()
    with capture_logs() as logs:
        second = await controllers.lead("stuck", policies("Fewer"), grace=0.2)
        await until(lambda: bool(works(second, "stuck")), WITHIN)
        (ledger.parent / "fewer").touch()
        await until(lambda: "host_killed" in {one["event"] for one in logs}, WITHIN)
        await until(lambda: not works(second, "stuck"), WITHIN)
    assert [one.key for one in await decided(sticking, "kill")]


async def test_no_more_than_there_may_be_and_room_for(
    board: Board, controllers: Controllers, policies: Callable[[str], str]
) -> None:
    """The actor's most, and the resources that the machine is said to have; what others run here counts."""
    await board.host(fleet_app.heavy, **CALM, resources={"gpu": 1})
    controller = await controllers.lead("work,heavy", policies("Greedy"), resources={"gpu": 2})
    await until(lambda: len(works(controller, "work")) == 3, WITHIN)
    await until(lambda: len(works(controller, "heavy")) == 1, WITHIN)
    seen = controller.view.hosts["sequence"].sum()
    await until(lambda: controller.view.hosts["sequence"].sum() > seen + 12, WITHIN)
    assert (len(works(controller, "work")), len(works(controller, "heavy"))) == (3, 1)
    made = Counter(one.key.rpartition(".")[2] for one in await decided(board, "provision"))
    assert made == {"work": 3, "heavy": 1}


async def test_where_there_is_no_room_it_is_told(board: Board, controllers: Controllers) -> None:
    """Once, with what to do."""
    with capture_logs() as logs:
        controller = await controllers.lead("work", most=1)
        await until(lambda: len(works(controller, "work")) == 1, WITHIN)
        seen = controller.view.hosts["sequence"].sum()
        await until(lambda: controller.view.hosts["sequence"].sum() > seen + 3, WITHIN)
    (told,) = [one for one in logs if one["event"] == "too_few_instances"]
    assert (told["actor"], told["lacking"]) == ("work", 1)


async def test_where_there_is_little_room_each_has_one(board: Board, controllers: Controllers) -> None:
    """Before any has two, whatever their order."""
    controller = await controllers.lead("work,needed", most=2)
    for actor in ("work", "needed"):
        await until(lambda: len(works(controller, actor)) == 1, WITHIN)  # noqa: B023


async def test_by_default_there_is_room_for_the_least(board: Board) -> None:
    """However few cores the machine has."""
    hosts = LocalProcesses([f"{APP}:work,needed,extra"], board.settings(resources={"cpu": 1}))
    await hosts.start()
    try:
        assert hosts.most == 3
    finally:
        await hosts.stop()


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "missing"), ("import nothing_like_this", "import_failed"), ("x = 1", "empty")]
)
async def test_an_application_that_cannot_be_used(
    board: Board, tmp_path: Path, text: str | None, reason: str
) -> None:
    """The controller does not start, and says why."""
    app = tmp_path / "broken_app.py"
    if text is not None:
        app.write_text(text)
    controller = Controller(board.settings(), provisioner=LocalProcesses([str(app)], board.settings()))
    with pytest.raises(ProvisionerUnusable, match="broken_app") as refused:
        await controller.start()
    assert refused.value.fields["reason"] == reason


async def test_what_cannot_be_started_is_put_off(
    board: Board, controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, and not tried all the time."""

    async def refuse(self: LocalProcesses, actor: str, where: str) -> None:
        raise ProvisionFailed("there is no paper", what=actor, where=where, problem="no paper")

    monkeypatch.setattr(LocalProcesses, "provision", refuse)
    monkeypatch.setattr(fleet, "AGAIN", 0.5)
    with capture_logs() as logs:
        controller = await controllers.lead("work")
        await until(lambda: sum(one["event"] == "not_provisioned" for one in logs) >= 4, WITHIN)
    told = [one for one in logs if one["event"] == "not_provisioned"]
    assert {one["reason"] for one in told} == {"there is no paper"}
    assert running(controller.view, controller.view.actors.row("work")) == 0
    rounds = await decisions.rounds(await board.node(), 10_000)
    first, second = (one.at for one in rounds[:2])
    assert second - first >= 0.4


async def test_what_a_person_drains_does_not_come_back_but_for_the_least(
    board: Board, controllers: Controllers, policies: Callable[[str], str]
) -> None:
    """It has not crashed."""
    controller = await controllers.lead("extra,work", policies("More"))
    await until(lambda: len(works(controller, "extra")) == 1, WITHIN)
    await until(lambda: len(works(controller, "work")) == 2, WITHIN)
    client = await board.client()
    old = {*works(controller, "extra"), min(works(controller, "work"))}
    for pid in old:
        os.kill(pid, signal.SIGTERM)
    await until(lambda: not any(map(psutil.pid_exists, old)), WITHIN)
    await until(lambda: len(works(controller, "work").keys() - old) == 2, WITHIN)
    await until(lambda: works(controller, "extra") == {}, WITHIN)
    assert client.node.connection.connected.is_set()


async def test_the_hosts_of_one_that_leads_no_more_are_counted_by_the_next(
    board: Board, controllers: Controllers
) -> None:
    """They go on, nobody starts the same again, and when one of them crashes the next one starts another."""
    first = await controllers.lead("work")
    await until(lambda: len(works(first, "work")) == 2, WITHIN)
    old = works(first, "work")
    lease, hosts = first._lease, first.fleet and first.fleet._provisioner
    assert lease is not None
    assert isinstance(hosts, LocalProcesses)
    await until(lambda: all(slot.works for slot in hosts._slots.values()), WITHIN)
    await lease.stop()
    second = await controllers.lead("work")
    counted = second.view.actors.row("work")
    await until(lambda: running(second.view, counted) == 2)
    seen = second.view.hosts["sequence"].sum()
    await until(lambda: second.view.hosts["sequence"].sum() > seen + 6, WITHIN)
    assert len(await decided(board, "provision")) == 2
    os.kill(min(old), signal.SIGKILL)
    await until(lambda: len(works(second, "work").keys() - old.keys()) == 1, WITHIN)
    assert running(second.view, counted) == 2

    async def stored() -> bool:
        return len(await decided(board, "provision")) == 3

    await eventually(stored)


async def test_the_hosts_of_one_that_leads_no_more_can_be_ended_by_the_next(
    board: Board, controllers: Controllers, policies: Callable[[str], str], ledger: Path
) -> None:
    """It drains them, whoever minds them starts none in their place, and they take up room."""
    first = await controllers.lead("work", policies("Three"))
    await until(lambda: len(works(first, "work")) == 3, WITHIN)
    old = works(first, "work")
    lease, hosts = first._lease, first.fleet and first.fleet._provisioner
    assert lease is not None
    assert isinstance(hosts, LocalProcesses)
    await until(lambda: all(slot.works for slot in hosts._slots.values()), WITHIN)
    await lease.stop()
    second = await controllers.lead("work", policies("Fewer"), most=3)
    await until(lambda: works(second, "work") == old, WITHIN)
    await until(
        lambda: bool(second.view.room) and not any(map(any, map(dict.values, second.view.room.values())))
    )
    (ledger.parent / "fewer").touch()
    await until(lambda: sum(map(psutil.pid_exists, old)) == 2, WITHIN)
    await until(lambda: len(hosts._slots) == 2, WITHIN)
    (made,) = await decided(board, "kill")
    assert made.key.rpartition(".")[2] in old.values()
    assert len(await decided(board, "provision")) == 3


async def test_what_has_only_begun_ends_when_another_may_lead(board: Board, controllers: Controllers) -> None:
    """It is not heard yet, so the next one would start another."""
    first = await controllers.lead("work")
    lease, hosts = first._lease, first.fleet and first.fleet._provisioner
    assert lease is not None
    assert isinstance(hosts, LocalProcesses)
    await until(lambda: len(hosts._slots) == 2, WITHIN)
    assert not any(slot.works for slot in hosts._slots.values())
    await lease.stop()
    await until(lambda: not hosts._slots, WITHIN)
    with pytest.raises(ProvisionFailed, match="another controller leads"):
        await hosts.provision("work", "")


async def test_scale_starts_what_calls_wait_for(
    board: Board, controllers: Controllers, policies: Callable[[str], str]
) -> None:
    """Nobody runs the actor before: the first instance of it is started for what waits."""
    await board.host(fleet_app.asking, **CALM)
    controller = await controllers.lead("extra,work", policies("Quick"))
    process = await board.run(fleet_app.asking, timeout=WITHIN)
    await until(lambda: process in works(controller, "extra"), WITHIN)
    (made,) = [one for one in await decided(board, "provision") if one.key.endswith(".extra")]
    assert made.reason == "1 calls need 1 instances"


async def test_what_a_simulation_has_to_know_is_told(board: Board, controllers: Controllers) -> None:
    """How long processes of hosts took to start, and what limits instances have; of a host in a test no start."""
    driver = await board.host(fleet_app.asking, fleet_app.extra, **CALM)
    controller = await controllers.lead("work")
    await until(lambda: len(works(controller, "work")) == 2, WITHIN)
    await board.run(fleet_app.asking, timeout=WITHIN)
    node, hosts = await board.node(), set(works(controller, "work").values())

    async def told() -> recording.Recorded | None:
        with contextlib.suppress(RecordingInvalid):  # nobody has told of the run yet
            found = recording.read(await recording.from_stream(node), "here")
            return found if hosts <= found.startups.keys() else None
        return None

    found = await eventually(told)
    assert found is not None
    assert all(0 < seconds < WITHIN for seconds in found.startups.values())
    assert driver.id not in found.startups
    directives = found.declared["work"].directives
    assert directives == {"min_instances": 2, "max_instances": 3, "resources": {}}
    assert found.declared["extra"].directives["max_instances"] is None


async def test_scale_starts_drivers_for_requests_that_wait(
    board: Board, controllers: Controllers, policies: Callable[[str], str]
) -> None:
    """A driver that is full tells what the stream still holds; another one is started for that."""
    await board.host(fleet_app.narrow, **CALM)
    runs = [await board.submit(fleet_app.narrow) for _ in range(4)]
    controller = await controllers.lead("narrow", policies("Quick"))
    await until(lambda: bool(works(controller, "narrow")), WITHIN)
    client = await board.client()
    for run in runs:
        await client.signal(run, "go")
        assert (await board.done(run, WITHIN)).status == "completed"


async def test_without_a_provisioner_it_is_told(
    board: Board, controllers: Controllers, policies: Callable[[str], str]
) -> None:
    """Once, and what to do."""
    with capture_logs() as logs:
        async with Controller(board.settings(), policies=[policies("Greedy")]) as controller:
            await controller.led()
            host = await board.host(fleet_app.work, **CALM)
            row = controller.view.hosts.row(host.id)
            await until(lambda: controller.view.hosts["sequence"][row] > 3, WITHIN)
    (told,) = [one for one in logs if one["event"] == "nothing_provisions"]
    assert told["policy"] == policies("Greedy")
    assert await decided(board, "provision") == []


async def test_actors_need_not_fit_into_one_host(board: Board) -> None:
    """Each gets one of its own; what the machine has none of at all is told."""
    given = board.settings(resources={"gpu": 2})
    hosts = LocalProcesses([f"{APP}:heavy,heavier"], given)
    assert {actor.name for actor in await hosts.start()} == {"heavy", "heavier"}
    with pytest.raises(ProvisionerUnusable, match="needs gpu=1"):
        await LocalProcesses([f"{APP}:heavy"], board.settings()).start()
