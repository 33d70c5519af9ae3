"""Callboard's side of the benchmark: tools that do the jobs, workflows that call them."""

import asyncio
import time
from typing import Any, cast

import callboard
from bench import chats, jobs
from bench.chats import Message
from callboard import ManagedList, agent, method, options, tool, workflow

SLOTS = 256


@tool(concurrency=SLOTS)
async def noop() -> None:
    """Do nothing."""


@tool(concurrency=SLOTS)
async def plan() -> None:
    """Take the time of planning."""
    await asyncio.sleep(jobs.PLAN_S)


@tool(concurrency=SLOTS)
async def lookup() -> None:
    """Take the time of one of three parallel tools."""
    await asyncio.sleep(jobs.TOOL_S)


@tool(concurrency=SLOTS)
async def summary() -> None:
    """Take the time of summing up."""
    await asyncio.sleep(jobs.SUMMARY_S)


@tool(concurrency=SLOTS)
async def increment(number: int) -> int:
    """Give the next number."""
    return number + 1


@tool(concurrency=SLOTS)
async def held(number: int) -> None:
    """Wait for the gate, then enter the ledger."""
    await jobs.held(number)


@tool(concurrency=SLOTS)
async def interrupted(trial: int) -> None:
    """Hang the first time, return the second."""
    await jobs.interrupted(trial)


@tool(concurrency=1)
async def lone(number: int, seconds: float, *, blocks: bool) -> None:
    """Enter its beginning into the ledger, then take its time, one at a time in each host."""
    jobs.record(str(number), "begin")
    if blocks:
        time.sleep(seconds)  # noqa: ASYNC251 - what must not be done, and is
    elif seconds:
        await asyncio.sleep(seconds)


@tool(concurrency=1024)
async def relayed(run: int, step: int) -> None:
    """Enter begin and end of a step into the ledger; the first step waits for the gate."""
    await jobs.relayed(run, step)


@agent(concurrency=SLOTS)
class Keeper:
    """Keeps lines."""

    lines: ManagedList[str]

    @method
    async def keep(self, text: str) -> int:
        """Read, append, commit."""
        self.lines.append(text)
        return len(self.lines)


@agent(concurrency=SLOTS)
class Forgetter:
    """The same without state."""

    @method
    async def keep(self, text: str) -> int:
        """Keep nothing."""
        return len(text)


@agent(concurrency=1)
class Desk:
    """Keeps lines, one call at a time; says when it began (unix seconds)."""

    lines: ManagedList[str]

    @method
    async def file(self, text: str, seconds: float) -> float:
        """Append, and take some time."""
        began = time.time()
        self.lines.append(text)
        await asyncio.sleep(seconds)
        return began


@workflow
async def filing(text: str, seconds: float) -> float:
    """One call in the run's session."""
    return await Desk.file(text, seconds)


@workflow
async def filing_timed() -> float:
    """One call in the run's session; seconds from making it to its beginning."""
    made = time.time()
    return await Desk.file("line", 0.0) - made


@workflow
async def keeping(count: int, *, managed: bool) -> list[float]:
    """Calls one after the other; seconds of each."""
    keep = Keeper.keep if managed else Forgetter.keep
    latencies = []
    for number in range(count):
        begun = time.perf_counter()
        await keep(f"line {number}")
        latencies.append(time.perf_counter() - begun)
    return latencies


@workflow
async def committing(sessions: int, each: int) -> float:
    """So many calls in each of so many sessions, one after the other in a session; seconds."""

    async def one(session: int) -> None:
        with options(session=f"s{session}"):
            for number in range(each):
                await Keeper.keep(f"line {number}")

    begun = time.perf_counter()
    await asyncio.gather(*(one(session) for session in range(sessions)))
    return time.perf_counter() - begun


@tool(concurrency=SLOTS)
async def model(messages: list[Message]) -> str:
    """Answer the last message."""
    return chats.answered(len(messages) // 2)


@tool(concurrency=SLOTS)
async def step(messages: list[Message]) -> list[Message]:
    """Give all messages back with an answer."""
    return [*messages, Message("assistant", chats.answered(len(messages) // 2))]


@agent(concurrency=SLOTS)
class Talker:
    """Keeps what is said."""

    history: ManagedList[Message]

    @method
    async def say(self, text: str) -> str:
        """Append, ask the model with the whole history, append the answer."""
        self.history.append(Message("user", text))
        answer = await model(list(self.history))
        self.history.append(Message("assistant", answer))
        return answer


@workflow
async def chat_in_a_list(turns: int) -> list[float]:
    """A chat whose messages are a plain list; seconds of each turn."""
    messages: list[Message] = []
    took = []
    for turn in range(turns):
        begun = time.perf_counter()
        messages.append(Message("user", chats.said(turn)))
        answer = await model(messages)
        messages.append(Message("assistant", answer))
        took.append(time.perf_counter() - begun)
    return took


@workflow
async def chat_handed_back(turns: int) -> list[float]:
    """A chat that a tool is given, and gives back with its answer; seconds of each turn."""
    messages: list[Message] = []
    took = []
    for turn in range(turns):
        begun = time.perf_counter()
        messages = await step([*messages, Message("user", chats.said(turn))])
        took.append(time.perf_counter() - begun)
    return took


@workflow
async def chat_with_an_agent(turns: int) -> list[float]:
    """A chat whose messages an agent keeps; seconds of each turn."""
    took = []
    for turn in range(turns):
        begun = time.perf_counter()
        await Talker.say(chats.said(turn))
        took.append(time.perf_counter() - begun)
    return took


@tool(cpu=True, concurrency=2)
def grind(seconds: float) -> int:
    """Keep a core busy, in a process of its own."""
    ends, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends:
        count += 1
    return count


@workflow
async def chats_in_turn(count: int, tokens: int) -> list[float]:
    """Chats with a model, one after the other; seconds of each."""
    writer, exact = callboard.model("writer"), _exactly(tokens)
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        await writer.chat("hi", sampling=exact)
        took.append(time.perf_counter() - begun)
    return took


@workflow
async def streams(count: int, tokens: int) -> list[tuple[float, float]]:
    """Chats heard while they are said, at once; of the whole ones, seconds to the first and last piece."""
    writer, exact = callboard.model("writer"), _exactly(tokens)

    async def one() -> tuple[float, float] | None:
        begun, first, text = time.perf_counter(), 0.0, ""
        async for piece in writer.stream("hi", sampling=exact):
            first = first or time.perf_counter() - begun
            text = piece.text if piece.reset else text + piece.text
        whole = text.split() == ["emulated", *map(str, range(1, tokens))]
        return (first, time.perf_counter() - begun) if whole else None

    return [took for took in await asyncio.gather(*(one() for _ in range(count))) if took is not None]


@workflow
async def chatting(tokens: int) -> None:
    """One chat after the other, until cancelled."""
    writer, exact = callboard.model("writer"), _exactly(tokens)
    while True:
        await writer.chat("hi", sampling=exact)


@workflow
async def tooling(seconds: float, rate: float) -> int:
    """Call tools so often a second, each twentieth of which keeps a core busy for 5 ms; gives how many."""
    begun = time.perf_counter()
    made: list[Any] = []
    while len(made) < seconds * rate:
        made += [noop() for _ in range(19)]
        made.append(grind(0.005))
        await asyncio.sleep(max(0.0, begun + len(made) / rate - time.perf_counter()))
    await asyncio.gather(*made)
    return len(made)


def _exactly(tokens: int) -> callboard.Sampling:
    return callboard.Sampling(max_tokens=tokens, extra={"ignore_eos": True})


@workflow
async def single() -> None:
    """Call once."""
    await noop()


@workflow
async def sequential(count: int) -> list[float]:
    """Call one after the other; seconds of each call."""
    latencies = []
    for _ in range(count):
        begun = time.perf_counter()
        await noop()
        latencies.append(time.perf_counter() - begun)
    return latencies


@workflow
async def gathered(count: int) -> float:
    """Call all at once and join; seconds."""
    begun = time.perf_counter()
    await asyncio.gather(*(noop() for _ in range(count)))
    return time.perf_counter() - begun


@workflow
async def steady(count: int, rate: float) -> None:
    """Call so often a second, in twenties, whatever the calls take."""
    begun = time.perf_counter()
    made: list[Any] = []
    while len(made) < count:
        made += [noop() for _ in range(min(20, count - len(made)))]
        await asyncio.sleep(max(0.0, begun + len(made) / rate - time.perf_counter()))
    await asyncio.gather(*made)


@workflow
async def answer() -> None:
    """Plan, three tools in parallel, summary."""
    await plan()
    await asyncio.gather(*(lookup() for _ in range(3)))
    await summary()


@workflow
async def chain_awaited(count: int) -> float:
    """A chain of dependent calls, each awaited before the next is made; seconds."""
    begun = time.perf_counter()
    number = 0
    for _ in range(count):
        number = await increment(number)
    _check(number, count)
    return time.perf_counter() - begun


@workflow
async def chain_passed(count: int) -> float:
    """The same chain with each result passed on as an unresolved future; seconds."""
    begun = time.perf_counter()
    future = increment(0)
    for _ in range(count - 1):
        future = increment(cast("int", future))
    _check(await future, count)
    return time.perf_counter() - begun


def _check(number: int, expected: int) -> None:
    if number != expected:
        raise ValueError(f"the chain gave {number} instead of {expected}")


@workflow
async def outstanding(count: int) -> None:
    """Make all calls, then wait for them one by one."""
    for future in [held(number) for number in range(count)]:
        await future


@workflow
async def interruptible(trial: int) -> None:
    """One call that is interrupted by the death of its host."""
    await interrupted(trial)


@workflow
async def relay(run: int, steps: int) -> None:
    """Steps in turn, each in the ledger."""
    for step in range(steps):
        await relayed(run, step)


@workflow
async def patient() -> None:
    """Wait for a signal."""
    await callboard.signal("go")


@workflow
async def long_call(host: str, number: int, seconds: float, *, blocks: bool) -> None:
    """One call that takes long, in a host's lane."""
    with options(host=host):
        await lone(number, seconds, blocks=blocks)


@workflow
async def behind(host: str, first: int, count: int) -> float:
    """So many short calls in a host's lane; when they were made, monotonic seconds."""
    begun = time.monotonic()
    with options(host=host):
        calls = [lone(first + number, 0.0, blocks=False) for number in range(count)]
    await asyncio.gather(*calls)
    return begun


@tool(concurrency=2)
async def brief(seconds: float) -> None:
    """Take a time that was drawn before."""
    await asyncio.sleep(seconds)


@tool(concurrency=4)
async def part(seconds: float) -> None:
    """Take a time that was drawn before."""
    await asyncio.sleep(seconds)


@tool(concurrency=2)
async def parent(parts: list[float]) -> None:
    """Make one call after the other."""
    for seconds in parts:
        await brief(seconds)


@workflow
async def fans_out(first: float, parts: list[float]) -> None:
    """One call, then some at once."""
    await brief(first)
    await asyncio.gather(*(part(seconds) for seconds in parts))


@workflow
async def nests(first: float, parts: list[float]) -> None:
    """One call, then one that makes calls."""
    await part(first)
    await parent(parts)


@workflow
async def goes_on(first: float, parts: list[float]) -> None:
    """One call after the other."""
    for seconds in (first, *parts):
        await part(seconds)
