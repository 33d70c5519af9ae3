"""How many sessions commit at once."""

import asyncio
import time

from bench.accounting import CpuMeter
from bench.callboard_side import CallboardSide, open_side
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place
from bench.states import bucket, keeper_of, updates
from callboard.actors.node import Node
from callboard.infra.settings import Settings
from callboard.state.managed import within
from callboard.state.sessions import Sessions

SESSIONS = 500
EACH = 10


@case("state_commits", Metric("", "commits/s", Bound(ratio_at_least=0.8)))
async def state_commits(role: Role) -> Sample:
    """Commits of 500 sessions at once, each an append; the floor: `kv.update` of 500 keys at once."""
    if role is Role.FLOOR:
        async with bucket() as (kv, server):
            with CpuMeter({"server": [server.pid]}) as cpu:
                begun = time.perf_counter()
                await asyncio.gather(*(updates(kv, f"key{n}", EACH) for n in range(SESSIONS)))
                elapsed = time.perf_counter() - begun
            return Sample(values={"": SESSIONS * EACH / elapsed}, calls=SESSIONS * EACH, cpu_s=cpu.seconds)
    async with place() as here, open_side(here, ["Keeper"], ["committing"]) as side:
        return await _bare_commits(side)


async def _bare_commits(side: CallboardSide) -> Sample:
    """What a host does for a handler's state, without the calls; then with them, for comparison."""
    keeper, rules = keeper_of()
    node = await Node(Settings.load(nats_url=side.url), "bench").open()
    sessions = Sessions(node.shelf, node.settings)

    async def one(number: int) -> None:
        session = await sessions.open("Keeper", f"bare{number}", rules)
        for line in range(EACH):
            with within(session.begin()):
                keeper.lines.append(f"line {line}")
            await session.commit(f"run:{line}")

    await asyncio.gather(*(sessions.open("Keeper", f"bare{n}", rules) for n in range(SESSIONS)))
    with CpuMeter({part: side.parts()[part] for part in ("server", "client")}) as cpu:
        begun = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(SESSIONS)))
        bare = time.perf_counter() - begun
    await sessions.stop()
    await node.close()
    await side.run("committing", sessions=SESSIONS, each=1)
    calls = await side.run("committing", sessions=SESSIONS, each=EACH)
    return Sample(
        values={"": SESSIONS * EACH / bare},
        calls=SESSIONS * EACH,
        cpu_s=cpu.seconds,
        details={"calls_per_s": SESSIONS * EACH / calls},
    )
