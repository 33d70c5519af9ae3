"""Hosts as containers of a Docker engine, which starts them again when they crash.

A container is found again by its labels: the board that it is for, its actor, and its host name, which is
also the name of the node in its heartbeat.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from callboard.actors.app import split
from callboard.controller.dev import Broken, Loaded, Said
from callboard.controller.provisioning.packages import package, unusable
from callboard.controller.provisioning.port import Provided
from callboard.controller.provisioning.room import most_hosts, plenty, resource_words
from callboard.infra import log
from callboard.infra.errors import ProvisionFailed
from callboard.infra.messages.registry import ActorInfo
from callboard.infra.settings import Settings

BOARD, ACTOR, NODE = "callboard.board", "callboard.actor", "callboard.node"
"""Labels of a container."""
AFTER_GRACE = 10
"""Seconds beyond its grace after which a container that was told to end is killed."""
LOOK_EVERY = 1.0
_GB = 1e9
_OVER = frozenset({"exited", "dead"})
_T = TypeVar("_T")


class DockerContainers:
    """Hosts as containers, each with one actor.

    Args:
        image: with the application and ``callboard`` as its entry point; it is not pulled.
        app: the application in the image, as for ``callboard host``.
        settings: with the server's address as containers see it.
        most: containers at one time; 0: as :func:`most_hosts`.
        resources: what there is for all of them, beside ``cpu`` and ``memory_gb`` of that machine.
        engine: its address; empty: as the ``docker`` command finds it.
        network, environment: of the containers; volumes: theirs, as ``FROM:TO`` or ``FROM:TO:ro``.
    """

    def __init__(
        self,
        image: str,
        app: str,
        settings: Settings,
        *,
        most: int = 0,
        resources: Mapping[str, float] | None = None,
        engine: str = "",
        network: str = "",
        environment: Mapping[str, str] | None = None,
        volumes: Sequence[str] = (),
    ) -> None:
        self.every = LOOK_EVERY
        self.most = most
        self.places: dict[str, list[str]] = {}
        self.capacity: dict[str, dict[str, float]] = {}
        self.board = hashlib.sha256(settings.nats_url.encode()).hexdigest()[:12]
        """Tells containers of one board from those of another on the same engine."""
        self._image = image
        self._app = app
        self._settings = settings
        self._resources = dict(resources or {})
        self._engine = engine
        self._network = network
        self._environment = {"NATS_URL": settings.nats_url, **(environment or {})}
        self._volumes = list(volumes)
        self._needs: dict[str, dict[str, float]] = {}
        self._docker: Any = None
        self._client: Any = None
        self._ending: set[str] = set()
        self._log = log.get("provisioner")

    async def start(self) -> list[ActorInfo]:
        """Find the engine and the image, and ask a container which actors the application has.

        Raises:
            ProvisionerUnusable: the package, the engine, the image or the application cannot be used.
        """
        self._docker = await asyncio.to_thread(package, "docker", "docker")
        try:
            return await asyncio.to_thread(self._open)
        except (self._docker.errors.DockerException, OSError) as error:
            raise unusable("docker", error) from error

    def _open(self) -> list[ActorInfo]:
        make = self._docker.DockerClient if self._engine else self._docker.from_env
        self._client = make(base_url=self._engine) if self._engine else make()
        machine = self._client.info()
        where = str(machine["Name"])
        has = {"cpu": float(machine["NCPU"]), "memory_gb": machine["MemTotal"] / _GB}
        self.capacity = {where: has | self._resources}
        actors = self._declared()
        self.most = self.most or most_hosts(machine["NCPU"], actors)
        self.places = {actor.name: [where] for actor in actors}
        self._needs = {actor.name: actor.directives.get("resources", {}) for actor in actors}
        return actors

    def _declared(self) -> list[ActorInfo]:
        """What a host says that is told of no server: it ends when it has."""
        (has,) = self.capacity.values()  # each actor gets a container of its own
        words = ["host", self._app, "--supervised", *resource_words(plenty(has))]
        container = self._client.containers.create(self._image, words, environment=self._environment)
        try:
            container.start()
            container.wait(timeout=self._settings.grace + AFTER_GRACE)
            lines = container.logs(stdout=True, stderr=False).splitlines()
            told = container.logs(stdout=False, stderr=True).decode("utf-8", "replace")
        finally:
            container.remove(force=True)
        try:
            said = msgspec.json.decode(lines[0], type=Said) if lines else None
        except msgspec.DecodeError:
            said = None
        if isinstance(said, Loaded):
            return said.actors + said.left_out
        problem = said.message if isinstance(said, Broken) else told.strip()[-500:] or "it says nothing"
        raise unusable("docker", f"image {self._image} does not run 'callboard host {self._app}': {problem}")

    async def stop(self) -> None:
        """Let go of the engine; containers go on. Idempotent."""
        if self._client is not None:
            self._client.close()

    def lead(self) -> None:
        """Nothing is done by itself."""

    def lead_no_more(self) -> None:
        """What has been started is seen by whoever leads next."""

    async def look(self) -> list[Provided]:
        """The containers that carry this board's label; those that have ended for good are removed."""
        return await self._ask("its containers", "", self._look)

    def _look(self) -> list[Provided]:
        (where,) = self.capacity
        found = []
        chosen = {"label": [f"{BOARD}={self.board}"]}
        for container in self._client.containers.list(all=True, sparse=True, filters=chosen):
            labels, state = container.attrs["Labels"], container.attrs["State"]
            if state in _OVER:
                self._remove(container)
                continue
            if state == "created" and container.id not in self._ending:
                try:
                    self._start(container)  # a controller has died between the two
                except self._docker.errors.APIError as error:
                    self._log.error("not_started", container=container.id, reason=str(error))
                    continue
            ending = container.id in self._ending or state == "removing"
            found.append(
                Provided(container.id, labels.get(ACTOR, ""), where, labels.get(NODE, ""), ending=ending)
            )
        self._ending &= {one.name for one in found}
        return found

    def _remove(self, container: Any) -> None:
        try:
            container.remove()
        except self._docker.errors.APIError as error:  # somebody else does
            self._log.debug("not_removed", container=container.id, reason=str(error))

    async def provision(self, actor: str, where: str) -> None:
        """Create and start a container."""
        await self._ask(actor, where, lambda: self._provision(actor))

    def _provision(self, actor: str) -> None:
        node = f"callboard-{uuid.uuid4().hex[:12]}"
        needs = self._needs.get(actor, {})
        more: dict[str, Any] = {"network": self._network} if self._network else {}
        if needs.get("gpu"):
            kind = self._docker.types.DeviceRequest
            more["device_requests"] = [kind(count=int(needs["gpu"]), capabilities=[["gpu"]])]
        container = self._client.containers.create(
            self._image,
            ["host", f"{split(self._app)[0]}:{actor}", *resource_words(needs)],
            name=node,
            hostname=node,
            environment=self._environment,
            labels={BOARD: self.board, ACTOR: actor, NODE: node},
            restart_policy={"Name": "on-failure"},
            volumes=self._volumes,
            **more,
        )
        self._start(container)

    def _start(self, container: Any) -> None:
        """Start what is created, or remove it: it would be found, and tried, for ever."""
        try:
            container.start()
        except self._docker.errors.APIError:
            self._remove(container)
            raise

    async def kill(self, host: Provided) -> None:
        """Stop a container: SIGTERM, and SIGKILL when the grace is over; then remove it."""
        self._ending.add(host.name)
        await self._ask(host.actor, host.where, lambda: self._kill(host.name))

    def _kill(self, name: str) -> None:
        try:
            container = self._client.containers.get(name)
            container.stop(timeout=int(self._settings.grace) + AFTER_GRACE)
            self._remove(container)
        except self._docker.errors.NotFound:
            self._log.debug("gone", container=name)

    async def _ask(self, what: str, where: str, work: Callable[[], _T]) -> _T:
        """Work with the engine, in a thread.

        Raises:
            ProvisionFailed: it refuses, or cannot be reached.
        """
        try:
            return await asyncio.to_thread(work)
        except (self._docker.errors.DockerException, OSError) as error:
            raise ProvisionFailed(
                f"the container engine has not done it for {what}: {error}",
                what=what,
                where=where,
                problem=str(error),
            ) from error
