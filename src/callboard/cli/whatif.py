"""``callboard whatif``: play what was, on hosts that are not there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common, Seconds
from callboard.cli.exits import Exit, UsageError
from callboard.cli.output import table
from callboard.cli.telemetry import told
from callboard.infra import subjects

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.controller.whatif import Outcome, Scenario, WhatIf

_FIGURES = ("mean", "p50", "p95", "p99", "max", "makespan")
_NUMBERS = ("hosts", "runs", *_FIGURES, "used", "moved", "host s")
_ASIDE = {"makespan": "makespan in s", "used": "share of slots used", "migrations": "sessions moved"}
"""What a picture shows beside latencies."""
_MOST_HOSTS = 1000
_TENTHS = 100


class _Played(msgspec.Struct, kw_only=True):
    """The answer with ``--json``.

    Attributes:
        left_out: runs of which the recording has not all; missing: reports that were lost.
        hop: seconds from the server to a handler; startup: until a host that is started takes calls.
    """

    left_out: int
    missing: int
    hop: float
    startup: float
    outcomes: list[Outcome]


def whatif(
    *,
    policy: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    routing: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    hosts: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    slots: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    load: Annotated[Sequence[float], Parameter(negative=(), show_default=False)] = (),
    most_hosts: Annotated[int | None, Parameter(show_default=False)] = None,
    resource: Annotated[Sequence[str], Parameter(negative=(), show_default=False)] = (),
    startup: Seconds | None = None,
    from_: Annotated[str, Parameter(name="--from")] = subjects.TELEMETRY,
    last: str | None = None,
    plot: Path | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Play what hosts have told of in a simulation, under policies or on other hosts, and compare.

    The first line is what was measured. The others are simulated, one for each combination of what is to be
    tried; without any option, that which was. Nothing is sent to any host.

        callboard whatif --policy none --policy srtf --policy affinity,plas --policy own.py:Mine
        callboard whatif --hosts 1 --hosts 2 --hosts 2,Planner=8
        callboard whatif --routing late --routing spread --load 2 --last 10m
        callboard whatif --from monday.jsonl --slots Planner=4 --plot monday.png
        callboard whatif --policy none --policy scale --hosts 1 --most-hosts 6 --startup 20

    Args:
        policy: A policy, or several with commas of which the first goes before the others; none: without.
        routing: Where calls go: late (to whoever has a free slot first), spread (by a route over all hosts),
            sticky (each session to one host), kept (the same, as with managed state: its calls run one
            at a time, and it moves as a whole).
        hosts: How many hosts, at the beginning: N, each with what one host has now; ACTOR=N, of one actor
            alone; or both, with commas.
        slots: Slots of an actor in each host: ACTOR=N.
        load: How many times as often runs begin.
        most_hosts: Hosts at one time, where a policy starts some. By default there is no limit.
        resource: What all hosts have together, as gpu=2; may be given again. By default there is no limit.
        startup: Seconds until a host that a policy starts takes calls. By default what processes of the
            recorded hosts took, or 3.
        from_: What to play: TELEMETRY, the server's stream, another one that has kept its messages, or a file
            of 'callboard telemetry record'.
        last: Only what was told in this time: 10m, 30s.
        plot: A picture to write (.png, .svg, .pdf); needs callboard[plot].
    """
    scenarios = _scenarios(policy, routing, hosts, slots, load)
    scenarios = [_limited(one, most_hosts, resource, startup) for one in scenarios]
    played = _play(from_, last, scenarios, common)
    if startup is not None:
        played.startup = startup
    common.output.answer(played, lambda screen: _show(played, screen))
    if plot is not None:
        _draw(played, plot)
        common.output.hint(f"drawn in {plot}")
    return Exit.OK


def _scenarios(
    policies: Sequence[str],
    routings: Sequence[str],
    hosts: Sequence[str],
    slots: Sequence[str],
    loads: Sequence[float],
) -> list[Scenario]:
    from callboard.controller.whatif import ROUTINGS, Scenario

    for name in routings:
        if name not in ROUTINGS:
            raise UsageError(f"there is no routing {name!r}; there are: {', '.join(ROUTINGS)}")
    if any(not 0 < times <= _MOST_HOSTS for times in loads):
        raise UsageError("--load must be above 0")
    given = dict(_of_actor("--slots", typed) for typed in slots)
    sets = [_set(typed) for typed in policies] or [()]
    counts = [_hosts_of(typed) for typed in hosts] or [(0, {})]
    every = itertools.product(loads or (1.0,), counts, routings or ("late",), sets)
    return [
        Scenario(routing, count, instances, given, times, policies=names)
        for times, (count, instances), routing, names in every
    ]


def _limited(
    scenario: Scenario, most: int | None, resources: Sequence[str], startup: float | None
) -> Scenario:
    """With what holds of all scenarios where policies start and end hosts."""
    from callboard.infra.settings import amounts

    if most is not None and not 0 < most <= _MOST_HOSTS:
        raise UsageError(f"--most-hosts is between 1 and {_MOST_HOSTS}")
    limits = {"most": most or 0, "capacity": amounts(resources)}
    if startup is not None:
        limits["startup"] = startup
    return msgspec.structs.replace(scenario, **limits)


def _set(typed: str) -> tuple[str, ...]:
    """The policies of one scenario."""
    from callboard.controller import loading
    from callboard.controller.whatif import NO_POLICY

    if typed == NO_POLICY:
        return ()
    names = tuple(typed.split(","))
    for name in names:
        if ":" not in name and name not in loading.names():
            raise UsageError(
                f"there is no policy {name!r}: give FILE:CLASS, none, or one of {', '.join(loading.names())}"
            )
    return names


def _hosts_of(typed: str) -> tuple[int, dict[str, int]]:
    """How many hosts of each actor, 0: as recorded; and of which actors others."""
    count, instances = 0, dict[str, int]()
    for part in typed.split(","):
        actor, number = _of_actor("--hosts", part) if "=" in part else ("", _count(part))
        if not 0 < number <= _MOST_HOSTS:
            raise UsageError(
                f"--hosts is N, ACTOR=N, or both with commas, of 1 to {_MOST_HOSTS}; not {typed!r}"
            )
        if actor:
            instances[actor] = number
        else:
            count = number
    return count, instances


def _of_actor(option: str, typed: str) -> tuple[str, int]:
    actor, _, number = typed.rpartition("=")
    if not actor or not (count := _count(number)):
        raise UsageError(f"{option} is ACTOR=N, not {typed!r}")
    return actor, count


def _count(typed: str) -> int:
    """A whole number; 0 if it is none."""
    return int(typed) if typed.isdecimal() else 0


def _play(source: str, last: str | None, scenarios: Sequence[Scenario], common: Common) -> _Played:
    from callboard.controller.recording import read, read_file
    from callboard.controller.whatif import WhatIf

    file = Path(source)
    if source == subjects.TELEMETRY or (subjects.is_token(source) and not file.exists()):
        recorded = read(asyncio.run(told(common, last, source)), f"the stream {source}")
    elif last is not None:
        raise UsageError("--last is for streams; a file is played whole")
    else:
        recorded = read(read_file(file), source)
    playing = WhatIf(recorded)
    _known(playing, scenarios)
    outcomes = [playing.measured(), *map(playing.play, scenarios)]
    return _Played(
        left_out=playing.left_out,
        missing=recorded.missing,
        hop=playing.hop,
        startup=playing.startup,
        outcomes=outcomes,
    )


def _known(playing: WhatIf, scenarios: Sequence[Scenario]) -> None:
    actors = sorted({actor for actor, _ in playing.slots})
    for name in {name for one in scenarios for name in (*one.slots, *one.instances)}.difference(actors):
        raise UsageError(f"no call of {name!r} was told of; there are: {', '.join(actors)}")


def _show(played: _Played, screen: Console) -> None:
    from callboard.infra.durations import seconds

    shown = table(("", *_NUMBERS), numbers=_NUMBERS)
    for outcome in played.outcomes:
        figures = (seconds(getattr(outcome, name)) for name in _FIGURES)
        share = f"{outcome.used:.0%}", str(outcome.migrations)
        cost = f"{outcome.host_seconds:.{0 if outcome.host_seconds >= _TENTHS else 1}f}"
        shown.add_row(outcome.name, _hosts(outcome), str(outcome.runs), *figures, *share, cost)
    screen.print(shown)
    for outcome in played.outcomes:
        if outcome.left:
            why = "they were not accepted, or no host was there for their calls"
            screen.print(f"[yellow]{outcome.name}: {outcome.left} runs have never ended: {why}[/]")
    if any(outcome.started for outcome in played.outcomes[1:]):
        screen.print(f"a host that is started takes calls after {seconds(played.startup)}")
    if played.left_out:
        screen.print(f"{played.left_out} runs are left out: they had begun before what was told")
    if played.missing:
        screen.print(f"[yellow]{played.missing} reports were lost: the figures are of what is left[/]")


def _hosts(outcome: Outcome) -> str:
    """How many, or the fewest and the most where they came and went."""
    changed = outcome.fewest != outcome.most
    return f"{outcome.fewest}-{outcome.most}" if changed else str(outcome.most)


def _draw(played: _Played, file: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install 'callboard[plot]'") from error
    outcomes = played.outcomes
    figure = Figure(figsize=(13, 1.5 + 0.6 * len(outcomes)), layout="constrained")
    widths = (3, 1, 1, 1)
    latencies, *others = figure.subplots(1, len(widths), sharey=True, gridspec_kw={"width_ratios": widths})
    places = range(len(outcomes))
    for number, name in enumerate(("p99", "p95", "p50")):
        shown = [getattr(outcome, name) for outcome in outcomes]
        latencies.barh(places, shown, height=0.7, label=name, color=f"C{number}")
    latencies.plot([outcome.mean for outcome in outcomes], places, "k|", markersize=18, label="mean")
    latencies.set_yticks(places, [f"{outcome.name}, {_hosts(outcome)} hosts" for outcome in outcomes])
    latencies.invert_yaxis()
    latencies.set_xlabel("seconds from request to outcome")
    figure.legend(loc="outside upper left", ncols=4)
    for axes, (name, label) in zip(others, _ASIDE.items(), strict=True):
        axes.barh(places, [getattr(outcome, name) for outcome in outcomes], height=0.7, color="C7")
        axes.set_xlabel(label)
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be drawn: {error}") from error
