"""``callboard controller``: see what all hosts do, and lead or stand by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.policy import check
from callboard.cli.provisioning import Provisioning

if TYPE_CHECKING:
    from callboard.controller.controller import Controller


_NO_PROVISIONING = Provisioning()


def controller(
    *,
    policy: Annotated[list[str] | None, Parameter(negative=())] = None,
    provisioning: Provisioning = _NO_PROVISIONING,
    supervised: Annotated[bool, Parameter(show=False)] = False,
    common: Common = DEFAULTS,
) -> int:
    """Follow what hosts and drivers tell, let policies decide, and start and end hosts.

    Start two: one leads, the other takes over within two seconds. Without any, calls run as before.

    With --provision the one that leads starts hosts until each actor has its 'min_instances', starts those
    again that crash, and carries out what policies such as 'scale' decide. Give all controllers the same.

        callboard controller --nats nats://10.0.0.1:4222
        callboard controller --policy srtf --policy my_policies.py:Own
        callboard controller --provision local --app app.py --resource gpu=2 --policy scale
        callboard controller --provision docker --image shop --app app.py --host-nats nats://nats:4222
        callboard controller --provision kubernetes --deployment search=shop-search --hosts 20

    Args:
        policy: A policy to follow, by name or as FILE:CLASS; the first goes before the others. It counts as
            long as nobody has said 'callboard policy set' or 'clear', which all controllers follow, and again
            after 'callboard policy reset'.
        supervised: Set by 'callboard dev'.
    """
    common.log("info")
    if supervised:
        from callboard.cli.supervised import supervised_controller

        return supervised_controller(common, policy or ())
    check(policy or ())
    provisioner = provisioning.made(common)
    from callboard.cli.serving import run_loop, serve_controller

    def on_ready(running: Controller) -> None:
        ready = "following; see what it sees with: callboard top"
        least = {} if running.fleet is None else running.fleet.least
        kept = ", ".join(f"{count} of {actor}" for actor, count in least.items())
        told = {"event": "controller_ready", "controller": running.id, "keeps": least}
        common.output.line(told, f"{ready}\nwhile it leads it keeps {kept}" if kept else ready)

    serving = serve_controller(common.settings(), on_ready, policies=policy or (), provisioner=provisioner)
    return run_loop(serving)
