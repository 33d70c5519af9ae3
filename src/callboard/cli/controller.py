"""``callboard controller``: see what all hosts do, and lead or stand by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callboard.cli.common import DEFAULTS, Common

if TYPE_CHECKING:
    from callboard.controller.controller import Controller


def controller(*, policy: list[str] | None = None, common: Common = DEFAULTS) -> int:
    """Follow what hosts and drivers tell, and keep the table of run times.

    Start two: one leads, the other takes over within two seconds. Without any, calls run as before.

        callboard controller --nats nats://10.0.0.1:4222
        callboard controller --policy srtf --policy my_policies.py:Own

    Args:
        policy: A policy to follow, by name or as FILE:CLASS; the first goes before the others. It counts as
            long as nobody has said 'callboard policy set', which all controllers follow.
    """
    common.log("info")
    from callboard.cli.serving import run_loop, serve_controller

    def on_ready(running: Controller) -> None:
        ready = "following; see what it sees with: callboard top"
        common.output.line({"event": "controller_ready", "controller": running.id}, ready)

    return run_loop(serve_controller(common.settings(), on_ready, policies=policy or ()))
