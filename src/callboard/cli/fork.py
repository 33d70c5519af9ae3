"""``callboard fork``: submit a run that begins with the first steps of another one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from callboard.cli.common import DEFAULTS, Common, Seconds
from callboard.cli.exits import UsageError
from callboard.cli.run import Request, budget_of, parameters_of

if TYPE_CHECKING:
    from callboard.actors.client import Client

Steps = Annotated[int, Parameter(validator=Number(gte=0))]


def fork(
    run: str,
    /,
    *,
    at: Steps,
    arg: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    effects: Annotated[bool, Parameter(negative=())] = False,
    watch: Annotated[bool, Parameter(negative=())] = False,
    session: str | None = None,
    timeout: Seconds | None = None,
    deadline: Seconds | None = None,
    priority: int = 0,
    budget: str | None = None,
    key: str | None = None,
    run_id: str | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Run a workflow again from a step of a run, and print its result.

    The new run has the first outcomes of the old one as its own: those calls are not made again and cost
    nothing. From there it goes on for real, with the code, models and prompts that hosts have now. The old
    run stays as it is, and may go on.

        callboard replay 01JD0000000000000000000000 app.py
        callboard fork 01JD0000000000000000000000 --at 7 --watch
        callboard fork 01JD0000000000000000000000 --at 0 --arg question="Compare IBM and MSFT"

    What agents keep for the session is not rolled back: they have what they have now. If the old run was a
    session by itself, the new one is, too, and its agents begin with nothing; --session goes on with another.
    If the code makes another call before that step than the old run did, the new run fails and says so.

    Args:
        run: Its id; 'callboard runs' lists them.
        at: How many steps it begins with, as 'callboard replay' numbers them; 0 for none.
        arg: An argument that is to be another one, as NAME=VALUE; may be given again.
        effects: Let effects happen again that the old run has begun after that step.
        watch: Show the calls while they run.
        session: Whose run it is.
        timeout: Seconds to wait for the result.
        deadline: Seconds after which the run and all its calls are given up.
        priority: Above 0 is urgent, below 0 can wait.
        budget: What it may spend on models, as in usd=0.5,tokens=20000,when_spent=ask.
        key: Whose budget it is charged to besides; see 'callboard budget --help'.
        run_id: An id of your own for the new run.
    """
    common.log("error")
    for name, text in (("--session", session), ("--run-id", run_id), ("--key", key)):
        if text == "":
            raise UsageError(f"{name} is empty: give one, or leave it out")
    options = {
        "effects": effects,
        "run_id": run_id,
        "session": session,
        "deadline": deadline,
        "priority": priority,
        "budget": budget_of(budget),
        "key": key,
    }
    request = _Fork(run, at, [f"--{one}" for one in arg], common)
    return asyncio.run(request.run(options, timeout, watch=watch))


class _Fork(Request):
    """The request of a fork."""

    def __init__(self, run: str, at: int, typed: Sequence[str], common: Common) -> None:
        super().__init__("", typed, {}, common)
        self._old = run
        self._at = at

    async def _prepared(self, client: Client, options: dict[str, Any]) -> Callable[[], Awaitable[str]]:
        from callboard.actors.fork import Fork
        from callboard.actors.record import read

        record = await read(client, self._old)
        self._workflow = record.workflow
        fork = Fork(client.node, record, self._at)
        parameters = await parameters_of(client, record.workflow, self._common.output)
        changed: dict[str, Any] = {}
        if self._typed:
            given = msgspec.json.decode(msgspec.json.encode(await fork.arguments()))
            changed = {"arguments": parameters.read(self._typed, given), "as_json": True}
        if fork.stateful and record.session == record.run and not options["session"]:
            self._common.output.hint(
                f"{', '.join(fork.stateful)} worked on the state of session {record.session}; the new run is "
                f"a session of its own, without any: --session {record.session} goes on with it as it is now"
            )

        async def submit() -> str:
            own = await client.fork(self._old, self._at, **changed, **options)
            steps = "1 step" if self._at == 1 else f"{self._at} steps"
            self._common.output.hint(f"run {own} begins with {steps} of run {self._old}")
            return own

        return submit
