"""How near the engine emulator is to a real engine, and the constants that bring it there.

    python -m bench.engine_calibration costs URL                     # measures an engine, prints constants
    python -m bench.engine_calibration compare URL PROFILE --out F   # two loads, both engines in turn

URL is that of a server with the OpenAI API, up to and with /v1. The constants go into
``actors/emulator/profiles.py`` by hand; what ``compare`` has found is kept in ``bench/calibration/``.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from bench.engine_load import Figures, Load, closed, figures, play, poisson
from bench.processes import place

NEAR = 0.15
_AT_ONCE = (1, 4, 8, 16)
_PROMPTS = (64, 256, 512, 1024, 1536)
_LONG = 1024

LOADS = (
    poisson("arriving", count=60, rate=1.2, prompt=(32, 384), answer=(8, 64)),
    closed("crowded", count=72, at_once=12, prompt=(64, 256), answer=(16, 64)),
)


class Side(msgspec.Struct):
    """One engine under one load: the figures of each round, and the medians."""

    rounds: list[Figures]
    median: Figures


class Compared(msgspec.Struct):
    """The two engines under one load; ratios are of the emulator by the real one."""

    load: str
    real: Side
    emulated: Side
    ratios: dict[str, float]
    near: bool


class Calibration(msgspec.Struct):
    """What is kept of a comparison."""

    profile: str
    time: str
    machine: str
    load_average: list[float]
    loads: list[Compared]


# -- constants -------------------------------------------------------------------------------------


async def costs(url: str) -> dict[str, float]:
    """The constants of a profile, fitted by least squares to steps whose content is known."""
    rows, took = await _decoding(url)
    step, decode, context = np.linalg.lstsq(np.array(rows), np.array(took), rcond=None)[0]
    rows, took = await _prefilling(url)
    first, prefill, attention = np.linalg.lstsq(np.array(rows), np.array(took), rcond=None)[0]
    return {
        "step_ms": step * 1e3,
        "decode_us": decode * 1e6,
        "context_ns": context * 1e9,
        "prefill_us": prefill * 1e6,
        "attention_ns": attention * 1e9,
        "request_ms": (first - step) * 1e3,
    }


async def _decoding(url: str) -> tuple[list[list[float]], list[float]]:
    """Steps that only decode: one, sequences, tokens that they have; seconds."""
    rows, took = [], []
    for prompt, answer in ((16, 32), (_LONG, 16)):
        for at_once in _AT_ONCE:
            load = closed(f"decode-{prompt}-{at_once}", at_once, at_once, (prompt, prompt), (answer, answer))
            taken = await play(url, load)
            # Past the longest prefill all of them decode side by side.
            between = statistics.median(gap for one in taken for gap in one.between_s[answer // 2 :])
            rows.append([1.0, at_once, at_once * (prompt + answer * 0.75)])
            took.append(between)
            print(f"decode {at_once} of {prompt} tokens: {between * 1e3:.1f} ms a step")
    return rows, took


async def _prefilling(url: str) -> tuple[list[list[float]], list[float]]:
    """Requests that only compute a prompt: one, its tokens, the pairs of them; seconds."""
    rows, took = [], []
    for prompt in _PROMPTS:
        load = closed(f"prefill-{prompt}", 5, 1, (prompt, prompt), (1, 1))
        first = statistics.median(one.first_s for one in await play(url, load))
        rows.append([1.0, prompt, prompt * prompt / 2])
        took.append(first)
        print(f"a prompt of {prompt} tokens: {first * 1e3:.1f} ms")
    return rows, took


# -- comparing -------------------------------------------------------------------------------------


async def compare(url: str, profile: str, rounds: int) -> Calibration:
    """Give both the same loads in turn, the emulator at its own speed."""
    async with place() as here:
        child = await here.spawn_python("callboard", "emulate-engine", "--profile", profile, "--json")
        await child.until_logged("emulator_ready")
        emulated = json.loads(child.output().splitlines()[0])["url"]
        loads = [await _compared(url, emulated, load, rounds) for load in LOADS]
    return Calibration(
        profile=profile,
        time=time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        load_average=[round(one, 1) for one in os.getloadavg()],
        loads=loads,
    )


async def _compared(real: str, emulated: str, load: Load, rounds: int) -> Compared:
    found: dict[str, list[Figures]] = {real: [], emulated: []}
    for _ in range(rounds):
        for url, each in found.items():
            each.append(await figures(url, load))
            print(f"{load.name}, {'real' if url == real else 'emulated'}: {each[-1]}")
    sides = [Side(each, _median(each)) for each in found.values()]
    ratios = {
        field: getattr(sides[1].median, field) / getattr(sides[0].median, field)
        for field in Figures.__struct_fields__
    }
    judged = ("p50_s", "p99_s", "tokens_per_s")
    near = all(abs(ratios[field] - 1) <= NEAR for field in judged)
    return Compared(load=load.name, real=sides[0], emulated=sides[1], ratios=ratios, near=near)


def _median(each: Sequence[Figures]) -> Figures:
    return Figures(*(statistics.median(getattr(one, f) for one in each) for f in Figures.__struct_fields__))


def main() -> int:
    """As the command line says; 1 if they are too far apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("costs", "compare"))
    parser.add_argument("url")
    parser.add_argument("profile", nargs="?", default="cpu-smollm2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "costs":
        print(json.dumps(asyncio.run(costs(given.url)), indent=2))
        return 0
    found = asyncio.run(compare(given.url, given.profile, given.rounds))
    for one in found.loads:
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in one.ratios.items())
        print(f"{one.load}: emulator by real engine: {told}{'' if one.near else '  TOO FAR'}")
    if given.out is not None:
        given.out.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    return 0 if all(one.near for one in found.loads) else 1


if __name__ == "__main__":
    raise SystemExit(main())
