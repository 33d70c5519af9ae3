"""The host processes of the demo: started as `callboard host` does by hand, replaced when they die."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callboard import CallboardError
from callboard.infra import keeper
from callboard.infra.kept import KeptProcess

APP = Path(__file__).resolve().with_name("app.py")

AGENTS = "Analyst,StockAnalyst,RatesAnalyst,MarketResearcher,NewsAgent"
TOOLS = "catalog,prices,benchmark,rates,macro,chart"
ROLES = {"agents": f"{AGENTS},{TOOLS}", "driver": "research"}
"""What each host runs: two processes, although one could run it all."""

_LOOK_EVERY = 0.05  # s
_START_LIMIT = 60.0  # s


class Hosts:
    """The host processes, by role. They end with this process, even after kill -9 of it.

    Args:
        url: of the server.
        folder: for their logs.
        tell: told what happens, as rich markup.
    """

    def __init__(self, url: str, folder: Path, tell: Callable[[str], None]) -> None:
        self._url = url
        self._folder = folder
        self._tell = tell
        self._count = 0
        self._processes: dict[str, KeptProcess] = {}
        self._ids: dict[str, str] = {}

    async def start(self, role: str) -> None:
        """Start one and wait until it works.

        Raises:
            CallboardError: it does not; with what it said.
        """
        self._count += 1
        home = self._folder / f"host-{self._count}"
        home.mkdir()
        output = home / "output.log"
        command = [sys.executable, "-m", "callboard", "host", f"{APP}:{ROLES[role]}", "--nats", self._url]
        command += ["--grace", "1", "--json", "--log-level", "warning"]
        self._processes[role] = process = await asyncio.to_thread(
            KeptProcess, command, home=home, log=output, scratch=home, prepare=lambda: None
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_LIMIT):
                self._ids[role] = await _ready(process, output)
                return
        raise CallboardError(f"a host does not start; it says:\n{output.read_text('utf-8')}")

    async def replace_the_dead(self) -> None:
        """Start another in the place of each that ends, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for role in [role for role in self._ids if not self._processes[role].alive]:
                self._tell(f"[bold red]dead[/]      host {self._ids[role]}: starting another one")
                await self.start(role)
                self._tell(f"[bold green]here[/]      {self.described(role)}")

    def described(self, role: str) -> str:
        """One of them, for people."""
        return f"host {self._ids[role]} (pid {self.pid(role)})"

    def pid(self, role: str) -> int:
        """The process that runs now."""
        return self._processes[role].pid

    def kill(self, role: str) -> None:
        """End one without a word, as a power cut would."""
        self._tell(f"[bold red]kill -9[/]   {self.described(role)}")
        os.kill(self.pid(role), signal.SIGKILL)

    async def stop(self) -> None:
        """Drain all and wait for their ends."""
        ends = [asyncio.to_thread(process.end, keeper.STOP) for process in self._processes.values()]
        await asyncio.gather(*ends)


async def _ready(process: KeptProcess, output: Path) -> str:
    """Wait until a host says that it works; returns its id."""
    while process.alive:
        if said := _host_id(output):
            return said
        await asyncio.sleep(_LOOK_EVERY)
    raise TimeoutError


def _host_id(output: Path) -> str:
    """The id of the host that wrote this, once it works."""
    for line in output.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):  # half a line, or a warning of Python's
            said: dict[str, Any] = json.loads(line)
            if said.get("event") == "host_ready":
                return str(said["host"])
    return ""
