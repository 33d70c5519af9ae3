"""Hosts in containers, as docs/deploying.md says; skipped where no container engine runs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from tests.support.waiting import eventually

from callboard.actors import registry
from callboard.actors.client import Client
from callboard.controller.provisioning.docker import DockerContainers
from callboard.infra.settings import Settings

REPOSITORY = Path(__file__).parents[2]
BASE = os.environ.get("CALLBOARD_TEST_BASE_IMAGE", "")
"""An image with Python to build on; by default the one that the Dockerfile names."""

APP = """
import asyncio
import os
from pathlib import Path

from callboard import tool, workflow

LEDGER = Path(os.environ["LEDGER"])


def write(line: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(f"{line} {os.getpid()} {os.getuid()}\\n")


@tool
async def work(seconds: float) -> float:
    write("begin")
    await asyncio.sleep(seconds)
    write("end")
    return seconds


@workflow
async def job(seconds: float) -> float:
    return await work(seconds)
"""


def _engine() -> str:
    """Why nothing can be run here; empty if it can."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    asked = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    )
    return "" if asked.returncode == 0 else f"no container engine: {asked.stderr.strip()[:80]}"


pytestmark = [pytest.mark.skipif(bool(why := _engine()), reason=why or "-"), pytest.mark.timeout(900)]


def _build(folder: Path, tag: str, *options: str) -> str:
    command = ["docker", "build", "--quiet", "--network", "host", *options, "--tag", tag, str(folder)]
    built = subprocess.run(
        command, env={**os.environ, "DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[-4000:]
    return tag


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of an application on top of Callboard's."""
    options = ["--file", str(REPOSITORY / "deploy" / "Dockerfile")]
    if BASE:
        options += ["--build-arg", f"BASE_IMAGE={BASE}"]
    if authorities := os.environ.get("PIP_CERT"):
        options += ["--secret", f"id=ca,src={authorities}"]
    _build(REPOSITORY, "callboard", *options)
    page = (REPOSITORY / "docs" / "deploying.md").read_text()
    found = re.search(r'```dockerfile title="Dockerfile"\n(.*?)```', page, re.DOTALL)
    assert found is not None
    folder = tmp_path_factory.mktemp("shop")
    (folder / "Dockerfile").write_text(found[1])
    (folder / "app.py").write_text(APP)
    return _build(folder, "callboard-test-shop")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A file in a folder that the containers share."""
    tmp_path.chmod(0o777)
    return tmp_path / "ledger"


@pytest.fixture
def hosts(image: str, ledger: Path, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Hosts in containers, removed when the test is over."""
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)  # they are removed right here
    with ExitStack() as running:
        yield Hosts(image, ledger, nats_url, running)


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[Client]:
    """A client on this machine."""
    async with Client(Settings.load({}, nats_url=nats_url)) as client:
        yield client


class Hosts:
    """Starts hosts in containers. They use the machine's network, and so its loopback."""

    def __init__(self, image: str, ledger: Path, url: str, running: ExitStack) -> None:
        self._image, self._ledger, self._url, self._running = image, ledger, url, running

    def start(self) -> DockerContainer:
        """Start one more."""
        volume = (str(self._ledger.parent), "/ledger", "rw")
        container = DockerContainer(self._image, volumes=[volume], network_mode="host")
        container.with_env("NATS_URL", self._url).with_env("LEDGER", f"/ledger/{self._ledger.name}")
        return self._running.enter_context(container)


def entries(ledger: Path) -> list[list[str]]:
    """What has been written so far."""
    return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []


async def test_a_host_in_a_container_serves(hosts: Hosts, client: Client, ledger: Path) -> None:
    """Its actors run as a user without rights."""
    hosts.start()
    assert await client.run("job", {"seconds": 0}, timeout=60) == 0
    assert [(what, uid) for what, _, uid in entries(ledger)] == [("begin", "10001"), ("end", "10001")]


async def test_a_stopped_container_drains(hosts: Hosts, client: Client, ledger: Path) -> None:
    """`docker stop` lets the call end that runs, and the exit code says that all went well."""
    host = hosts.start()
    run = await client.submit("job", {"seconds": 3})
    await eventually(lambda: _count(ledger, "begin", 1), 60)
    wrapped = host.get_wrapped_container()
    await asyncio.to_thread(wrapped.stop, timeout=60)
    assert wrapped.wait()["StatusCode"] == 0
    hosts.start()
    assert await client.result(run, 60) == 3
    assert [what for what, _, _ in entries(ledger)] == ["begin", "end"]


async def test_a_killed_container_is_replaced(hosts: Hosts, client: Client, ledger: Path) -> None:
    """Another one runs the call again, and goes on with the run."""
    first = hosts.start()
    run = await client.submit("job", {"seconds": 2})
    await eventually(lambda: _count(ledger, "begin", 1), 60)
    hosts.start()
    await asyncio.to_thread(first.get_wrapped_container().kill)
    assert await client.result(run, 60) == 2
    assert [what for what, _, _ in entries(ledger)] == ["begin", "begin", "end"]


async def test_a_controller_starts_and_ends_containers(
    image: str, ledger: Path, nats_url: str, client: Client
) -> None:
    """It knows the actors from the image, finds its containers again, and removes those that it has ended."""
    settings = Settings.load({}, nats_url=nats_url, grace=5.0)
    ours = DockerContainers(
        image, "app.py", settings,
        network="host",
        environment={"LEDGER": f"/ledger/{ledger.name}"},
        volumes=[f"{ledger.parent}:/ledger:rw"],
    )  # fmt: skip
    assert {actor.name for actor in await ours.start()} == {"work", "job"}
    try:
        for actor in ("work", "job"):
            await ours.provision(actor, "")
        assert await client.run("job", {"seconds": 0}, timeout=60) == 0
        pulses = {pulse.node for pulse in await registry.hosts(client.node)}
        found = await ours.look()
        assert {one.node for one in found} == pulses
    finally:
        for one in await ours.look():
            await ours.kill(one)
        left = await ours.look()
        await ours.stop()
    assert left == []
    assert await registry.hosts(client.node) == []


async def _count(ledger: Path, what: str, count: int) -> bool:
    return sum(entry[0] == what for entry in await asyncio.to_thread(entries, ledger)) == count
