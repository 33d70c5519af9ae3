"""``callboard emulate-engine``: a server that behaves as an inference engine and has no model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import UsageError

_EXTRA = "this needs the packages 'starlette' and 'uvicorn': install Callboard with its extra 'emulator'"


def emulate_engine(
    *,
    profile: str = "h100-llama-3.1-8b",
    port: Annotated[int, Parameter(validator=Number(gte=0, lt=65536))] = 0,
    listen: str = "127.0.0.1",
    model_name: str | None = None,
    speed: Annotated[float, Parameter(validator=Number(gt=0))] = 1.0,
    answer_tokens: Annotated[int, Parameter(validator=Number(gte=1))] = 128,
    kv_tokens: Annotated[int | None, Parameter(validator=Number(gte=16))] = None,
    context_tokens: Annotated[int | None, Parameter(validator=Number(gte=2))] = None,
    max_sequences: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    common: Common = DEFAULTS,
) -> int:
    """Emulate an inference engine: a server with the OpenAI API that batches, queues and takes its time.

    It is no engine: there is no model, and its answers count ("emulated 1 2 3 ..."). What a request costs is
    computed from a profile of a real engine. For load tests that need more engines than there are GPUs.

        callboard emulate-engine --port 8000
        callboard host --model writer --url http://127.0.0.1:8000/v1

    Args:
        profile: Whose costs: a name (an unknown one lists those that there are), or a .json file.
        port: Where it listens; 0 is any port, and the first line tells which.
        listen: Address to listen at; by default only this machine can ask it.
        model_name: Under which it is served; by default "emulated-" and the profile's name.
        speed: How many times as fast as the profile says.
        answer_tokens: Of an answer whose length no request prescribes.
        kv_tokens: Room of the KV cache; by default the profile's.
        context_tokens: Prompt and answer at most; by default the profile's.
        max_sequences: Requests in one step at most; by default the profile's.
    """
    common.log("warning")
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise UsageError(_EXTRA)
    import msgspec

    from callboard.actors.emulator.engine import EmulatedEngine
    from callboard.actors.emulator.profiles import profile as known
    from callboard.actors.emulator.server import EmulatorApp
    from callboard.cli.serving import run_loop, serve_emulator

    limits = {
        "kv_tokens": kv_tokens,
        "context_tokens": context_tokens,
        "max_sequences": max_sequences,
    }
    chosen = msgspec.structs.replace(known(profile), **{k: v for k, v in limits.items() if v is not None})
    emulated = EmulatorApp(
        EmulatedEngine(chosen, speed), model_name or f"emulated-{chosen.name}", answer_tokens
    )

    def on_ready(url: str) -> None:
        line = {"event": "emulator_ready", "url": url, "model": emulated.model, "profile": chosen.name}
        common.output.line(line, f"emulating {chosen.name} (no real engine) at {url} as {emulated.model}")

    return run_loop(serve_emulator(emulated, listen, port, on_ready))
