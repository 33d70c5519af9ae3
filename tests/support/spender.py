"""A process that reserves and settles requests of one budget as fast as it can; run by a test.

Arguments: URL of the server, name of the account, a name for its requests, how many.
Prints how many it could reserve.
"""

from __future__ import annotations

import asyncio
import sys

from callboard.actors.node import Node
from callboard.infra.messages.budget import Account, Amounts
from callboard.infra.settings import Settings
from callboard.state.accounts import Accounts
from callboard.state.charging import reserve, settle

_AT_ONCE = 8


async def main(url: str, account: str, own: str, count: int) -> int:
    """How many were reserved."""
    node = await Node(Settings.load({}, nats_url=url), own).open()
    accounts = Accounts(node.store, node.reader, 1000.0)
    some = asyncio.Semaphore(_AT_ONCE)

    async def spend(number: int) -> bool:
        charge = f"{own}:{number}#1"

        def take(found: Account | None) -> bool:
            return not reserve(found, charge, Amounts(calls=1, tokens=100), free="").unit

        async with some:
            taken = await accounts.change(account, take)
            if taken:
                await accounts.change(account, lambda one: settle(one, charge, Amounts(calls=1, tokens=70)))
            return taken

    try:
        return sum(await asyncio.gather(*map(spend, range(count))))
    finally:
        await node.close()


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))  # noqa: T201 - for the test
