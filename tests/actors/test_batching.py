"""Batching: many callers, one list; to each its own result or its own error."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.support.board import Board, call_headers, call_subject, instance, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import agent, batchable, method, tool, workflow
from callboard.infra.errors import DeadlineExceeded, InvalidArguments, RunFailed

BATCHES: list[list[Any]] = anew([])
GATE = Gate()
LONG = 60.0
"""Seconds for which no test waits."""


class Odd(Exception):
    """A user's error."""


@agent(concurrency=1)
class Batcher:
    """Takes many at once."""

    @batchable(max_batch=4, max_wait=0.3)
    async def square(self, numbers: list[int]) -> list[int]:
        """Odd numbers are their caller's error."""
        BATCHES.append(numbers)
        return [Odd(n) if n % 2 else n * n for n in numbers]  # type: ignore[misc]

    @batchable(max_batch=100, max_wait=0.02)
    def in_thread(self, numbers: list[int], factors: list[int]) -> list[int]:
        """Two columns, in a thread."""
        BATCHES.append([numbers, factors])
        return [n * f for n, f in zip(numbers, factors, strict=True)]

    @batchable(max_batch=10, max_wait=0.0)
    async def short(self, numbers: list[int]) -> list[int]:
        """Give too few results."""
        return numbers[1:]

    @batchable(max_batch=10, max_wait=0.02)
    async def held(self, names: list[str]) -> list[str]:
        """Wait for the gate."""
        BATCHES.append(names)
        await GATE.wait()
        return names

    @batchable(max_batch=10, max_wait=LONG)
    async def patient(self, numbers: list[int]) -> list[int]:
        """Wait long for others."""
        BATCHES.append(numbers)
        return numbers

    @method
    async def plain(self, number: int) -> int:
        """Take one."""
        BATCHES.append([number])
        return number


@workflow
async def squares_flow(numbers: list[int]) -> list[str]:
    """Many callers."""
    found = await asyncio.gather(*(Batcher.square(n) for n in numbers), return_exceptions=True)
    return [repr(one) for one in found]


async def test_each_caller_gets_its_own_result_or_its_own_error(board: Board) -> None:
    """Handed over together, at most so many at once."""
    await board.host(squares_flow, Batcher)
    found = await board.run(squares_flow, numbers=list(range(10)))
    assert found == [f"Odd({n})" if n % 2 else str(n * n) for n in range(10)]
    assert sorted(n for batch in BATCHES for n in batch) == list(range(10))
    assert max(map(len, BATCHES)) == 4


async def test_callers_of_many_runs_share_a_batch(board: Board) -> None:
    """What waits is handed over together, whoever it belongs to."""
    await board.host(squares_flow, Batcher)
    client = await board.client()
    runs = await asyncio.gather(*(client.submit(squares_flow.name, {"numbers": [n]}) for n in (2, 4, 6, 8)))
    assert [await client.result(run, SOON) for run in runs] == [["4"], ["16"], ["36"], ["64"]]
    assert len(BATCHES) < 4


@workflow
async def single_flow(number: int) -> list[Any]:
    """One caller alone."""
    begun = time.perf_counter()
    value = await Batcher.square(number)
    return [value, time.perf_counter() - begun]


async def test_the_first_waits_no_longer_than_declared(board: Board) -> None:
    """Nobody else comes: after ``max_wait`` it goes alone."""
    await board.host(single_flow, Batcher)
    value, took = await board.run(single_flow, number=2)
    assert value == 4
    assert 0.3 <= took < 15.0
    assert BATCHES == [[2]]


@workflow
async def full_flow() -> float:
    """Fill a batch at once."""
    begun = time.perf_counter()
    await asyncio.gather(*(Batcher.patient(n) for n in range(10)))
    return time.perf_counter() - begun


async def test_a_full_batch_does_not_wait(board: Board) -> None:
    """There is no room for more, so there is nothing to wait for."""
    await board.host(full_flow, Batcher)
    assert await board.run(full_flow) < LONG / 2
    assert len(BATCHES) == 1


@workflow
async def thread_flow() -> list[int]:
    """Two arguments, in a thread."""
    return await asyncio.gather(*(Batcher.in_thread(n, factors=10) for n in range(5)))  # type: ignore[no-any-return]


async def test_every_parameter_is_a_column(board: Board) -> None:
    """In a blocking handler, too."""
    await board.host(thread_flow, Batcher)
    assert await board.run(thread_flow) == [0, 10, 20, 30, 40]
    assert sum(len(numbers) for numbers, _ in BATCHES) == 5


@workflow
async def short_flow() -> list[str]:
    """Call what returns too few."""
    found = await asyncio.gather(*(Batcher.short(n) for n in range(3)), return_exceptions=True)
    return [f"{type(one).__name__}: {one}" for one in found]


async def test_a_list_of_the_wrong_length_is_everybodys_error(board: Board) -> None:
    """Nobody can tell whose result is missing."""
    await board.host(short_flow, Batcher)
    for one in await board.run(short_flow):
        assert one.startswith("InvalidResult: Batcher.short is batchable and got")


async def test_one_that_does_not_decode_fails_alone(board: Board) -> None:
    """Published by hand: wrong arguments, a reference that is none; the others have their results."""
    await board.host(Batcher)
    node = await board.node()
    subject = call_subject(Batcher)
    bodies = [
        (packed({"numbers": 2}), {}),
        (packed({"numbers": "x"}), {}),
        (packed({}), {}),
        (b"\xc1", {}),
        (packed({"numbers": 4}), {"Cb_Blobs": "zz"}),
        (packed({"numbers": 6}), {}),
    ]
    for number, (body, more) in enumerate(bodies):
        node.store.put(subject, body, call_headers(f"r{number}:1", "square", **more))
    results = [(await _result(board, f"r{number}")) for number in range(len(bodies))]
    assert [r.error.code if r.error else "" for r in results] == [
        "",
        InvalidArguments.code,
        InvalidArguments.code,
        InvalidArguments.code,
        "value_missing",
        "",
    ]
    await board.emptied("CALLS")


async def _result(board: Board, run: str) -> Any:
    await board.entries(run, "result")
    (result,) = await board.results(run)
    return result


@workflow
async def held_flow(name: str) -> str:
    """Be part of a batch."""
    return await Batcher.held(name)


async def test_one_that_is_cancelled_leaves_the_others_alone(board: Board) -> None:
    """Their results come; the batch is not run again for them."""
    host = await board.host(held_flow, Batcher)
    client = await board.client()
    runs = [await client.submit(held_flow.name, {"name": name}) for name in ("a", "b", "c")]
    await until(lambda: BATCHES and sum(map(len, BATCHES)) + len(instance(host, Batcher).mailbox) >= 1)
    await client.cancel(runs[0])
    assert (await client.done(runs[0], SOON)).status == "cancelled"
    GATE.set()
    assert [await client.result(run, SOON) for run in runs[1:]] == ["b", "c"]
    await board.emptied("CALLS")
    assert sorted(name for batch in BATCHES for name in batch) in (["a", "b", "c"], ["b", "c"])


async def test_the_deadline_of_one_does_not_end_the_others(board: Board) -> None:
    """A batch runs on as long as somebody still wants it."""
    await board.host(held_flow, Batcher)
    client = await board.client()
    hurried = await client.submit(held_flow.name, {"name": "hurried"}, deadline=0.3)
    patient = await client.submit(held_flow.name, {"name": "patient"})
    await until(lambda: sum(map(len, BATCHES)) == 2 or len(BATCHES) == 1)
    with pytest.raises(RunFailed) as caught:
        await client.result(hurried, SOON)
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    GATE.set()
    assert await client.result(patient, SOON) == "patient"


@workflow
async def mixed_flow() -> list[Any]:
    """Calls of other methods while a batch waits for more."""
    patient = Batcher.patient(1)
    await asyncio.sleep(0.02)
    begun = time.perf_counter()
    plain = await Batcher.plain(2)
    square = await Batcher.square(4)
    took = time.perf_counter() - begun
    patient.cancel()
    return [plain, square, took]


async def test_a_batch_that_waits_keeps_nobody_else_waiting(board: Board) -> None:
    """Neither plain methods nor other batches, though they came later."""
    await board.host(mixed_flow, Batcher)
    plain, square, took = await board.run(mixed_flow)
    assert (plain, square) == (2, 16)
    assert took < LONG / 2


@tool
async def give(number: int) -> int:
    """Called by a batch."""
    return number + 1


@agent
class Nester:
    """A batchable method that makes calls."""

    @batchable(max_batch=8, max_wait=0.02)
    async def add(self, numbers: list[int]) -> list[int]:
        """One call for each."""
        return list(await asyncio.gather(*(give(n) for n in numbers)))


@workflow
async def nested_flow() -> list[int]:
    """Call it."""
    return await asyncio.gather(*(Nester.add(n) for n in range(6)))


async def test_a_batch_may_make_calls(board: Board) -> None:
    """They are calls of the batch's first caller."""
    await board.host(nested_flow, Nester, give)
    assert await board.run(nested_flow) == [1, 2, 3, 4, 5, 6]
