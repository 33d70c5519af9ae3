"""Appending to a long list."""

import time

from bench.harness import Bound, Metric, Role, Sample, case
from bench.states import LONG, board, filled, keeper_of
from callboard.state.managed import within

APPENDS = 256


@case(
    "state_append",
    Metric("time", "ms", Bound(ratio_at_most=1.2)),
    Metric("bytes", "bytes", Bound(ratio_at_most=1.2)),
)
async def state_append(role: Role) -> Sample:
    """Append at list length 100,000, mean of 256 commits; the floor here: at length 10."""
    async with board() as (node, sessions):
        keeper, _ = keeper_of()
        session = await filled(sessions, "s", 10 if role is Role.FLOOR else LONG)
        written = 0
        publish = node.connection.publish

        def counted(subject: str, body: bytes = b"", head: bytes | None = None, reply: str = "") -> None:
            nonlocal written
            written += len(subject) + len(body) + len(head or b"")
            publish(subject, body, head, reply)

        node.connection.publish = counted  # type: ignore[method-assign,assignment]
        begun = time.perf_counter()
        for number in range(APPENDS):
            with within(session.begin()):
                keeper.lines.append(f"line {number:9}")
            await session.commit(f"run:{number}")
        elapsed = time.perf_counter() - begun
        await sessions.idle()
    return Sample(values={"time": elapsed * 1000 / APPENDS, "bytes": written / APPENDS})
