"""The host processes of the demo: started as `callboard host` does by hand, replaced when they die."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
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

MODEL = "analyst"
"""The role, and the name on the board, of the model that plans and writes."""

_LOOK_EVERY = 0.05  # s
_START_LIMIT = 60.0  # s
_LOADING_LIMIT = 900.0  # s; vLLM on few cores
_VLLM = ("--enforce-eager", "--dtype=float32", "--max-model-len=2048")
_VLLM_SETTINGS = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB


@dataclass(frozen=True)
class Engine:
    """What answers for the model.

    Args:
        url: of a server with the OpenAI API; or a folder with a model, which vLLM is to serve.
        python: the interpreter that has vLLM.
        options: further ones of `callboard host`.
    """

    url: str
    python: str = sys.executable
    options: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """What serves it, up to the NATS server's address."""
        if "://" in self.url:
            engine = ["--url", self.url]
        else:
            engine = ["--vllm", self.url, *(f"--vllm-arg={one}" for one in _VLLM)]
        return [self.python, "-m", "callboard", "host", "--model", MODEL, *engine, *self.options]


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
        self._engine: Engine | None = None

    async def start_model(self, engine: Engine) -> None:
        """Start the host of the model; like the others it is started again if it dies.

        Raises:
            CallboardError: it does not work; with what it said.
        """
        self._engine = engine
        await self.start(MODEL)

    def _command(self, role: str) -> list[str]:
        if role == MODEL:
            assert self._engine is not None
            return [*self._engine.command(), "--log-level", "info"]
        callboard = [sys.executable, "-m", "callboard", "host", f"{APP}:{ROLES[role]}"]
        return [*callboard, "--grace", "1", "--log-level", "warning"]

    async def start(self, role: str) -> None:
        """Start one and wait until it works.

        Raises:
            CallboardError: it does not; with what it said.
        """
        self._count += 1
        home = self._folder / f"host-{self._count}"
        home.mkdir()
        output = home / "output.log"
        command = [*self._command(role), "--nats", self._url, "--json"]
        if role == MODEL:
            command = ["env", *(f"{name}={value}" for name, value in _VLLM_SETTINGS.items()), *command]
        self._processes[role] = process = await asyncio.to_thread(
            KeptProcess, command, home=home, log=output, scratch=home, prepare=lambda: None
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOADING_LIMIT if role == MODEL else _START_LIMIT):
                self._ids[role] = await self._ready(process, output)
                return
        raise CallboardError(f"a host does not start; it says:\n{output.read_text('utf-8')}")

    async def _ready(self, process: KeptProcess, output: Path) -> str:
        """Wait until a host says that it works; returns its id. How far its engine is, is told meanwhile."""
        told = 0
        while process.alive:
            lines = await asyncio.to_thread(_said, output)
            for line in lines[told:]:
                if line.get("event") == "vllm_loading":
                    self._tell(f"[dim]vLLM is loading, {line['so_far_s']} s so far[/]")
                elif line.get("event") == "host_ready" and "host" in line and "component" not in line:
                    return str(line["host"])
            told = len(lines)
            await asyncio.sleep(_LOOK_EVERY)
        raise TimeoutError

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


def _said(output: Path) -> list[dict[str, Any]]:
    """The lines that a host has written, those that are no JSON left out."""
    said: list[dict[str, Any]] = []
    for line in output.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):  # half a line, or a warning of Python's
            found = json.loads(line)
            if isinstance(found, dict):
                said.append(found)
    return said
