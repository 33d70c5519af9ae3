"""``callboard run`` and ``result``: submit a request, follow it, and print what it gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common, Seconds
from callboard.cli.exits import Exit, UsageError
from callboard.cli.outcome import Outcome, tell
from callboard.cli.output import Output, err, out
from callboard.infra.errors import ResultTimeout
from callboard.infra.messages.run import Done

if TYPE_CHECKING:
    from callboard.actors.client import Client
    from callboard.cli.arguments import Parameters
    from callboard.infra.messages.budget import Budget
    from callboard.infra.messages.registry import Pulse

_CANCELS_WITHIN = 3.0


def run(
    workflow: str,
    /,
    *argument: Annotated[str, Parameter(allow_leading_hyphen=True)],
    arg: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    args: str | None = None,
    watch: Annotated[bool, Parameter(negative=())] = False,
    detach: Annotated[bool, Parameter(negative=())] = False,
    session: str | None = None,
    timeout: Seconds | None = None,
    deadline: Seconds | None = None,
    priority: int = 0,
    budget: str | None = None,
    key: str | None = None,
    run_id: str | None = None,
    local: str | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Run a workflow and print its result.

    Every other option is an argument of the workflow. Text is taken as it is where the workflow takes
    text, and as JSON where it takes something else. Lists take one value or several; a flag stands alone,
    or as --no-NAME.

        callboard run research --question "Compare AAPL and MSFT, 2004 to 2009" --watch
        callboard run add --a 1 --b 2 --json
        callboard run scan --tickers AAPL MSFT --dry-run --arg session=asia
        callboard run report --args '{"plan": {"tickers": ["AAPL"]}}'
        callboard run research --question "..." --local app.py
        id=$(callboard run research --question "..." --detach)

    Ctrl-C cancels the run; on a terminal it asks first. After --timeout the run goes on, and 'callboard
    show' finds it.

    Args:
        workflow: Its name; 'callboard actors' lists what there is.
        argument: Arguments of the workflow: --NAME VALUE.
        arg: One as NAME=VALUE, for a name that is also an option of this command.
        args: Arguments as one JSON object; an option of the same name goes before it.
        watch: Show the calls while they run.
        detach: Print the run's id and leave it to itself, as soon as its request is stored.
        session: Whose run it is: state of agents is kept per session.
        timeout: Seconds to wait for the result.
        deadline: Seconds after which the run and all its calls are given up.
        priority: Above 0 is urgent, below 0 can wait.
        budget: What it may spend on models, as in usd=0.5,tokens=20000,when_spent=ask.
        key: Whose budget it is charged to besides, see 'callboard budget --help'; and whose share it runs in,
            under the policy fair_share.
        run_id: An id of your own; a request with the same id again is the same run.
        local: Run it in this process, from this file or module, without a server.
    """
    common.log("error")
    for name, text in (("--session", session), ("--run-id", run_id), ("--key", key)):
        if text == "":
            raise UsageError(f"{name} is empty: give one, or leave it out")
    given, typed = _given(args), [*argument, *(f"--{one}" for one in arg)]
    if detach and (watch or timeout is not None or local is not None):
        raise UsageError("--detach waits for nothing: leave it out, or --watch, --timeout and --local")
    if local is not None:
        if watch or session or run_id or deadline is not None or priority or budget or key:
            text = "--watch, --session, --run-id, --deadline, --priority, --budget and --key need a server"
            raise UsageError(f"{text}; leave out --local")
        from callboard.cli.local import run_local

        return tell(run_local(local, workflow, typed, given, timeout), common)
    options = {
        "run": run_id,
        "session": session,
        "deadline": deadline,
        "priority": priority,
        "budget": budget_of(budget),
        "key": key,
    }
    request = Request(workflow, typed, given, common)
    return asyncio.run(request.submit(options) if detach else request.run(options, timeout, watch=watch))


def result(
    run: str,
    /,
    *,
    watch: Annotated[bool, Parameter(negative=())] = False,
    timeout: Seconds | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Wait for the end of a run, and print its result.

    It may have ended long ago. Output and exit codes are those of 'callboard run'; Ctrl-C ends the waiting,
    and nothing else.

        id=$(callboard run research --question "..." --detach)
        callboard result $id --timeout 60

    Args:
        run: Its id; 'callboard runs' lists them.
        watch: Show the calls while they run.
        timeout: Seconds to wait for the result.
    """
    common.log("error")

    async def wait() -> int:
        from callboard.controller.look import living

        async with common.client() as client:
            summary = await client.status(run)
            if not summary.finished:
                _say_if_undriven(summary.workflow, await living(client.node), common.output)
            following = _Following(client, run, common, watch=watch)
            with _interrupts() as interrupted:
                done = await following.end(timeout, interrupted)
            if done is None:
                err(f"run {run} goes on")
                return Exit.INTERRUPTED
            return await following.tell(summary.workflow, done)

    return asyncio.run(wait())


def budget_of(text: str | None) -> Budget | None:
    """What ``--budget`` says.

    Raises:
        UsageError: it cannot be read.
    """
    if text is None:
        return None
    from callboard.infra.messages.budget import Budget

    given = dict(part.strip().partition("=")[::2] for part in text.split(","))
    unknown = given.keys() - set(Budget.__struct_fields__)
    try:
        if unknown:
            raise ValueError(f"there is no {', '.join(sorted(unknown))}")
        return msgspec.convert(given, Budget, strict=False)
    except ValueError as error:
        fields = ", ".join(Budget.__struct_fields__)
        raise UsageError(f"--budget {text}: {error}; it takes NAME=VALUE,... of {fields}") from error


def _given(args: str | None) -> dict[str, Any]:
    if args is None:
        return {}
    try:
        given = json.loads(args)
    except ValueError as error:
        raise UsageError(f"--args is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise UsageError('--args must be a JSON object, for example \'{"question": "..."}\'')
    return given


async def parameters_of(client: Client, workflow: str, output: Output) -> Parameters:
    """What a workflow takes, as its hosts have announced it; says so if there is none at the moment.

    Raises:
        UnknownActor: nobody has ever announced it.
    """
    from callboard.actors import registry
    from callboard.actors.app import unknown
    from callboard.cli.arguments import Parameters
    from callboard.controller.look import living

    actors, hosts = await asyncio.gather(registry.actors(client.node), living(client.node))
    workflows = {actor.name: actor for actor in actors if actor.kind == "workflow"}
    if workflow not in workflows:
        raise unknown("workflow", workflow, workflows, "on this server")
    _say_if_undriven(workflow, hosts, output)
    return Parameters(workflows[workflow])


def _say_if_undriven(workflow: str, hosts: Sequence[Pulse], output: Output) -> None:
    if not any(workflow in host.instances for host in hosts):
        output.hint(f"no host drives {workflow} at the moment; the run waits for one: callboard host APP")


class Request:
    """A request that a command submits and follows.

    Args:
        workflow: its name; typed, given: its arguments, as options and as JSON.
        common: options of the command.
    """

    def __init__(self, workflow: str, typed: Sequence[str], given: dict[str, Any], common: Common) -> None:
        self._workflow = workflow
        self._typed = typed
        self._given = given
        self._common = common

    async def run(self, options: dict[str, Any], timeout: float | None, *, watch: bool) -> int:
        """Submit with these options of the client, follow and tell; returns the exit code."""
        async with self._common.client() as client:
            submit = await self._prepared(client, options)
            with _interrupts() as interrupted:
                run = await submit()
                following = _Following(client, run, self._common, watch=watch)
                done = await following.end(timeout, interrupted)
                if done is None:
                    return await self._cancel(client, run, interrupted)
            return await following.tell(self._workflow, done)

    async def submit(self, options: dict[str, Any]) -> int:
        """Submit with these options of the client, and tell the run's id; returns the exit code."""
        async with self._common.client() as client:
            run = await (await self._prepared(client, options))()
        output = self._common.output
        output.answer({"run": run, "status": "accepted"}, lambda _: out(run))
        output.hint(f"it goes on by itself: see 'callboard show {run}', 'callboard result {run}'")
        return Exit.OK

    async def _prepared(self, client: Client, options: dict[str, Any]) -> Callable[[], Awaitable[str]]:
        """What submits it, once its arguments are known to fit."""
        parameters = await parameters_of(client, self._workflow, self._common.output)
        arguments = parameters.read(self._typed, self._given)
        return lambda: client.submit(self._workflow, arguments, as_json=True, **options)

    async def _cancel(self, client: Client, run: str, interrupted: asyncio.Event) -> int:
        if sys.stdin.isatty() and not self._common.json and not await _agreed(run, interrupted):
            err(f"run {run} goes on")
            return Exit.INTERRUPTED
        await client.cancel(run, "interrupted in the terminal")
        with contextlib.suppress(ResultTimeout):
            await client.done(run, _CANCELS_WITHIN)
        self._common.output.line({"run": run, "status": "cancelled"}, "")
        err(f"cancelled run {run}")
        return Exit.INTERRUPTED


class _Following:
    """A run that a command waits for, and tells the end of.

    Args:
        client: connected; run: its id.
        watch: show what happens meanwhile.
    """

    def __init__(self, client: Client, run: str, common: Common, *, watch: bool) -> None:
        self._client = client
        self._run = run
        self._common = common
        self._watch = watch

    async def end(self, timeout: float | None, interrupted: asyncio.Event) -> Done | None:
        """Wait for the end, showing what happens; None if the user interrupts."""
        waiting = asyncio.create_task(self._client.done(self._run, timeout))
        stopping = asyncio.create_task(interrupted.wait())
        watching = asyncio.create_task(self._show())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                return None
            if waiting.exception() is None:
                await watching
            return waiting.result()
        finally:
            for task in (waiting, stopping, watching):
                task.cancel()
            await asyncio.gather(waiting, stopping, watching, return_exceptions=True)

    async def _show(self) -> None:
        if self._watch:
            from callboard.cli.watch import watch

            await watch(self._client, self._run, self._common.output)

    async def tell(self, workflow: str, done: Done) -> int:
        """Print the result or the error; returns the exit code."""
        outcome = Outcome(self._run, workflow, done.status, error=done.error)
        if done.error is None:
            outcome.value = await self._client.result(self._run)
        return tell(outcome, self._common, as_line=self._watch)


@contextlib.contextmanager
def _interrupts() -> Iterator[asyncio.Event]:
    """Have Ctrl-C set an event: from before a run exists, so that none is left behind by it."""
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _agreed(run: str, interrupted: asyncio.Event) -> bool:
    """Ask whether to cancel a run; a second Ctrl-C means no."""
    interrupted.clear()
    loop = asyncio.get_running_loop()
    answer: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin, lambda: answer.put_nowait(sys.stdin.readline()))
    sys.stderr.write(f"\ncancel run {run}? [Y/n] ")
    sys.stderr.flush()
    typed, again = asyncio.create_task(answer.get()), asyncio.create_task(interrupted.wait())
    try:
        await asyncio.wait((typed, again), return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(sys.stdin)
        typed.cancel()
        again.cancel()
    return typed.done() and typed.result().lower() in {"\n", "y\n", "yes\n"}
