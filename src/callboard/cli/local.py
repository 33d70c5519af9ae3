"""``callboard run --local``: a workflow in this process, without NATS."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from callboard.actors.app import load
from callboard.actors.failures import describe
from callboard.actors.registry import describe as described
from callboard.cli.arguments import Parameters
from callboard.cli.exits import Exit, end_within
from callboard.cli.outcome import LOCAL, Outcome
from callboard.infra.errors import ResultTimeout

_LINGER = 1.0


def run_local(
    app: str,
    workflow: str,
    typed: Sequence[str],
    given: Mapping[str, Any],
    timeout: float | None,
) -> Outcome:
    """Run a workflow of an application to its end.

    Raises:
        AppUnloadable, UnknownActor: the application cannot be used.
        InvalidArguments: the arguments do not fit.
        ResultTimeout: it has not ended in time.
    """
    found = load(app).workflow(workflow)
    signature = found.method.signature
    plain = Parameters(described(found)).read(typed, given)
    arguments = signature.decode_arguments(signature.from_json(msgspec.json.encode(plain)))
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    def work() -> None:
        try:
            value = msgspec.to_builtins(found.run_local(**arguments))
        except Exception as error:  # noqa: BLE001 - whatever a workflow raises is its outcome
            outcomes.put(Outcome(LOCAL, workflow, "failed", error=describe(error, [workflow])))
        else:
            outcomes.put(Outcome(LOCAL, workflow, "completed", value))

    threading.Thread(target=work, daemon=True).start()
    try:
        return outcomes.get(timeout=timeout)
    except KeyboardInterrupt:
        end_within(_LINGER, Exit.INTERRUPTED)
        raise
    except queue.Empty:
        end_within(_LINGER, Exit.TIMED_OUT)
        raise ResultTimeout(f"{workflow} has not ended after {timeout:g} s", timeout=timeout) from None
