"""Three nats-servers on this machine that are one cluster."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from callboard.infra import server
from callboard.infra.server import EmbeddedServer

SIZE = 3


class Member(EmbeddedServer):
    """A server of a cluster.

    Args:
        routes: the addresses at which the servers of the cluster talk to each other; its own is at ``place``.
    """

    def __init__(self, routes: list[str], place: int) -> None:
        super().__init__()
        self._routes = routes
        self._place = place

    @property
    def name(self) -> str:
        """What the cluster calls it."""
        return f"callboard-{self._port}"

    def _configuration(self, store: Path, port: int) -> str:
        cluster = {"name": "board", "listen": self._routes[self._place].removeprefix("nats://")}
        lines = [
            *(f"{k}: {json.dumps(v)}" for k, v in cluster.items()),
            f"routes: {json.dumps(self._routes)}",
        ]
        return super()._configuration(store, port) + "cluster {\n  " + "\n  ".join(lines) + "\n}\n"


class Cluster:
    """Three servers. Use with ``with``; ready when every one of them takes connections.

    Attributes:
        servers: to be killed and started again as one likes.
    """

    def __init__(self) -> None:
        ports: set[int] = set()
        while len(ports) < SIZE:
            ports.add(server._free_port())
        routes = [f"nats://127.0.0.1:{port}" for port in ports]
        self.servers = [Member(routes, place) for place in range(SIZE)]

    @property
    def url(self) -> str:
        """The addresses of all servers, separated by commas."""
        return ",".join(one.url for one in self.servers)

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(SIZE) as pool:
            for started in [pool.submit(one.start) for one in self.servers]:
                started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.servers:
            one.kill()  # ending them gently takes longer than most tests
            one.stop()
