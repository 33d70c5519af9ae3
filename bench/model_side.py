"""An engine emulator, a model host before it, and the same engine asked directly."""

import asyncio
import contextlib
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from openai import AsyncOpenAI

from bench import jobs
from bench.callboard_side import CallboardSide, open_side, spawn_host
from bench.processes import ROOT, Child, Place, Server, place

_APP = str(ROOT / "bench" / "model_app.py")
_EXACT = {"ignore_eos": True}


class Models(msgspec.Struct):
    """All that runs.

    Args:
        side: Callboard: server, tool host, driver and client.
        url: of the engine; engine, host: its process, and that of the model host.
        direct: a client of the engine itself.
    """

    side: CallboardSide
    url: str
    engine: Child
    host: Child
    direct: AsyncOpenAI

    async def ask(self, tokens: int) -> tuple[float, float]:
        """A chat without Callboard; seconds until its first token, and until its last."""
        begun = time.perf_counter()
        stream = await self.direct.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=tokens,
            stream=True,
            extra_body=_EXACT,
        )
        first = 0.0
        async for chunk in stream:
            if not first and chunk.choices and chunk.choices[0].delta.content:
                first = time.perf_counter() - begun
        return first, time.perf_counter() - begun

    async def generated(self) -> float:
        """Tokens that the engine has generated so far, by its own metrics."""
        text = await asyncio.to_thread(_read, self.url.removesuffix("/v1") + "/metrics")
        return _metric(text, "vllm:generation_tokens_total")

    async def lag_s(self) -> float:
        """Seconds that the emulator's clock is behind."""
        text = await asyncio.to_thread(_read, self.url.removesuffix("/v1") + "/metrics")
        return _metric(text, "emulator_lag_seconds")


@contextlib.asynccontextmanager
async def open_models(
    workflows: Sequence[str], *engine_options: str, tools: Sequence[str] = ("noop",)
) -> AsyncIterator[Models]:
    """Start all of it.

    Args:
        workflows: of `bench/app.py`, driven by this process; tools: that the tool host serves.
        engine_options: of `callboard emulate-engine`.
    """
    async with place() as here:
        engine, url = await spawn_emulator(here, *engine_options)
        async with (
            open_side(here, tools, workflows) as side,
            AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as direct,
        ):
            server = Server(url=side.url, pid=0)
            host = await spawn_host(here, server, ["writer"], {jobs.ENGINE: url}, _APP)
            yield Models(side, url, engine, host, direct)


async def spawn_emulator(here: Place, *options: str) -> tuple[Child, str]:
    """Start an engine emulator; gives its process and its URL."""
    child = await here.spawn_python("callboard", "emulate-engine", "--json", *options)
    await child.until_logged("emulator_ready", timeout_s=60)
    told: dict[str, Any] = json.loads(child.output().splitlines()[0])
    return child, told["url"]


def _read(url: str) -> str:
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - the emulator's own address
        text: str = answer.read().decode()
        return text


def _metric(text: str, name: str) -> float:
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name}{{"))
