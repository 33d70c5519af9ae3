"""An engine emulator in the test's own process, and what it would say."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from callboard.actors.emulator.engine import EmulatedEngine
from callboard.actors.emulator.faults import Fault
from callboard.actors.emulator.profiles import Profile
from callboard.actors.emulator.server import EmulatorApp
from callboard.actors.emulator.serving import serving

QUICK = Profile(
    name="quick",
    model="none",
    source="the tests",
    step_ms=2.0,
    prefill_us=1.0,
    decode_us=1.0,
    kv_tokens=1_000_000,
    max_sequences=2000,
    context_tokens=4096,
)
"""A token every two milliseconds, however many there are."""


@dataclass
class Emulated:
    """A running emulator.

    Attributes:
        url: up to and with ``/v1``.
    """

    url: str
    app: EmulatorApp

    @property
    def running(self) -> int:
        """Requests in the engine."""
        batcher = self.app.engine.batcher
        return len(batcher.running) + len(batcher.waiting)

    @property
    def asked(self) -> int:
        """Tokens of all prompts so far; 0: nobody has asked."""
        return self.app.engine.batcher.counts.prompt

    def fault(self, **fault: Any) -> None:
        """What the next requests run into, see :class:`Fault`."""
        self.app.faults.add(Fault(**fault))


@contextlib.asynccontextmanager
async def emulated(answer_tokens: int = 20, **changed: Any) -> AsyncIterator[Emulated]:
    """Run one; arguments change its profile."""
    engine = EmulatedEngine(msgspec.structs.replace(QUICK, **changed))
    app = EmulatorApp(engine, "emulated", answer_tokens)
    async with serving(app) as url:
        yield Emulated(url, app)


def counted(tokens: int) -> str:
    """What an answer of so many tokens says."""
    return "emulated" + "".join(f" {number}" for number in range(1, tokens))
