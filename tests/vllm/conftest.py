"""Real vLLM on this machine's CPU: `make test-vllm` runs these tests in an environment of their own."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal import Running
from tests.support.board import Board

from callboard import Client
from callboard.actors.models.load import EngineLoad, read_load
from callboard.infra.server import EmbeddedServer
from callboard.infra.settings import Settings

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["test_*.py"]

STARTS_WITHIN = 400.0
"""Seconds for vLLM to load, on a slow and busy machine; some 40 otherwise."""
PATIENCE = 120.0
"""Seconds for an answer."""
BATCH = 8
"""Requests that the engine batches."""
_COMPACT = '--structured-outputs-config={"backend": "xgrammar", "disable_any_whitespace": true}'
"""JSON without blanks, of which a model that babbles would make no end."""
ARGUMENTS = (
    "--enforce-eager",
    "--dtype=float32",
    "--max-model-len=2048",
    f"--max-num-seqs={BATCH}",
    _COMPACT,
)
SETTINGS: dict[str, Any] = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",  # a core is left for those who ask, and look
    "CALLBOARD_GRACE": "30",
}


class Patient(Board):
    """Its hosts take nobody for dead on a machine whose cores the engine has."""

    def settings(self, **overrides: Any) -> Settings:
        """Settings for the server."""
        return super().settings(**{"pulse_every": 0.5, "dead_after": 10.0, **overrides})


class Serving:
    """``callboard host --model tiny --vllm FOLDER``, and the server that it uses.

    Args:
        url: of the NATS server.
        host: the process.
    """

    def __init__(self, url: str, host: Running) -> None:
        self.url = url
        self.host = host
        self.pid = self.port = 0

    def until_ready(self) -> None:
        """Wait until vLLM takes requests, for the first time or again."""
        begun = json.loads(self.host.until('"event": "vllm_starting"'))
        self.host.until('"event": "vllm_ready"', STARTS_WITHIN)
        self.pid, self.port = begun["pid"], begun["port"]

    async def load(self) -> EngineLoad:
        """What the engine says itself, asked without Callboard."""
        return await asyncio.to_thread(self._load)

    async def sees(self, condition: Callable[[EngineLoad], bool]) -> EngineLoad:
        """Wait until the engine says something; gives what it says then.

        Raises:
            AssertionError: it has not; with how often it has said what instead.
        """
        said: Counter[tuple[int, int]] = Counter()
        ends = time.monotonic() + PATIENCE
        while not condition(load := await self.load()):
            said[load.running, load.waiting] += 1
            assert time.monotonic() < ends, f"running and waiting requests: {said}"
            await asyncio.sleep(0.1)
        return load

    async def steps(self) -> int:
        """How often the engine has computed a batch."""
        (line,) = [
            line
            for line in (await asyncio.to_thread(self._metrics)).splitlines()
            if line.startswith("vllm:iteration_tokens_total_count")
        ]
        return int(float(line.rpartition(" ")[2]))

    def _load(self) -> EngineLoad:
        found = read_load(self._metrics())
        assert found is not None
        return found

    def _metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answered:
            told: bytes = answered.read()
        return told.decode()


async def speaking(client: Client, run: str) -> None:
    """Wait until a model has begun to answer in a run."""
    async with asyncio.timeout(PATIENCE):
        async for piece in client.tokens(run):
            if piece.text:
                return


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    script = Path(__file__).with_name("tiny.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def serving(tiny: Path) -> Iterator[Serving]:
    """One host with vLLM for all tests: it takes long to start."""
    more = [f"--vllm-arg={one}" for one in ARGUMENTS]
    with (
        EmbeddedServer() as server,
        Running(
            "host", "--model", "tiny", "--vllm", tiny, *more, "--json", url=server.url, **SETTINGS
        ) as host,
    ):
        found = Serving(server.url, host)
        found.until_ready()
        host.until('"event":"host_ready"')
        yield found


@pytest.fixture
async def board(serving: Serving) -> AsyncIterator[Board]:
    """Hosts and clients of a test, beside the host with vLLM."""
    made = Patient(serving.url)
    yield made
    await made.close()
