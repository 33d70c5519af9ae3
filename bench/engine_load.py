"""Loads for inference engines, real or emulated: prompts and answers of so many tokens, and when they come.

Prompts are token ids that no two requests share, and answers have exactly the length that is asked for, so
that two engines are given the same work whatever they would say.
"""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Sequence

import msgspec
from openai import AsyncOpenAI

_IDS = (1000, 40_000)


class Request(msgspec.Struct, frozen=True):
    """One request.

    Args:
        at_s: when it is due, in seconds from the beginning; ignored in a closed loop.
        prompt: tokens of it; answer: tokens of the answer.
    """

    at_s: float
    prompt: int
    answer: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked.

    Args:
        name: for tables.
        requests: in order.
        at_once: of a closed loop: so many are under way; 0: each comes when it is due.
    """

    name: str
    requests: list[Request]
    at_once: int = 0


class Taken(msgspec.Struct):
    """How one request went, in seconds."""

    first_s: float
    whole_s: float
    between_s: list[float]


class Figures(msgspec.Struct):
    """What a load took.

    Args:
        p50_s, p99_s: of whole requests; first_p50_s: until the first token.
        tokens_per_s: of answers, from the first request to the last token.
    """

    p50_s: float
    p99_s: float
    first_p50_s: float
    tokens_per_s: float


def poisson(name: str, count: int, rate: float, prompt: tuple[int, int], answer: tuple[int, int]) -> Load:
    """Requests that come by chance, so many a second; lengths between two bounds."""
    draw = random.Random(name)
    at = 0.0
    requests = []
    for _ in range(count):
        at += draw.expovariate(rate)
        requests.append(Request(at, draw.randint(*prompt), draw.randint(*answer)))
    return Load(name=name, requests=requests)


def closed(name: str, count: int, at_once: int, prompt: tuple[int, int], answer: tuple[int, int]) -> Load:
    """Requests of which so many are always under way; lengths between two bounds."""
    draw = random.Random(name)
    requests = [Request(0.0, draw.randint(*prompt), draw.randint(*answer)) for _ in range(count)]
    return Load(name=name, requests=requests, at_once=at_once)


async def play(url: str, load: Load) -> list[Taken]:
    """Give a load to the engine at a URL."""
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600) as client:
        model = (await client.models.list()).data[0].id
        begun = time.perf_counter()
        waiting = iter(load.requests)

        async def lane() -> list[Taken]:
            return [await ask(client, model, request) for request in waiting]

        async def due(request: Request) -> Taken:
            await asyncio.sleep(max(0.0, begun + request.at_s - time.perf_counter()))
            return await ask(client, model, request)

        if load.at_once:
            lanes = await asyncio.gather(*(lane() for _ in range(load.at_once)))
            return [one for each in lanes for one in each]
        return list(await asyncio.gather(*(due(request) for request in load.requests)))


async def ask(client: AsyncOpenAI, model: str, request: Request) -> Taken:
    """One request."""
    begun = time.perf_counter()
    stream = await client.completions.create(
        model=model,
        prompt=[random.randint(*_IDS) for _ in range(request.prompt)],
        max_tokens=request.answer,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    times = [time.perf_counter() async for chunk in stream if chunk.choices]
    return Taken(times[0] - begun, times[-1] - begun, [b - a for a, b in itertools.pairwise(times)])


async def figures(url: str, load: Load) -> Figures:
    """What a load takes at a URL."""
    begun = time.perf_counter()
    taken = await play(url, load)
    return figures_of(taken, sum(one.answer for one in load.requests), time.perf_counter() - begun)


def figures_of(taken: Sequence[Taken], tokens: int, seconds: float) -> Figures:
    """Of requests that are over."""
    whole = sorted(one.whole_s for one in taken)
    return Figures(
        p50_s=statistics.median(whole),
        p99_s=whole[max(0, round(0.99 * len(whole)) - 1)],
        first_p50_s=statistics.median(one.first_s for one in taken),
        tokens_per_s=tokens / seconds,
    )
