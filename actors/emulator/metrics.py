"""What an emulated engine tells of itself, under vLLM's names, in Prometheus' text format."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from callboard.actors.emulator.batching import Batcher
    from callboard.actors.emulator.engine import EmulatedEngine, Generation

_SECONDS: Final = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How often what was how long, in the buckets of Prometheus."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect.bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """In the text format."""
        total = 0
        for bound, count in zip((*map(str, _SECONDS), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self._sum}"
        yield f"{name}_count{{{labels}}} {total}"


class Figures:
    """What one engine has done."""

    def __init__(self) -> None:
        self.finished: Counter[str] = Counter()
        self.first_token = Histogram()
        self.between_tokens = Histogram()
        self.whole = Histogram()
        self.behind = 0.0

    def lag(self, seconds: float) -> None:
        """How far the clock is behind what the profile says, now."""
        self.behind = seconds

    def token(self, generation: Generation, now: float) -> None:
        """A request has a token more."""
        if generation.last:
            self.between_tokens.observe(now - generation.last)
        else:
            generation.first = now
            self.first_token.observe(now - generation.begun)
        generation.last = now

    def ended(self, generation: Generation, reason: str) -> None:
        """A request is over: ``stop``, ``length`` or ``abort``, as vLLM counts them."""
        self.finished[reason] += 1
        self.whole.observe(time.monotonic() - generation.begun)


def told(engine: EmulatedEngine, model: str) -> str:
    """All of it; those that no real engine has are called ``emulator_...``."""
    labels = f'engine="0",model_name="{model}"'
    return "\n".join([*_lines(engine, labels, model), ""])


def _lines(engine: EmulatedEngine, labels: str, model: str) -> Iterator[str]:
    batcher, figures = engine.batcher, engine.figures
    yield "# This is Callboard's engine emulator, no real engine: there is no model, and time is computed."
    yield "# TYPE emulator_info gauge"
    yield f'emulator_info{{{labels},profile="{engine.profile.name}",speed="{engine.speed:g}"}} 1'
    yield "# HELP emulator_lag_seconds How far its clock is behind: above 0 this machine is too slow for it."
    yield "# TYPE emulator_lag_seconds gauge"
    yield f"emulator_lag_seconds{{{labels}}} {figures.behind}"
    for name, kind, value in _numbers(batcher):
        yield f"# TYPE vllm:{name} {kind}"
        yield f"vllm:{name}{{{labels}}} {value}"
    yield "# TYPE vllm:request_success_total counter"
    for reason in ("stop", "length", "abort"):
        yield f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {figures.finished[reason]}'
    yield "# TYPE vllm:cache_config_info gauge"
    size, block = batcher.blocks.size, engine.profile.block_tokens
    yield f'vllm:cache_config_info{{engine="0",block_size="{block}",num_gpu_blocks="{size}"}} 1'
    for name, histogram in (
        ("time_to_first_token_seconds", figures.first_token),
        ("inter_token_latency_seconds", figures.between_tokens),
        ("e2e_request_latency_seconds", figures.whole),
    ):
        yield f"# TYPE vllm:{name} histogram"
        yield from histogram.lines(f"vllm:{name}", labels)


def _numbers(batcher: Batcher) -> Iterator[tuple[str, str, float]]:
    counts = batcher.counts
    yield "num_requests_running", "gauge", len(batcher.running)
    yield "num_requests_waiting", "gauge", len(batcher.waiting)
    yield "kv_cache_usage_perc", "gauge", batcher.blocks.usage
    yield "prefix_cache_queries_total", "counter", counts.queried
    yield "prefix_cache_hits_total", "counter", counts.hits
    yield "num_preemptions_total", "counter", counts.preemptions
    yield "prompt_tokens_total", "counter", counts.prompt
    yield "generation_tokens_total", "counter", counts.generated
