"""Cases, their declared bounds, and the loop that runs both sides in turn.

A case is one function in one file of `bench/cases/`, registered by `@case`. It is called once a
round for each role, in a process of its own, and returns a `Sample`.
"""

import enum
import importlib
import pkgutil
import statistics
from collections.abc import Callable, Coroutine, Sequence

import msgspec


class Role(enum.Enum):
    """Which side of a comparison a case function is asked to measure."""

    FLOOR = "floor"
    CALLBOARD = "callboard"


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What a row must reach; every limit that is given must hold.

    Args:
        at_least: smallest permitted value, in the row's unit.
        at_most: largest permitted value, in the row's unit.
        ratio_at_least: smallest permitted value divided by the floor's.
        ratio_at_most: largest permitted value divided by the floor's.
    """

    at_least: float | None = None
    at_most: float | None = None
    ratio_at_least: float | None = None
    ratio_at_most: float | None = None

    def holds(self, value: float | None, ratio: float | None) -> bool:
        """Whether the limits hold; a figure that was not measured fails the limit that needs it."""
        return (
            _reaches(value, self.at_least)
            and _stays_within(value, self.at_most)
            and _reaches(ratio, self.ratio_at_least)
            and _stays_within(ratio, self.ratio_at_most)
        )

    def __str__(self) -> str:
        limits = (
            (">=", self.at_least, ""),
            ("<=", self.at_most, ""),
            (">=", self.ratio_at_least, "x floor"),
            ("<=", self.ratio_at_most, "x floor"),
        )
        return " and ".join(
            f"{sign} {limit:g}{suffix}" for sign, limit, suffix in limits if limit is not None
        )


def _reaches(figure: float | None, limit: float | None) -> bool:
    return limit is None or (figure is not None and figure >= limit)


def _stays_within(figure: float | None, limit: float | None) -> bool:
    return limit is None or (figure is not None and figure <= limit)


class Metric(msgspec.Struct, frozen=True):
    """One figure of a case: a row of the table.

    Args:
        name: key in `Sample.values`; the row is called `<case>.<name>`, or `<case>` when empty.
        unit: unit of the value, for the reader.
        bound: what the value must reach.
        combine: makes one value of the rounds' values. `max` for what no round may exceed.
    """

    name: str
    unit: str
    bound: Bound
    combine: Callable[[Sequence[float]], float] = statistics.median


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one round of one role measured.

    Args:
        values: by metric name, in the metric's unit.
        calls: calls made while the CPU was metered; 0 if it was not.
        cpu_s: CPU seconds (user and system) of each part of the side during those calls.
        details: further figures worth keeping in the results, with the unit in the name.
    """

    values: dict[str, float]
    calls: int = 0
    cpu_s: dict[str, float] = {}
    details: dict[str, float] = {}

    @property
    def cpu_ms_per_call(self) -> float | None:
        """CPU milliseconds per call over all processes, or None if it was not metered."""
        return sum(self.cpu_s.values()) * 1000 / self.calls if self.calls else None

    def figures(self) -> dict[str, float]:
        """The details, and the CPU milliseconds per call of each part."""
        shares = {
            f"cpu_ms_per_call_{part}": seconds * 1000 / self.calls
            for part, seconds in self.cpu_s.items()
            if self.calls
        }
        return {**shares, **self.details}


CaseFunction = Callable[[Role], Coroutine[None, None, Sample]]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A registered case; see `case` for the fields."""

    name: str
    summary: str
    metrics: tuple[Metric, ...]
    roles: tuple[Role, ...]
    rounds: int | None
    timeout_s: float
    measure: CaseFunction
    alike: bool = False


_cases: dict[str, Case] = {}


def case(
    name: str,
    *metrics: Metric,
    floor: bool = True,
    rounds: int | None = None,
    timeout_s: float = 120,
    alike: bool = False,
) -> Callable[[CaseFunction], CaseFunction]:
    """Register the decorated coroutine function as a case; its docstring's first line describes it.

    Args:
        name: what `--case` selects.
        metrics: the rows it yields.
        floor: whether it is measured for `Role.FLOOR` too; without it rows have no ratio.
        rounds: replaces the number of rounds, for cases that repeat inside one round.
        timeout_s: seconds after which a round is killed.
        alike: the floor is Callboard, too, and runs on the same event loop.
    """

    def register(measure: CaseFunction) -> CaseFunction:
        if name in _cases:
            raise ValueError(f"two benchmark cases are called {name!r}; rename one")
        _cases[name] = Case(
            name=name,
            summary=(measure.__doc__ or name).strip().splitlines()[0],
            metrics=metrics,
            roles=(Role.FLOOR, Role.CALLBOARD) if floor else (Role.CALLBOARD,),
            rounds=rounds,
            timeout_s=timeout_s,
            measure=measure,
            alike=alike,
        )
        return measure

    return register


def load_cases() -> dict[str, Case]:
    """Import every file of `bench/cases/` and return what they registered, by name."""
    package = importlib.import_module("bench.cases")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"bench.cases.{module.name}")
    return dict(_cases)


class Outcome(msgspec.Struct):
    """All samples of one case, and what went wrong, by role."""

    samples: dict[Role, list[Sample]]
    errors: dict[Role, str]


Measure = Callable[[Case, Role], Sample]


def run_in_turn(chosen: Case, rounds: int, measure: Measure, only: Role | None = None) -> Outcome:
    """Measure the roles of a case in turn, round after round: floor, Callboard, floor, Callboard.

    A role whose round fails is not run again; the other one goes on.

    Args:
        chosen: the case.
        rounds: how often each role is measured, unless the case says otherwise.
        measure: runs one round; raises `RoundFailed`.
        only: leaves the other role out.
    """
    roles = [role for role in chosen.roles if only in (None, role)]
    outcome = Outcome(samples={role: [] for role in roles}, errors={})
    for _ in range(chosen.rounds or rounds):
        for role in roles:
            if role in outcome.errors:
                continue
            try:
                outcome.samples[role].append(measure(chosen, role))
            except RoundFailed as failure:
                outcome.errors[role] = str(failure)
    return outcome


class RoundFailed(Exception):
    """One round gave no sample; the text says why."""


class Row(msgspec.Struct, kw_only=True):
    """One line of the table and one object of the results.

    Args:
        case: `<case>.<metric>`, or `<case>` alone.
        value: Callboard's figure, in `unit`; None if it could not be measured.
        floor: the floor's figure in the same unit, if there is one.
        ratio: value divided by floor.
        bound: the declared bound, for the reader.
        holds: whether the bound holds.
        cpu_ms_per_call: CPU milliseconds per call over all processes, median of the rounds.
        floor_cpu_ms_per_call: the same of the floor.
        samples: the rounds' values.
        floor_samples: the floor's.
        details: medians of `Sample.figures()`s.
        floor_details: the same of the floor.
        error: why a side has no figure.
    """

    case: str
    value: float | None
    unit: str
    floor: float | None
    ratio: float | None
    bound: str
    holds: bool
    cpu_ms_per_call: float | None = None
    floor_cpu_ms_per_call: float | None = None
    samples: list[float] = []
    floor_samples: list[float] = []
    details: dict[str, float] = {}
    floor_details: dict[str, float] = {}
    error: str | None = None


def rows_of(chosen: Case, outcome: Outcome) -> list[Row]:
    """Make the rows of a case out of its samples."""
    return [_row(chosen, metric, outcome) for metric in chosen.metrics]


def _row(chosen: Case, metric: Metric, outcome: Outcome) -> Row:
    mine = outcome.samples.get(Role.CALLBOARD, [])
    floors = outcome.samples.get(Role.FLOOR, [])
    value = _combined(metric, mine)
    floor = _combined(metric, floors)
    ratio = value / floor if value is not None and floor else None
    return Row(
        case=f"{chosen.name}.{metric.name}" if metric.name else chosen.name,
        value=value,
        unit=metric.unit,
        floor=floor,
        ratio=ratio,
        bound=str(metric.bound),
        holds=value is not None and metric.bound.holds(value, ratio),
        cpu_ms_per_call=_cpu(mine),
        floor_cpu_ms_per_call=_cpu(floors),
        samples=_values(metric, mine),
        floor_samples=_values(metric, floors),
        details=_details(mine),
        floor_details=_details(floors),
        error="; ".join(f"{role.value}: {text}" for role, text in outcome.errors.items()) or None,
    )


def _values(metric: Metric, samples: Sequence[Sample]) -> list[float]:
    return [sample.values[metric.name] for sample in samples if metric.name in sample.values]


def _combined(metric: Metric, samples: Sequence[Sample]) -> float | None:
    values = _values(metric, samples)
    return metric.combine(values) if values else None


def _cpu(samples: Sequence[Sample]) -> float | None:
    known = [cpu for sample in samples if (cpu := sample.cpu_ms_per_call) is not None]
    return statistics.median(known) if known else None


def _details(samples: Sequence[Sample]) -> dict[str, float]:
    figures = [sample.figures() for sample in samples]
    names = {name: None for each in figures for name in each}
    return {name: statistics.median(each[name] for each in figures if name in each) for name in names}
