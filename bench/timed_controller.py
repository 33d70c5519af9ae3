"""A controller that can be asked what it did when: `python -m bench.timed_controller URL POLICY`."""

import asyncio
import signal
import sys
import time

import msgspec
import uvloop

from callboard.controller.controller import Controller
from callboard.controller.deciding import Took
from callboard.controller.view import View
from callboard.infra.messages.telemetry import Report
from callboard.infra.settings import Settings

DONE = "bench.done"
"""Where it is asked; the answer is a :class:`Done`."""


class Done(msgspec.Struct):
    """What it has done since it was asked last; times are seconds of the machine's monotonic clock.

    Attributes:
        futures: open in its view, now.
        reads: of each report that was read, when that began, and its end.
        rounds: those in which something was decided.
    """

    futures: int
    reads: list[tuple[float, float]]
    rounds: list[Took]


class TimedView(View):
    """A view that notes when it reads reports."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[float, float]] = []

    def read(self, source: str, body: bytes) -> tuple[Report | None, bool]:
        """As any view does."""
        began = time.monotonic()
        read = super().read(source, body)
        self.reads.append((began, time.monotonic()))
        return read


async def main(url: str, policy: str) -> None:
    """Lead until told to stop."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    controller = Controller(Settings.load(nats_url=url), policies=[policy])
    view = controller.view = TimedView()
    rounds: list[Took] = []
    async with controller:
        assert controller.deciders is not None
        controller.deciders.on_decided = rounds.append

        def tell(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
            done = Done(len(view.futures), view.reads.copy(), rounds.copy())
            view.reads.clear()
            rounds.clear()
            controller.node.connection.publish(reply.decode(), msgspec.msgpack.encode(done))

        controller.node.connection.subscribe(DONE, tell)
        await controller.led()
        print("leading", flush=True)
        await ended.wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
