"""Run the benchmark: `python -m bench [--case NAME] [--list] [--rounds N] [--json]`."""

import argparse
import functools
import sys

from rich.console import Console

from bench import report
from bench.harness import Case, Outcome, Role, Row, Sample, load_cases, rows_of, run_in_turn
from bench.loops import LOOPS
from bench.oneround import measure

ROUNDS = 5
EPILOG = """
Exit codes: 0 every bound holds; 1 a bound does not hold or a case failed; 2 wrong usage.
"""


def main() -> int:
    """Run the chosen cases, print the table, write the results; the exit code."""
    cases = load_cases()
    arguments = _parse(cases)
    if arguments.list:
        for known in cases.values():
            print(f"{known.name:14} {known.summary}")
        return 0
    machine = report.Machine.here(arguments.loop)
    chosen = [cases[name] for name in arguments.case or cases]
    path = report.new_file() if arguments.side is None else None
    rows: list[Row] = []
    for case in chosen:
        rows += (found := _rows(case, arguments))
        for row in found:
            print(report.line(row), file=sys.stderr, flush=True)
        if path is not None:
            report.write(rows, machine, path)  # after each: who interrupts the next loses nothing
    if arguments.json:
        print(report.as_json(rows, machine).decode())
    else:
        report.show(rows, machine, report.console())
    if path is not None:
        print(f"written to bench/results/{path.name}", file=sys.stderr)
    return 0 if all(row.holds for row in rows) else 1


def _rows(case: Case, arguments: argparse.Namespace) -> list[Row]:
    status = Console(stderr=True).status("")
    round_of = functools.partial(measure, loop=arguments.loop)
    with status:

        def announced(case: Case, role: Role) -> Sample:
            status.update(f"{case.name}: {role.value}")
            return round_of(case, role)

        outcome: Outcome = run_in_turn(case, arguments.rounds, announced, arguments.side)
    return rows_of(case, outcome)


def _parse(cases: dict[str, Case]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, epilog=EPILOG)
    parser.add_argument(
        "--case", action="append", choices=list(cases), metavar="NAME",
        help="only this case; may be given more than once",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the cases and end")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help="rounds of each side (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument(
        "--side", type=Role, choices=list(Role), metavar="floor|callboard",
        help="measure one side only; writes no results",
    )  # fmt: skip
    parser.add_argument(
        "--loop", choices=LOOPS, default=LOOPS[0],
        help="event loop of the client of both sides and of the floor's worker; shipped, the default: "
        "asyncio for the floor, uvloop for Callboard, as they come",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
