"""The same workflow code in this process and over NATS: one test body for both.

What holds here is what a workflow's author may rely on in a plain ``pytest``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import uuid as uuid_module
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tests.support import cpu_actors
from tests.support.board import Board
from tests.support.waiting import SOON, until

import callboard
from callboard import Terminal, agent, batchable, method, tool, workflow
from callboard.actors.declared import Workflow
from callboard.infra.errors import (
    CallCancelled,
    CallTimeout,
    DeadlineExceeded,
    DependencyFailed,
    InvalidArguments,
    InvalidResult,
    RunCancelled,
    RunFailed,
)


class Runner:
    """Runs workflows in this process."""

    async def serve(self, *things: Any) -> None:
        """Make these actors available."""

    async def run(self, flow: Workflow[Any, Any], **arguments: Any) -> Any:
        """Run a workflow to its end."""
        async with asyncio.timeout(SOON):
            if flow.method.is_async:
                return await flow(**arguments)
            return await asyncio.to_thread(flow.run_local, **arguments)


class NatsRunner(Runner):
    """Runs the same workflows over NATS."""

    def __init__(self, board: Board) -> None:
        self._board = board

    async def serve(self, *things: Any) -> None:
        """One host for all of it."""
        await self._board.host(*things)

    async def run(self, flow: Workflow[Any, Any], **arguments: Any) -> Any:
        """Submit, wait, and raise what the workflow raised."""
        client = await self._board.client()
        try:
            return await client.run(flow.name, arguments, timeout=SOON)
        except RunFailed as error:
            cause = error.__cause__ or error
            raise cause from cause.__cause__
        except RunCancelled as error:
            raise asyncio.CancelledError from error


@pytest.fixture(params=["local", "nats"])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Each of the two ways to run a workflow."""
    if request.param == "local":
        return Runner()
    return NatsRunner(request.getfixturevalue("board"))


class Point(msgspec.Struct):
    """A struct that travels."""

    x: int
    y: int = 0


@dataclasses.dataclass
class Box:
    """A dataclass that travels."""

    points: list[Point]
    label: str = ""


class Broke(Exception):
    """A user's error."""


RUNS: Counter[str] = Counter()
"""How often each handler ran in the test at hand."""


@pytest.fixture(autouse=True)
def fresh_counts() -> None:
    """Counts begin anew with each test."""
    RUNS.clear()


@tool
async def add(a: int, b: int = 1) -> int:
    """Add on the event loop."""
    RUNS["add"] += 1
    return a + b


@tool
def multiply(a: int, b: int) -> int:
    """Multiply in a thread."""
    return a * b


@tool
async def total(numbers: list[int], more: dict[str, int] | None = None) -> int:
    """Add up what stands in containers."""
    return sum(numbers) + sum((more or {}).values())


@tool
async def corner(box: Box) -> Point:
    """A struct out of a dataclass."""
    assert isinstance(box.points[0], Point)
    return Point(max(p.x for p in box.points), max(p.y for p in box.points))


@tool
async def fail(text: str) -> int:
    """Raise a user's error."""
    RUNS["fail"] += 1
    raise Broke(text)


@agent
class Clerk:
    """An agent that calls others."""

    def __init__(self) -> None:
        self.seen = 0

    @method
    async def double(self, number: int) -> int:
        """Call a tool."""
        return await add(number, number)

    @method
    def triple(self, number: int) -> int:
        """Call tools from a thread."""
        return add(number, add(number, number).arg).value()

    @method(retries=2, backoff=0.01)
    async def flaky(self, succeed_at: int) -> int:
        """Fail until an attempt."""
        RUNS["flaky"] += 1
        if RUNS["flaky"] < succeed_at:
            raise Broke(f"attempt {RUNS['flaky']}")
        return RUNS["flaky"]

    @method
    async def factorial(self, number: int) -> int:
        """Call itself."""
        return 1 if number <= 1 else number * await Clerk.factorial(number - 1)

    @batchable(max_wait=0.0)
    async def squares(self, numbers: list[int]) -> list[int]:
        """Take many at once; a negative number is its caller's own error."""
        return [Broke("negative") if n < 0 else n * n for n in numbers]  # type: ignore[misc]


# -- calls and their values -------------------------------------------------------------------


@workflow
async def values_flow(n: int) -> dict[str, Any]:
    """Awaited, gathered, passed on, nested; by place and by name."""
    first = add(n, b=2)
    second = multiply(first.arg, 10)
    many = await asyncio.gather(*(add(k) for k in range(5)))
    nested = total([1, first.arg, second.arg], more={"a": first.arg, "b": 5})
    return {
        "first": await first,
        "second": await second,
        "many": many,
        "nested": await nested,
        "double": await Clerk.double(second.arg),
        "triple": await Clerk.triple(2),
        "factorial": await Clerk.factorial(5),
    }


@workflow
def sync_values_flow(n: int) -> dict[str, Any]:
    """The same in plain code: values are waited for where they are touched."""
    first = add(n, b=2)
    second = multiply(first.arg, 10)
    many = [add(k) for k in range(5)]
    nested = total([1, first.arg, second.arg], more={"a": first.arg, "b": 5})
    return {
        "first": first,
        "second": second,
        "many": many,
        "nested": nested,
        "double": Clerk.double(second.arg),
        "triple": Clerk.triple(2),
        "factorial": Clerk.factorial(5),
    }


@pytest.mark.parametrize("flow", [values_flow, sync_values_flow], ids=["async", "sync"])
async def test_values(runner: Runner, flow: Workflow[Any, Any]) -> None:
    """Calls by await, gather, dependencies nested in containers, agents that call tools, recursion."""
    await runner.serve(add, multiply, total, Clerk, values_flow, sync_values_flow)
    assert await runner.run(flow, n=3) == {
        "first": 5,
        "second": 50,
        "many": [1, 2, 3, 4, 5],
        "nested": 66,
        "double": 100,
        "triple": 6,
        "factorial": 120,
    }


@workflow
async def structs_flow() -> dict[str, Any]:
    """Structs and dataclasses there and back, with a future inside of one."""
    point = await corner(Box([Point(1, 5), Point(3)], "b"))
    assert isinstance(point, Point)
    again = await corner(Box([point, Point(add(9).arg)]))
    return {"x": again.x, "y": again.y}


async def test_structs(runner: Runner) -> None:
    """What was a struct is one on the other side; a future may stand in a field."""
    await runner.serve(add, corner, structs_flow)
    assert await runner.run(structs_flow) == {"x": 10, "y": 5}


@workflow
async def returning_flow() -> Any:
    """Give futures back instead of values."""
    return {"one": add(1), "two": [add(2), multiply(add(2).arg, 2)]}


@workflow
def sync_returning_flow() -> Any:
    """Give values back that nobody has touched."""
    return {"one": add(1), "two": [add(2), multiply(add(2).arg, 2)]}


@pytest.mark.parametrize("flow", [returning_flow, sync_returning_flow], ids=["async", "sync"])
async def test_unresolved_futures_in_a_workflows_result(runner: Runner, flow: Workflow[Any, Any]) -> None:
    """They are waited for: the result holds their values."""
    await runner.serve(add, multiply, flow)
    assert await runner.run(flow) == {"one": 2, "two": [3, 6]}


@tool
async def forwards(number: int) -> Any:
    """Give back what others have yet to compute."""
    return {"sum": add(number), "all": [multiply(number, 2)]}


@workflow
async def forwarding_flow() -> Any:
    """Call what returns futures."""
    return await forwards(4)


async def test_unresolved_futures_in_a_handlers_result(runner: Runner) -> None:
    """A handler may return futures, anywhere in its result: its caller gets values."""
    await runner.serve(add, multiply, forwards, forwarding_flow)
    assert await runner.run(forwarding_flow) == {"sum": 5, "all": [8]}


@tool
async def spoil(numbers: list[int]) -> int:
    """Change the argument."""
    numbers.append(99)
    return len(numbers)


@workflow
async def isolation_flow() -> list[int]:
    """See whether a handler can change what its caller holds."""
    numbers = [1]
    await spoil(numbers)
    numbers.append(await spoil(numbers))
    return numbers


async def test_a_handler_cannot_change_its_callers_values(runner: Runner) -> None:
    """Arguments are copies, in one process, too."""
    await runner.serve(spoil, isolation_flow)
    assert await runner.run(isolation_flow) == [1, 2]


@workflow
async def shared_flow() -> int:
    """Give one future to several calls."""
    first = add(1)
    return sum(await asyncio.gather(add(first.arg), add(first.arg), total([first.arg, first.arg])))


async def test_a_future_passed_to_many_is_called_once(runner: Runner) -> None:
    """Its value goes to all of them."""
    await runner.serve(add, total, shared_flow)
    assert await runner.run(shared_flow) == 10
    assert RUNS["add"] == 3


@workflow
async def inner_flow(n: int) -> int:
    """Called by another workflow."""
    return await add(n)


@workflow
async def outer_flow() -> int:
    """Call another workflow: it runs here, as the function that it is."""
    return await inner_flow(await inner_flow(1))


async def test_a_workflow_may_call_another(runner: Runner) -> None:
    """Within the same run."""
    await runner.serve(add, inner_flow, outer_flow)
    assert await runner.run(outer_flow) == 3


@workflow
async def batch_flow() -> list[Any]:
    """Several callers of a batchable method."""
    return await asyncio.gather(*(Clerk.squares(n) for n in (2, -1, 3)), return_exceptions=True)


@workflow
async def batch_errors_flow() -> list[str]:
    """What each of them got."""
    found = await batch_flow()
    return [f"{type(one).__name__}: {one}" if isinstance(one, Exception) else str(one) for one in found]


async def test_a_batchable_method(runner: Runner) -> None:
    """Each caller passes one item and gets its own result or its own error."""
    await runner.serve(Clerk, batch_errors_flow)
    assert await runner.run(batch_errors_flow) == ["4", "Broke: negative", "9"]


# -- failures ---------------------------------------------------------------------------------


@workflow
async def failing_flow() -> int:
    """Let an error through."""
    return await fail("no money")


@workflow
def sync_failing_flow() -> int:
    """Let an error through that comes up when the value is touched."""
    return fail("no money") + 1  # type: ignore[operator]


@pytest.mark.parametrize("flow", [failing_flow, sync_failing_flow], ids=["async", "sync"])
async def test_a_users_error(runner: Runner, flow: Workflow[Any, Any]) -> None:
    """It comes back as itself and tells its path."""
    await runner.serve(fail, failing_flow, sync_failing_flow)
    with pytest.raises(Broke) as caught:
        await runner.run(flow)
    assert caught.value.args == ("no money",)
    assert f"workflow path: {flow.name} > fail.call" in "\n".join(caught.value.__notes__)
    assert RUNS["fail"] == 1


@workflow
async def catching_flow() -> str:
    """Handle an error and go on."""
    try:
        await fail("a")
    except Broke as error:
        return f"caught {error}, then {await add(1)}"
    return "nothing caught"


async def test_an_error_may_be_caught(runner: Runner) -> None:
    """A workflow handles errors as any code does."""
    await runner.serve(fail, add, catching_flow)
    assert await runner.run(catching_flow) == "caught a, then 2"


@workflow
async def chain_flow() -> int:
    """Depend on what fails."""
    return await add(add(fail("deep").arg).arg)


@workflow
async def staged() -> list[int]:
    """Calls one after the other, two of them joined only by the await between them."""
    first = add(1)
    second = add(first.arg)
    await second
    third = add(1)
    await third
    return [one.metadata.stage for one in (first, second, third)]


async def test_stages(runner: Runner) -> None:
    """How deep a call is in its run: after what it depends on, or else after all that was there."""
    await runner.serve(add, staged)
    assert await runner.run(staged) == [1, 2, 3]


async def test_a_failed_dependency(runner: Runner) -> None:
    """Dependents are never called, and their error tells the chain down to the cause."""
    await runner.serve(fail, add, chain_flow)
    with pytest.raises(DependencyFailed, match=r"add\.call was not called: .*add\.call failed") as caught:
        await runner.run(chain_flow)
    middle = caught.value.__cause__
    assert isinstance(middle, DependencyFailed)
    assert isinstance(middle.__cause__, Broke)
    assert middle.__cause__.args == ("deep",)
    assert RUNS["add"] == 0


@workflow
async def cancelling_flow() -> list[str]:
    """Cancel a call, and see what becomes of one that depends on it."""
    slow = wait_for_ever()
    dependent = add(slow.arg)
    other = wait_for_ever()
    assert slow.cancel()
    assert not slow.cancel()
    found = await asyncio.gather(slow, dependent, return_exceptions=True)
    dependent_of_other = add(other.arg)
    dependent_of_other.cancel()
    await asyncio.sleep(0.01)
    states = [other.done()]
    other.cancel()
    return [type(one).__name__ for one in found] + [str(state) for state in states]


@tool
async def wait_for_ever() -> int:
    """Never end by itself."""
    RUNS["begun"] += 1
    try:
        await asyncio.Event().wait()
    finally:
        RUNS["ended"] += 1
    return 0


async def test_cancelling_a_call(runner: Runner) -> None:
    """A dependent of a cancelled call fails; cancelling a dependent leaves its dependency alone."""
    await runner.serve(add, wait_for_ever, cancelling_flow)
    assert await runner.run(cancelling_flow) == ["CancelledError", "DependencyFailed", "False"]


@tool
async def cancels_its_own() -> int:
    """Wait for a call that it has cancelled itself."""
    RUNS["cancels"] += 1
    call = wait_for_ever()
    call.cancel()
    return await call


@workflow
async def cancelled_inside_flow() -> str:
    """Call it."""
    try:
        await cancels_its_own()
    except Exception as error:  # noqa: BLE001 - to tell what it is
        return type(error).__name__
    return "nothing raised"


async def test_a_handler_that_ends_by_a_cancellation_of_its_own(runner: Runner) -> None:
    """Nobody cancelled the call itself, so it has failed: once, with a typed error."""
    await runner.serve(wait_for_ever, cancels_its_own, cancelled_inside_flow)
    assert await runner.run(cancelled_inside_flow) == CallCancelled.__name__
    assert RUNS["cancels"] == 1


@tool
def exhausted() -> int:
    """Raise what a Python future refuses to carry."""
    return next(iter([]))


@tool
async def leaves() -> int:
    """Raise what would end the process."""
    sys.exit(3)


@tool
def leaves_from_thread() -> int:
    """Raise it in a thread."""
    sys.exit(3)


class PastException(BaseException):
    """Passes ``except Exception``, as those of test frameworks do."""


@tool
async def goes_past() -> int:
    """Raise it."""
    raise PastException


@tool
def goes_past_from_thread() -> int:
    """Raise it in a thread."""
    raise PastException


@workflow
async def awkward_flow() -> list[str]:
    """What comes of each."""
    calls: list[Any] = [
        exhausted(),
        leaves(),
        leaves_from_thread(),
        goes_past(),
        goes_past_from_thread(),
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    return [
        f"{type(one).__name__} {any(x in str(one).lower() for x in ('exit', 'iter', 'past'))}"
        for one in found
    ]


async def test_exceptions_that_python_treats_specially(runner: Runner) -> None:
    """``StopIteration`` neither hangs its caller, nor does ``SystemExit`` end the host: they are failures."""
    await runner.serve(exhausted, leaves, leaves_from_thread, goes_past, goes_past_from_thread, awkward_flow)
    found = await runner.run(awkward_flow)
    assert len(found) == 5
    assert all(one.endswith("True") for one in found), found


@workflow
def exhausted_flow() -> int:
    """A plain workflow that raises ``StopIteration`` itself."""
    return next(iter([]))


@workflow
async def leaving_flow() -> int:
    """A workflow that would end its process."""
    sys.exit(3)


@workflow
async def past_flow() -> int:
    """A workflow that raises what passes ``except Exception``."""
    raise PastException


async def test_a_workflow_that_raises_what_python_treats_specially(board: Board) -> None:
    """The run fails; its host goes on."""
    host = await board.host(exhausted_flow, leaving_flow, past_flow, add, inner_flow)
    runner = NatsRunner(board)
    for flow in (exhausted_flow, leaving_flow, past_flow):
        with pytest.raises(Exception, match=r"(?i)stopiteration|systemexit|pastexception"):
            await runner.run(flow)
    assert await runner.run(inner_flow, n=1) == 2
    assert not host.draining


@tool
async def lies() -> int:
    """Return something else than promised."""
    return "three"  # type: ignore[return-value]


@tool
async def returns_junk() -> Any:
    """Return what cannot travel."""
    return object()


@workflow
async def wrong_results_flow() -> list[str]:
    """What their callers get."""
    found = await asyncio.gather(lies(), returns_junk(), return_exceptions=True)
    return [type(one).__name__ for one in found]


async def test_wrong_results(runner: Runner) -> None:
    """What the annotation forbids, and what cannot travel, are typed errors."""
    await runner.serve(lies, returns_junk, wrong_results_flow)
    assert await runner.run(wrong_results_flow) == [InvalidResult.__name__] * 2


@workflow
async def wrong_arguments_flow() -> int:
    """Pass a value that turns out to be of the wrong type."""
    return await total([text().arg])  # type: ignore[list-item]


@tool
async def text() -> str:
    """Give a text."""
    return "three"


async def test_a_dependency_of_the_wrong_type(runner: Runner) -> None:
    """It comes to light when the value is there, as the same typed error."""
    await runner.serve(total, text, wrong_arguments_flow)
    with pytest.raises(InvalidArguments, match=r"total\.call.*Expected `int`, got `str`"):
        await runner.run(wrong_arguments_flow)


# -- retries and time -------------------------------------------------------------------------


@workflow
async def retried_flow(succeed_at: int) -> list[int]:
    """The value, and at which attempt it came."""
    call = Clerk.flaky(succeed_at)
    return [await call, call.metadata.attempt]


async def test_retries(runner: Runner) -> None:
    """An error is tried again as often as declared; the last one comes out."""
    await runner.serve(Clerk, retried_flow)
    assert await runner.run(retried_flow, succeed_at=3) == [3, 3]
    RUNS.clear()
    with pytest.raises(Broke, match="attempt 3"):
        await runner.run(retried_flow, succeed_at=9)
    assert RUNS["flaky"] == 3


@tool(retries=5, backoff=0.01)
async def hopeless() -> int:
    """Fail for good."""
    RUNS["hopeless"] += 1
    raise Terminal("never")


@workflow
async def hopeless_flow() -> int:
    """Call it."""
    return await hopeless()


async def test_a_terminal_error_is_not_tried_again(runner: Runner) -> None:
    """Whatever the number of retries."""
    await runner.serve(hopeless, hopeless_flow)
    with pytest.raises(Terminal, match="never"):
        await runner.run(hopeless_flow)
    assert RUNS["hopeless"] == 1


@tool(timeout=0.05)
async def slow() -> int:
    """Take longer than permitted."""
    await asyncio.Event().wait()
    return 0


@tool(timeout=0.05)
async def raises_timeout() -> int:
    """Raise a time-out of its own."""
    raise TimeoutError("mine")


@workflow
async def slow_flow() -> list[str]:
    """What comes of both."""
    found = await asyncio.gather(slow(), raises_timeout(), return_exceptions=True)
    return [f"{type(one).__name__}: {one}" for one in found]


async def test_timeouts(runner: Runner) -> None:
    """A handler that takes too long is stopped; a handler's own ``TimeoutError`` is just an error."""
    await runner.serve(slow, raises_timeout, slow_flow)
    stopped, own = await runner.run(slow_flow)
    assert stopped.startswith(f"{CallTimeout.__name__}: slow.call took longer than its timeout of 0.05 s")
    assert own == "TimeoutError: mine"


@tool
async def grouped() -> int:
    """Fail in two ways at once."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_raised(Broke("one")))
        group.create_task(_raised(KeyError("two")))
    return 1


async def _raised(error: Exception) -> None:
    raise error


@workflow
async def grouped_flow() -> list[str]:
    """Tell them apart."""
    found: list[str] = []
    try:
        await grouped()
    except* Broke as errors:
        found += [repr(one) for one in errors.exceptions]
    except* KeyError as errors:
        found += [repr(one) for one in errors.exceptions]
    return found


async def test_a_group_of_errors(runner: Runner) -> None:
    """``except*`` in a workflow finds what a handler's task group has raised."""
    await runner.serve(grouped, grouped_flow)
    assert await runner.run(grouped_flow) == ["Broke('one')", "KeyError('two')"]


@tool(retries=2, backoff=0.001)
async def names_itself() -> int:
    """Fail until there are three names."""
    NAMES.append(str(callboard.uuid()))
    if len(NAMES) < 3:
        raise Broke("not yet")
    return len(set(NAMES))


NAMES: list[str] = []


@agent(stateful=True)
class Stubborn:
    """Calls itself, again and again."""

    def __init__(self) -> None:
        self.tries = 0

    @method(retries=2, backoff=0.001)
    async def try_it(self) -> int:
        """Fail twice, each time after a call of its own."""
        self.tries += 1
        count = await Stubborn.count()
        if count < 3:
            raise Broke("not yet")
        return count

    @method
    async def count(self) -> int:
        """How often it has tried."""
        return self.tries


@workflow
async def again_flow() -> list[int]:
    """Both."""
    NAMES.clear()
    return [await names_itself(), await Stubborn.try_it()]


async def test_each_attempt_has_names_of_its_own(runner: Runner) -> None:
    """And may enter the session that it holds, as the first one may."""
    await runner.serve(names_itself, Stubborn, again_flow)
    assert await runner.run(again_flow) == [3, 3]


@workflow
async def misplaced_flow() -> list[str]:
    """A handler that computes makes a call, another one a name."""
    found = await asyncio.gather(cpu_actors.calls(1), return_exceptions=True)
    names = {await cpu_actors.names(), await cpu_actors.names()}
    return [f"{type(one).__name__}: {one}" for one in found] + [str(len(names))]


async def test_a_handler_in_a_process_makes_no_calls(runner: Runner) -> None:
    """It is told so; nothing runs unseen in its process."""
    await runner.serve(cpu_actors.calls, cpu_actors.add, cpu_actors.names, misplaced_flow)
    refused, names = await runner.run(misplaced_flow)
    assert refused.startswith("CallMisplaced: calls.call is a cpu handler, whose process has no connection")
    assert names == "2"


@workflow(timeout=0.1)
async def endless_flow() -> None:
    """Wait for what never comes."""
    await wait_for_ever()


@workflow(timeout=0.1)
def endless_plain_flow() -> int:
    """The same in plain code."""
    return wait_for_ever() + 1  # type: ignore[operator]


@pytest.mark.parametrize("flow", [endless_flow, endless_plain_flow])
async def test_the_timeout_of_a_workflow(runner: Runner, flow: Workflow[Any, Any]) -> None:
    """It ends the run and its calls."""
    await runner.serve(wait_for_ever, flow)
    with pytest.raises(DeadlineExceeded):
        await runner.run(flow)
    await until(lambda: RUNS["ended"] == RUNS["begun"])


@tool
async def leaves_open() -> int:
    """Make a call and end, when both calls that are left open have begun."""
    _ = wait_for_ever()
    await until(lambda: RUNS["begun"] == 2)
    return 1


@workflow
async def left_open_flow() -> int:
    """The same, around it."""
    _ = wait_for_ever()
    return await leaves_open()


async def test_calls_left_open_end_with_their_maker(runner: Runner) -> None:
    """Whether a workflow or a handler has made them."""
    await runner.serve(wait_for_ever, leaves_open, left_open_flow)
    assert await runner.run(left_open_flow) == 1
    await until(lambda: RUNS["ended"] == RUNS["begun"] == 2)


@agent(stateful=True)
class Till:
    """Counts in itself, and looks away meanwhile."""

    def __init__(self) -> None:
        self.count = 0
        self.notes: list[str] = []

    @method
    async def add(self, note: str) -> int:
        """One more."""
        count = self.count
        await asyncio.sleep(0.002)
        self.count = count + 1
        self.notes.append(note)
        return self.count

    @method
    async def twice(self, note: str) -> list[int]:
        """Through the stub, while it holds the session."""
        return list(await asyncio.gather(Till.add(f"{note}1"), Till.add(f"{note}2")))

    @method
    async def all(self) -> list[str]:
        """What was noted."""
        return self.notes


@workflow
async def till_flow() -> list[Any]:
    """Many calls of one session at once; one of them is cancelled while it waits."""
    first, second, lost, third = Till.add("a"), Till.twice("b"), Till.add("lost"), Till.add("c")
    lost.cancel()
    return [await first, await second, await third, await Till.all()]


async def test_a_stateful_agent_takes_a_sessions_calls_one_by_one(runner: Runner) -> None:
    """In order; those that the holder makes and waits for come in between."""
    await runner.serve(Till, till_flow)
    assert await runner.run(till_flow) == [1, [2, 3], 4, ["a", "b1", "b2", "c"]]


@workflow
async def replayable_flow() -> list[Any]:
    """Time, random numbers and UUIDs."""
    return [callboard.now(), callboard.random().random(), callboard.uuid(), callboard.uuid()]


async def test_time_random_numbers_and_uuids(runner: Runner) -> None:
    """They are what they look like, and two runs do not get the same."""
    await runner.serve(replayable_flow)
    first, second = await runner.run(replayable_flow), await runner.run(replayable_flow)
    for at, number, one, other in (first, second):
        when = at if isinstance(at, datetime) else datetime.fromisoformat(at)
        assert abs((datetime.now(UTC) - when).total_seconds()) < 60
        assert 0 <= number < 1
        assert uuid_module.UUID(str(one)) != uuid_module.UUID(str(other))
    assert first[1] != second[1]
    assert first[2] != second[2]
