"""How near the engine emulator is to a real engine, and the constants that bring it there.

    python -m bench.engine_calibration costs URL --out P.json        # measures an engine, writes a profile
    python -m bench.engine_calibration compare URL P.json --out F    # two other loads, both engines in turn
    python -m bench.engine_calibration vllm MODEL --out FOLDER       # both, with a vLLM that it starts here

URL is that of a server with the OpenAI API, up to and with /v1. A profile is what ``callboard emulate-engine
--profile P.json`` takes; its limits are those of the profile that ``--like`` names.
What has been found on one machine is kept in ``bench/calibration/``.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from bench.engine_load import Figures, Load, closed, figures, play, poisson
from bench.processes import place
from bench.report import cpu_model
from callboard.actors.emulator.profiles import Profile
from callboard.actors.emulator.profiles import profile as known
from callboard.actors.models.vllm import VllmEngine, serve_command

NEAR = 0.15
_VLLM = ("--enforce-eager", "--dtype=bfloat16", "--max-model-len=2048", "--max-num-batched-tokens=2048")
_AT_ONCE = (1, 4, 8, 16)
_PROMPTS = (64, 256, 512, 1024, 1536)
_LONG = 1024
_TURNS = 3
"""How often each cost is measured, one after the other: a machine is faster now and slower then."""

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


async def costs(url: str, like: Profile) -> Profile:
    """A profile whose constants are fitted to steps whose content is known.

    Args:
        like: whose limits and names it has.
    """
    rows, took = await _decoding(url)
    step, decode, context = _fitted(rows, took)
    rows, took = await _prefilling(url)
    first, prefill, attention = _fitted(rows, took)
    fitted = {
        "step_ms": step * 1e3,
        "decode_us": decode * 1e6,
        "context_ns": context * 1e9,
        "prefill_us": prefill * 1e6,
        "attention_ns": attention * 1e9,
        "request_ms": (first - step) * 1e3,
    }
    constants = {name: round(max(0.0, value), 3) for name, value in fitted.items()}
    source = f"measured {time.strftime('%Y-%m-%d', time.gmtime())}: {_machine()}"
    return msgspec.structs.replace(like, source=source, **constants)


def _fitted(rows: list[list[float]], took: list[float]) -> list[float]:
    """What each column costs: the least squares of relative errors, without costs below 0."""
    seconds = np.array(took)
    shares = np.array(rows) / seconds[:, None]
    used = list(range(shares.shape[1]))
    while True:
        found = np.linalg.lstsq(shares[:, used], np.ones_like(seconds), rcond=None)[0]
        below = [column for column, cost in zip(used, found, strict=True) if cost < 0]
        if not below:
            costs = dict(zip(used, found, strict=True))
            return [float(costs.get(column, 0.0)) for column in range(shares.shape[1])]
        used = [column for column in used if column not in below]


async def _decoding(url: str) -> tuple[list[list[float]], list[float]]:
    """Steps that only decode: one, sequences, tokens that they have; seconds."""
    rows, took = [], []
    for (prompt, answer), at_once in _TURNS * list(itertools.product(((16, 32), (_LONG, 16)), _AT_ONCE)):
        load = closed(f"decode-{prompt}-{at_once}", at_once, at_once, (prompt, prompt), (answer, answer))
        taken = await play(url, load)
        # Past the longest prefill all of them decode side by side. The mean: a request takes their sum.
        between = statistics.fmean(gap for one in taken for gap in one.between_s[answer // 2 :])
        rows.append([1.0, at_once, at_once * (prompt + answer * 0.75)])
        took.append(between)
        print(f"decode {at_once} of {prompt} tokens: {between * 1e3:.1f} ms a step", flush=True)
    return rows, took


async def _prefilling(url: str) -> tuple[list[list[float]], list[float]]:
    """Requests that only compute a prompt: one, its tokens, the pairs of them; seconds."""
    rows, took = [], []
    for prompt in _TURNS * _PROMPTS:
        load = closed(f"prefill-{prompt}", 3, 1, (prompt, prompt), (1, 1))
        first = statistics.fmean(one.first_s for one in await play(url, load))
        rows.append([1.0, prompt, prompt * prompt / 2])
        took.append(first)
        print(f"a prompt of {prompt} tokens: {first * 1e3:.1f} ms", flush=True)
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
        machine=_machine(),
        load_average=[round(one, 1) for one in os.getloadavg()],
        loads=loads,
    )


async def _compared(real: str, emulated: str, load: Load, rounds: int) -> Compared:
    found: dict[str, list[Figures]] = {real: [], emulated: []}
    for _ in range(rounds):
        for url, each in found.items():
            each.append(await figures(url, load))
            print(f"{load.name}, {'real' if url == real else 'emulated'}: {each[-1]}", flush=True)
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


def _machine() -> str:
    return f"{cpu_model()}, {os.cpu_count()} cores"


# -- with a vLLM of one's own ----------------------------------------------------------------------


async def with_vllm(model: str, like: Profile, rounds: int, folder: Path) -> Calibration:
    """Start vLLM, measure it, and compare it with the emulator that has what was measured.

    Args:
        model: name or folder; folder: where the profile and what was found are written.
    """
    engine = VllmEngine("calibrated", serve_command(model, _VLLM))
    print(f"starting vLLM with {model}, which takes a minute or so", flush=True)
    await engine.open()
    try:
        profile = await costs(engine.url, like)
        at = _written(folder / f"{like.name}.profile.json", profile)
        return await compare(engine.url, str(at), rounds)
    finally:
        await engine.close()


def _written(path: Path, what: msgspec.Struct) -> Path:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(what)) + b"\n")
    print(f"written to {path}", flush=True)
    return path


def _near(found: Calibration) -> bool:
    for one in found.loads:
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in one.ratios.items())
        print(f"{one.load}: emulator by real engine: {told}{'' if one.near else '  TOO FAR'}")
    return all(one.near for one in found.loads)


def main() -> int:
    """As the command line says; 1 if they are too far apart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("costs", "compare", "vllm"))
    parser.add_argument("subject", help="URL of an engine; with vllm the model's name or folder")
    parser.add_argument("profile", nargs="?", default="cpu-smollm2", help="to compare with")
    parser.add_argument("--like", default="cpu-smollm2", help="profile whose limits a measured one has")
    parser.add_argument("--rounds", type=int, default=3, help="of each load")
    parser.add_argument("--out", type=Path, help="file, or with vllm a folder, to write to")
    given = parser.parse_args()
    if given.what == "costs":
        profile = asyncio.run(costs(given.subject, known(given.like)))
        if given.out is None:
            print(msgspec.json.format(msgspec.json.encode(profile)).decode())
        else:
            _written(given.out, profile)
        return 0
    if given.what == "vllm":
        folder = given.out or Path(tempfile.mkdtemp(prefix="callboard-calibration-"))
        folder.mkdir(parents=True, exist_ok=True)
        found = asyncio.run(with_vllm(given.subject, known(given.like), given.rounds, folder))
        _written(folder / f"{given.like}.json", found)
    else:
        found = asyncio.run(compare(given.subject, given.profile, given.rounds))
        if given.out is not None:
            _written(given.out, found)
    return 0 if _near(found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
