"""Sessions that cannot be moved, at an instance that served for a moment and stands by again."""

from __future__ import annotations

from tests.support.board import Board, instance
from tests.support.waiting import until

from callboard import ManagedCounter, agent, method, workflow


@agent(stateful=True)
class Bound:
    """Keeps something, in its process and in its state."""

    count: ManagedCounter

    @method
    async def add(self) -> int:
        """Count."""
        self.count += 1
        return int(self.count)


@workflow
async def add_one() -> int:
    """One call."""
    return await Bound.add()


async def test_sessions_go_on_after_heartbeats_were_late_once(board: Board) -> None:
    """The second instance stepped in, and took sessions; then it stands by, and the first takes them."""
    first = await board.host(Bound)
    second = await board.host(Bound)
    await board.host(add_one)
    await until(lambda: instance(second, Bound).standby)
    client = await board.client()
    beat = first._heart._beat_once
    first._heart._beat_once = lambda connection: None  # type: ignore[method-assign]
    await until(lambda: not instance(second, Bound).standby)
    for number in range(12):
        run = await client.submit(add_one.name, {}, session=f"s{number}")
        assert await client.result(run, timeout=30) == 1
    first._heart._beat_once = beat  # type: ignore[method-assign]
    await until(lambda: instance(second, Bound).standby)
    for number in range(12):
        run = await client.submit(add_one.name, {}, session=f"s{number}")
        assert await client.result(run, timeout=30) == 2
