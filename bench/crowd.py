"""Agents of the live cases of control: their work is to wait. All else about them is real."""

import asyncio

from callboard import ManagedList, agent, method, options, tool, workflow

NODE_SLOTS = 2
LIGHT_S = 0.005
_node = asyncio.Semaphore(NODE_SLOTS)
"""What a host works with, whichever of its agents does: two accelerators."""


@tool(concurrency=64)
async def classify(text: str) -> str:
    """Say which branch a request is for: light work, on no accelerator."""
    await asyncio.sleep(LIGHT_S)
    return text


@tool(concurrency=NODE_SLOTS)
async def chat(seconds: float) -> None:
    """One branch."""
    async with _node:
        await asyncio.sleep(seconds)


@tool(concurrency=NODE_SLOTS)
async def code(seconds: float) -> None:
    """The other one, on the same accelerators."""
    async with _node:
        await asyncio.sleep(seconds)


@workflow
async def routed(branch: str, seconds: float) -> None:
    """Classify, then the branch."""
    work = chat if await classify(branch) == "chat" else code
    await work(seconds)


@agent(concurrency=1)
class Analyst:
    """Keeps what was said in a session, and works on one call at a time."""

    notes: ManagedList[str]

    @method
    async def work(self, seconds: float) -> int:
        """A short or a long call."""
        self.notes.append(f"{seconds:.3f} s")
        await asyncio.sleep(seconds)
        return len(self.notes)


@workflow
async def opened(host: str) -> None:
    """Begin a session on a host."""
    with options(host=host):
        await Analyst.work(0.0)


@workflow
async def analysed(calls: list[float]) -> None:
    """One call after the other, in the run's session."""
    for seconds in calls:
        await Analyst.work(seconds)
