"""Hosts as containers and pods: the real client libraries, over real HTTP, to stand-ins for the engines.

What the engines themselves do is not shown here, see ``tests/deploy`` for that.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.controller import fleet_app
from tests.controller.engines import Cluster, DockerEngine
from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard.controller import decisions
from callboard.controller.changes import running
from callboard.controller.controller import Controller
from callboard.controller.provisioning.docker import DockerContainers
from callboard.controller.provisioning.kubernetes import KubernetesDeployments
from callboard.controller.provisioning.port import Provisioner
from callboard.infra.errors import ProvisionerUnusable, ProvisionFailed

APP = fleet_app.__file__
WITHIN = 30.0
CALM = "1.5"
"""``dead_after`` of all: processes that start beside each other may be late."""
FEWER = '''
from pathlib import Path
from callboard.controller.policy import Policy

class Three(Policy):
    """Three, then two."""
    every = 0.05
    def decide(self, view, act):
        if not (Path(__file__).parent / "fewer").exists():
            act.provision("work")
        else:
            for row in view.hosts.rows:
                act.kill(view.hosts.keys[row])
'''


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what runs is written down."""
    monkeypatch.setenv("FLEET_LEDGER", str(tmp_path / "ledger"))


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """As many as there may be, and then as few."""
    (tmp_path / "own.py").write_text(FEWER)
    return f"{tmp_path / 'own.py'}:Three"


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[DockerEngine]:
    """A stand-in for an engine."""
    with DockerEngine(tmp_path) as engine:
        yield engine


@pytest.fixture
def cluster(tmp_path: Path, nats_url: str) -> Iterator[Cluster]:
    """A stand-in for a cluster."""
    environment = {"NATS_URL": nats_url, "CALLBOARD_PULSE_EVERY": "0.1", "CALLBOARD_DEAD_AFTER": CALM}
    with Cluster(tmp_path, ["host", f"{APP}:work"], environment) as cluster:
        yield cluster


@pytest.fixture
async def controllers() -> AsyncIterator[list[Controller]]:
    """Controllers that end with the test."""
    started: list[Controller] = []
    yield started
    for one in started:
        await one.stop()


async def lead(
    board: Board, controllers: list[Controller], provisioner: Provisioner, *policies: str
) -> Controller:
    """A controller that leads."""
    provisioner.every = 0.05
    controller = Controller(
        board.settings(dead_after=float(CALM)), policies=policies, provisioner=provisioner
    )
    controllers.append(controller)
    await controller.start()
    await controller.led()
    return controller


def containers(board: Board, engine: DockerEngine, app: str = "work") -> DockerContainers:
    """A provisioner with the stand-in."""
    quick = {"CALLBOARD_PULSE_EVERY": "0.1", "CALLBOARD_DEAD_AFTER": CALM}
    address = f"tcp://{engine.address}"
    return DockerContainers("shop", f"{APP}:{app}", board.settings(), engine=address, environment=quick)


def count(controller: Controller, actor: str = "work") -> int:
    """Instances that its controller runs, and that take calls."""
    view = controller.view
    mine = int(view.hosts["provided"].sum())
    return mine if running(view, view.actors.row(actor)) == mine else -1


async def test_containers_are_kept_started_and_ended(
    board: Board, controllers: list[Controller], docker: DockerEngine, policy: str, tmp_path: Path
) -> None:
    """Each with its labels; the next controller finds them, and starts no others."""
    first = await lead(board, controllers, containers(board, docker))
    await until(lambda: count(first) == 2, WITHIN)
    made = {one.body["Labels"]["callboard.node"]: one for one in docker.containers.values()}
    assert len(made) == 2
    for node, one in made.items():
        assert (one.name, one.body["Hostname"]) == (node, node)
        assert one.body["Labels"]["callboard.actor"] == "work"
        assert one.body["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"
    await first.stop()
    second = await lead(board, controllers, containers(board, docker), policy)
    await until(lambda: count(second) == 3, WITHIN)
    await board.host(fleet_app.working)
    run = await board.submit(fleet_app.working, count=40)
    (tmp_path / "fewer").touch()
    await until(lambda: count(second) == 2, WITHIN)
    await until(lambda: len(docker.containers) == 2, WITHIN)
    assert (await board.done(run, WITHIN)).status == "completed"
    rounds = await decisions.rounds(await board.node(), 10_000)
    assert [one.what for made in rounds for one in made.decisions] == ["provision"] * 3 + ["kill"]
    assert sum(asked.endswith("/create") for asked in docker.asked) == 3 + 2  # two have told of the actors


async def test_containers_that_have_ended_are_replaced(
    board: Board, controllers: list[Controller], docker: DockerEngine
) -> None:
    """And removed; one that a dead controller has created and not started is started."""
    controller = await lead(board, controllers, containers(board, docker))
    await until(lambda: count(controller) == 2, WITHIN)
    victim = min(docker.containers)
    process = docker.containers[victim].process
    assert process is not None
    process.terminate()
    await until(lambda: victim not in docker.containers, WITHIN)
    await until(lambda: count(controller) == 2 and len(docker.containers) == 2, WITHIN)
    labels = dict(next(iter(docker.containers.values())).body["Labels"], **{"callboard.node": "left"})
    environment = ["CALLBOARD_PULSE_EVERY=0.1", f"CALLBOARD_DEAD_AFTER={CALM}", f"NATS_URL={board.url}"]
    body = {"Image": "shop", "Cmd": ["host", f"{APP}:work"], "Env": environment, "Labels": labels}
    docker.create({"name": ["left"]}, {**body, "Hostname": "left"})
    await until(lambda: count(controller) == 3, WITHIN)


async def test_a_container_that_cannot_be_started_hinders_no_other(
    board: Board, controllers: list[Controller], docker: DockerEngine
) -> None:
    """It is removed, not found and tried for ever."""
    docker.unstartable = (":needed",)
    with capture_logs() as logs:
        controller = await lead(board, controllers, containers(board, docker, "work,needed"))
        await until(lambda: count(controller) == 2, WITHIN)
        await until(lambda: any(one["event"] == "not_provisioned" for one in logs), WITHIN)
    await until(lambda: len(docker.containers) == 2, WITHIN)
    assert not [one for one in logs if one["event"] == "provisioner_unavailable"]
    assert {one.state for one in docker.containers.values()} == {"running"}


async def test_an_engine_that_cannot_be_used(board: Board, docker: DockerEngine) -> None:
    """Nobody listens, there is no such image, or it has no such application; each is told by name."""
    settings = board.settings()
    with pytest.raises(ProvisionerUnusable) as refused:
        await DockerContainers("shop", APP, settings, engine="tcp://127.0.0.1:9").start()
    assert refused.value.fields["provisioner"] == "docker"
    address = f"tcp://{docker.address}"
    with pytest.raises(ProvisionerUnusable, match="No such image: other"):
        await DockerContainers("other", APP, settings, engine=address).start()
    with pytest.raises(ProvisionerUnusable, match=r"no application at nothing\.py"):
        await DockerContainers("shop", "nothing.py", settings, engine=address).start()
    assert docker.containers == {}


async def test_an_engine_that_goes_away(
    board: Board, controllers: list[Controller], docker: DockerEngine
) -> None:
    """Nothing is decided while it cannot be seen what there is."""
    controller = await lead(board, controllers, containers(board, docker))
    await until(lambda: count(controller) == 2, WITHIN)
    away = [(r".*", "gone")]
    docker.gone = lambda query, body: (500, {"message": "not now"})  # type: ignore[attr-defined]
    docker.ROUTES, there = away, docker.ROUTES  # type: ignore[misc]
    await until(lambda: controller.view.room == {"work": {}})
    with pytest.raises(ProvisionFailed, match="not now"):
        await containers_of(controller).look()
    docker.ROUTES = there  # type: ignore[misc]
    await until(lambda: controller.view.room["work"], WITHIN)


def containers_of(controller: Controller) -> Provisioner:
    """Its provisioner."""
    assert controller.fleet is not None
    return controller.fleet._provisioner


async def test_pods_are_kept_started_and_ended(
    board: Board, controllers: list[Controller], cluster: Cluster, policy: str, tmp_path: Path
) -> None:
    """By the number of replicas; the pod that is to go is named; who else changes the number is heeded."""
    provisioner = KubernetesDeployments([("work", "hosts")], 9, kubeconfig=cluster.kubeconfig())
    cluster.replicas = 1  # somebody has deployed it, so that the actor is announced
    cluster._follow()
    cluster.conflicts = 2
    first = await lead(board, controllers, provisioner)
    await until(lambda: count(first) == 2, WITHIN)
    assert cluster.replicas == 2
    await first.stop()
    again = KubernetesDeployments([("work", "hosts")], 9, "shop", cluster.kubeconfig())
    second = await lead(board, controllers, again, policy)
    await until(lambda: count(second) == 3, WITHIN)
    await board.host(fleet_app.working)
    run = await board.submit(fleet_app.working, count=40)
    (tmp_path / "fewer").touch()
    await until(lambda: count(second) == 2, WITHIN)
    assert (await board.done(run, WITHIN)).status == "completed"
    (chosen,) = cluster.costs

    async def gone() -> bool:
        return chosen not in {one.node for one in await again.look()}

    await eventually(gone, WITHIN)
    assert cluster.replicas == 2


async def test_a_cluster_that_cannot_be_used(cluster: Cluster, tmp_path: Path) -> None:
    """Without a configuration, without the deployment."""
    nowhere = KubernetesDeployments([("work", "hosts")], 9, kubeconfig=tmp_path / "nothing")
    with pytest.raises(ProvisionerUnusable):
        await nowhere.start()
    await nowhere.stop()
    missing = KubernetesDeployments([("work", "other")], 9, kubeconfig=cluster.kubeconfig())
    with pytest.raises(ProvisionerUnusable, match="other"):
        await missing.start()
    await missing.stop()


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
async def test_a_package_that_is_not_installed(
    kind: str, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told how to install it."""
    made: Provisioner = DockerContainers("shop", APP, board.settings())
    if kind == "kubernetes":
        made = KubernetesDeployments([("work", "hosts")], 9)
    for name in ("docker", "kubernetes.aio.config"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ProvisionerUnusable, match=rf"pip install 'callboard\[{kind}\]'"):
        await made.start()
