"""``callboard load``: submit many requests when they are due, and say how long they took."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, UsageError
from callboard.cli.output import Output, table
from callboard.cli.run import parameters_of

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.cli.arguments import Parameters
    from callboard.controller.arrivals import Arrival
    from callboard.controller.load import Latency, Load, LoadFigures

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LATENCIES = ("mean", "p50", "p95", "p99", "max")
_LOOKS = 1.0
_SEEDS = 2**32


class _Options(msgspec.Struct, frozen=True):
    rate: float | None
    seconds: float | None
    trace: Path | None
    save: Path | None
    sessions: int
    vary: Sequence[str]
    skew: str
    shift: str
    seed: int
    wait: float


class _Loaded(msgspec.Struct, kw_only=True):
    """The answer with ``--json``."""

    workflow: str
    seed: int | None
    interrupted: bool
    figures: LoadFigures


def load(
    workflow: str,
    /,
    *,
    rate: float | None = None,
    seconds: Annotated[str | None, Parameter(name="--for")] = None,
    arg: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    sessions: int = 0,
    vary: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    skew: str = "even",
    shift: str = "0",
    seed: int | None = None,
    trace: Path | None = None,
    save: Path | None = None,
    wait: str = "30s",
    common: Common = DEFAULTS,
) -> int:
    """Submit many requests, each when it is due, and say how long they took.

    Requests come as from many users who know nothing of each other (a Poisson process), or as a trace says.
    They are submitted however slow the answers are, and a latency counts from when its request was due. The
    same seed gives the same requests at the same times.

        callboard load research --rate 50 --for 30s --arg question="Compare AAPL and MSFT"
        callboard load chat --rate 20 --for 1m --sessions 100 --skew zipf:1.1 --shift 10s --seed 7
        callboard load scan --rate 5 --for 20s --vary ticker=AAPL,MSFT --skew hot:0.9 --save monday.jsonl
        callboard load scan --trace monday.jsonl --json

    Ctrl-C submits no more and waits for what is under way; a second one waits no more, and the runs go on.

    Args:
        workflow: Its name; 'callboard actors' lists what there is.
        rate: Requests a second, on average.
        seconds: How long requests are submitted: 30s, 500ms, 2m.
        arg: An argument of every request: NAME=VALUE.
        sessions: So many sessions share the requests; each request is a session of its own by default.
        vary: An argument that is drawn for each request: NAME=VALUE,VALUE,...
        skew: How uneven sessions and values are: even; zipf:S, the n-th is drawn 1/n^S as often; hot:P, the
            first has the share P.
        shift: How long it takes until the next session or value is the most frequent one; 0 for never.
        seed: Of what is random; one is chosen and told by default.
        trace: JSON lines {"at": SECONDS, "session": NAME, "arguments": {...}} to play instead.
        save: Where to write such a trace.
        wait: How long to wait for what is under way when all is submitted.
    """
    options = _Options(
        rate,
        None if seconds is None else duration("--for", seconds),
        trace,
        save,
        sessions,
        vary,
        skew,
        shift,
        random.randrange(_SEEDS) if seed is None else seed,
        duration("--wait", wait),
    )
    if trace is None and (rate is None or seconds is None):
        raise UsageError("say how many and how long, --rate 50 --for 30s, or what to play: --trace FILE")
    drawn = vary or sessions
    if trace is not None and (rate is not None or drawn or seed is not None or skew != "even"):
        raise UsageError(
            "a trace says when, in which session and with what; leave out --rate, --vary, --sessions, --skew "
            "and --seed"
        )
    if skew != "even" and not drawn:
        raise UsageError("--skew is of sessions and values: add --sessions 100, or --vary NAME=VALUE,VALUE")
    return asyncio.run(_load(workflow, [f"--{one}" for one in arg], options, common))


def duration(option: str, text: str) -> float:
    """Seconds from ``30s``, ``500ms``, ``2m`` or ``30``.

    Raises:
        UsageError: it is no such text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", text.strip())
    if found is None:
        raise UsageError(f"{option} is {text!r}, which is no time: 30s, 500ms, 2m")
    return float(found[1]) * _UNITS[found[2]]


async def _load(workflow: str, typed: list[str], options: _Options, common: Common) -> int:
    from callboard.controller.arrivals import write_trace
    from callboard.controller.load import Load

    async with common.client() as client:
        parameters = await parameters_of(client, workflow, common.output)
        plan, arguments = _plan(parameters, typed, options)
        if options.save is not None:
            write_trace(options.save, plan)
        running = Load(client, workflow, plan, arguments)
        interrupted = await _run(running, len(plan), options, common.output)
        figures = running.figures()
    seed = None if options.trace else options.seed
    loaded = _Loaded(workflow=workflow, seed=seed, interrupted=interrupted, figures=figures)
    common.output.answer(loaded, lambda screen: _show(loaded, screen))
    if interrupted:
        return Exit.INTERRUPTED
    return Exit.OK if figures.done == figures.planned else Exit.FAILED


def _plan(
    parameters: Parameters, typed: list[str], options: _Options
) -> tuple[list[Arrival], dict[str, Any]]:
    """What to submit when, and the arguments of all; held against what the workflow takes."""
    from callboard.controller.arrivals import Skew, poisson, read_trace

    if options.trace is not None:
        plan = read_trace(options.trace, options.seconds)
        for arrival in plan:
            arrival.arguments = parameters.read(typed, arrival.arguments)
        return plan, {}
    assert options.rate is not None
    assert options.seconds is not None
    choices = dict(map(_choices, options.vary))
    first = {name: f"--{name}={texts[0]}" for name, texts in choices.items()}
    arguments = parameters.read([*typed, *first.values()], {})
    vary: dict[str, list[Any]] = {}
    for name, texts in choices.items():
        others = [text for other, text in first.items() if other != name]
        read = [parameters.read([*typed, *others, f"--{name}={text}"], {}) for text in texts]
        (key,) = (key for key in read[0] if key in {name, name.replace("-", "_")})
        vary[key] = [one[key] for one in read]
    skew = Skew(options.skew, duration("--shift", options.shift))
    plan = poisson(
        options.rate, options.seconds, options.seed, sessions=options.sessions, vary=vary, skew=skew
    )
    return plan, arguments


def _choices(typed: str) -> tuple[str, list[str]]:
    name, given, texts = typed.partition("=")
    if not given or not all(texts.split(",")):
        raise UsageError(f"--vary is NAME=VALUE,VALUE,..., not {typed!r}")
    return name, texts.split(",")


async def _run(running: Load, planned: int, options: _Options, output: Output) -> bool:
    """Submit and wait, showing how far it is; whether somebody has interrupted it."""
    with _interrupts(running, output) as interrupted, output.progress() as tell:
        looking = asyncio.create_task(_look(running, planned, tell))
        try:
            await running.submit()
            second = asyncio.create_task(interrupted[1].wait())
            settled = asyncio.create_task(running.settle(options.wait))
            await asyncio.wait((second, settled), return_when=asyncio.FIRST_COMPLETED)
            for task in (second, settled):
                task.cancel()
            await asyncio.gather(second, settled, return_exceptions=True)
        finally:
            looking.cancel()
            await running.abandon()
        return interrupted[0].is_set()


@contextlib.contextmanager
def _interrupts(running: Load, output: Output) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Have the first Ctrl-C end the submitting, and the second one the waiting."""
    first, second = asyncio.Event(), asyncio.Event()

    def interrupt() -> None:
        (second if first.is_set() else first).set()
        running.stop()
        if not second.is_set():
            output.hint(f"submitting no more; {running.under_way} are under way, Ctrl-C leaves them")

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield first, second
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _look(running: Load, planned: int, tell: Any) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_LOOKS)
        failed = running.failed + running.refused
        tell(
            f"{time.monotonic() - began:.0f} s: {running.submitted} of {planned} submitted, "
            f"{running.done} done, {failed} failed, {running.under_way} under way"
        )


def _show(loaded: _Loaded, screen: Console) -> None:
    figures = loaded.figures
    counts = table(("submitted", "done", "failed", "open", "per s", "late"), numbers=("submitted", "done"))
    counts.add_row(
        str(figures.submitted),
        str(figures.done),
        str(figures.failed + figures.refused),
        str(figures.open),
        f"{figures.rate:.1f}",
        str(figures.late),
    )
    screen.print(counts)
    shown = table(("latency", *_LATENCIES), numbers=_LATENCIES)
    shown.add_row("from when due", *_cells(figures.latency))
    shown.add_row("from submission", *_cells(figures.from_submission))
    screen.print(shown)
    if figures.late:
        screen.print(f"{figures.late} were submitted late, by {figures.latest:.3f} s at most")
    for code, count in figures.errors.items():
        screen.print(f"[red]{count} {code}[/]")
    if loaded.seed is not None:
        screen.print(f"seed {loaded.seed}", style="dim", highlight=False)


def _cells(latency: Latency) -> list[str]:
    from callboard.infra.durations import seconds

    return [seconds(getattr(latency, name)) for name in _LATENCIES]
