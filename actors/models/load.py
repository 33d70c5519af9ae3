"""How busy an engine is, by what it tells of itself: metrics under the names that vLLM gives them."""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable

import msgspec

_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{[^}]*\})? (\S+)", re.MULTILINE)
_NAMES = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "kv",
    "vllm:prefix_cache_queries_total": "queried",
    "vllm:prefix_cache_hits_total": "hit",
    "vllm:prompt_tokens_total": "prompt",
    "vllm:generation_tokens_total": "generated",
    "vllm:num_preemptions_total": "preempted",
}


class EngineLoad(msgspec.Struct, frozen=True):
    """What an engine tells. Counts are since it was started.

    Attributes:
        running: requests in its batch; waiting: requests that it has and that are not in the batch.
        kv: share of its KV cache that is in use, 0 to 1.
        queried: tokens of prompts that were looked for in the prefix cache; hit: that were there.
        prompt: tokens read; generated: tokens made.
        preempted: requests that were put back from the batch, since the cache was full.
    """

    running: int = 0
    waiting: int = 0
    kv: float = 0.0
    queried: int = 0
    hit: int = 0
    prompt: int = 0
    generated: int = 0
    preempted: int = 0


@runtime_checkable
class TellsLoad(Protocol):
    """An engine that tells how busy it is; not all do, so this is no part of the port."""

    async def load(self) -> EngineLoad | None:
        """How busy it is now; None: it does not tell.

        Raises:
            CallboardError: it does not answer now.
        """
        ...


def read_load(text: str) -> EngineLoad | None:
    """From metrics in the text format of Prometheus, those of all engines behind one server added up.

    None if they are not of such an engine.
    """
    found = dict.fromkeys(_NAMES.values(), 0.0)
    told: set[str] = set()
    shares = 0
    for name, value in _SAMPLE.findall(text):
        field = _NAMES.get(name)
        if field is not None:
            told.add(field)
            found[field] += _number(value)
            shares += field == "kv"
    if not {"running", "waiting"} <= told:
        return None
    kv = found.pop("kv") / max(1, shares)
    return EngineLoad(kv=min(1.0, max(0.0, kv)), **{name: round(value) for name, value in found.items()})


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value < 1e18 else 0.0
