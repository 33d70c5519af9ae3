"""The machine's description, the table for people and the results for programs."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from bench.harness import Row
from bench.processes import ROOT, server_binary

RESULTS = ROOT / "bench" / "results"
LARGE = 100
PLAIN_WIDTH = 120


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures depend on; no names and no places.

    Args:
        cpu: model of the processor.
        cores: logical cores this process may use.
        memory_gib: installed memory in GiB.
        load_1m: run-queue length over the last minute, before the first round.
        kernel: name and release of the system's kernel.
        python: implementation and version.
        nats_server: version of the server.
        nats_py: version of the client library.
        loop: event loop of the client and of the floor's worker.
    """

    cpu: str
    cores: int
    memory_gib: float
    load_1m: float
    kernel: str
    python: str
    nats_server: str
    nats_py: str
    loop: str

    @classmethod
    def here(cls, loop: str) -> "Machine":
        """Describe this machine."""
        return cls(
            cpu=cpu_model(),
            cores=len(psutil.Process().cpu_affinity()),
            memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
            load_1m=round(os.getloadavg()[0], 2),
            kernel=f"{platform.system()} {platform.release()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            nats_server=_server_version(),
            nats_py=importlib.metadata.version("nats-py"),
            loop=loop,
        )

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib} GiB, load {self.load_1m}, "
            f"{self.kernel}\n{self.python}, nats-server {self.nats_server}, "
            f"nats-py {self.nats_py}, event loop: {self.loop}"
        )


def cpu_model() -> str:
    """Model of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _server_version() -> str:
    told = subprocess.run([server_binary(), "--version"], capture_output=True, text=True, check=True)
    return told.stdout.rpartition("v")[2].strip()


def new_file(folder: Path = RESULTS) -> Path:
    """Where the results of a run that begins now go: `<UTC time>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"


def write(rows: Sequence[Row], machine: Machine, path: Path) -> None:
    """Write the rows as a list with one object a row, in the place of those that were written before."""
    path.write_bytes(as_json(rows, machine) + b"\n")


def as_json(rows: Sequence[Row], machine: Machine) -> bytes:
    """The rows as an indented JSON list, each with the time and the machine."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    flat = [
        {**msgspec.to_builtins(row), "time": time, "machine": msgspec.to_builtins(machine)} for row in rows
    ]
    return msgspec.json.format(msgspec.json.encode(flat), indent=2)


def console() -> Console:
    """Standard output; wide enough for the table where it is no terminal."""
    usual = Console()
    return usual if usual.is_terminal else Console(width=PLAIN_WIDTH)


def show(rows: Sequence[Row], machine: Machine, out: Console) -> None:
    """Print the machine and the table, then what went wrong."""
    out.print(str(machine), highlight=False)
    table = Table()
    table.add_column("case")
    for heading in ("Callboard", "floor"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    for heading in ("ratio", "CPU ms/call", "floor's"):
        table.add_column(heading, justify="right")
    table.add_column("bound")
    table.add_column("holds")
    for row in rows:
        table.add_row(*_cells(row))
    out.print(table)
    for row in rows:
        if row.error:
            out.print(f"{row.case}: {row.error}", style="red", markup=False, highlight=False)


def line(row: Row) -> str:
    """A row in words, for who waits for the others."""
    floor = f", floor {_figure(row.floor)} {row.unit}: {_figure(row.ratio)}x" if row.floor is not None else ""
    holds = "holds" if row.holds else "does not hold"
    return f"{row.case}: {_figure(row.value)} {row.unit}{floor}; {row.bound} {holds}"


def _cells(row: Row) -> list[str]:
    return [
        row.case,
        _figure(row.value),
        _figure(row.floor),
        row.unit,
        _figure(row.ratio),
        _figure(row.cpu_ms_per_call),
        _figure(row.floor_cpu_ms_per_call),
        row.bound,
        "[green]yes[/]" if row.holds else "[bold red]no[/]",
    ]


def _figure(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f}" if abs(figure) >= LARGE else f"{figure:.3g}"
