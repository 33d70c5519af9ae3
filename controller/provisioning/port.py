"""What a provisioner is: that which starts and ends hosts somewhere, each for one actor."""

from __future__ import annotations

from typing import Protocol

import msgspec

from callboard.infra.messages.registry import ActorInfo


class Provided(msgspec.Struct, frozen=True):
    """A host that a provisioner runs, or starts, or ends.

    Attributes:
        name: what the provisioner calls it; actor: what it runs; where: its place.
        node, pid: the machine or container, and the process, as its heartbeat names them; an empty node: not
            known yet; pid 0: any, there is only one host in this node.
        ending: it has been told to end.
    """

    name: str
    actor: str
    where: str
    node: str = ""
    pid: int = 0
    ending: bool = False


class Provisioner(Protocol):
    """Starts and ends hosts.

    Starting a host that has crashed again is its own affair, with a wait that grows. Everything that it runs
    can be found by the next controller, here or in the registry.

    Attributes:
        every: seconds between two looks.
        places: by actor: where instances of it can be started; the first place is the default.
        capacity: by place: amounts of resources that there are for all hosts together; a place that is not
            named has no limits that are known.
        most: hosts that may run in all places together.
    """

    every: float
    places: dict[str, list[str]]
    capacity: dict[str, dict[str, float]]
    most: int

    async def start(self) -> list[ActorInfo]:
        """Get ready; gives what is known of the actors beside what the registry says.

        Raises:
            ProvisionerUnusable: it cannot work.
        """
        ...

    async def stop(self) -> None:
        """End what would not live on without this process, and let go of the rest. Idempotent."""
        ...

    def lead(self) -> None:
        """From now on this process may start and end hosts, and no other."""
        ...

    def lead_no_more(self) -> None:
        """From now on another may: start nothing, and end what would not be seen there. Idempotent."""
        ...

    async def look(self) -> list[Provided]:
        """All hosts that there are now, whoever has started them.

        Raises:
            ProvisionFailed: it cannot be found out now.
        """
        ...

    async def provision(self, actor: str, where: str) -> None:
        """Start a host that runs an actor. It counts as one that there is from when this returns.

        Raises:
            ProvisionFailed: it cannot be started now.
        """
        ...

    async def kill(self, host: Provided) -> None:
        """Tell a host to drain and end, by SIGTERM; after a grace period it is killed.

        Raises:
            ProvisionFailed: it cannot be ended now.
        """
        ...
