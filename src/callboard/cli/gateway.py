"""``callboard gateway``: one round trip for clients that want no more than request and reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common, Seconds

if TYPE_CHECKING:
    from callboard.actors.gateway import Gateway


def gateway(
    *,
    wait: Seconds = 30.0,
    grace: Seconds | None = None,
    describe: Annotated[bool, Parameter(negative=())] = False,
    supervised: Annotated[bool, Parameter(show=False)] = False,
    common: Common = DEFAULTS,
) -> int:
    """Answer requests on cb.api.VERB.NAME: submit and wait in one round trip, from any NATS client.

    Start as many as wanted; they share the requests.

        callboard gateway
        nats request cb.api.run.research '{"question": "..."}'
        callboard gateway --describe > asyncapi.json

    Args:
        wait: Seconds to wait for the end of a run where a request has no deadline.
        grace: Seconds that waiting requests get on draining; then they are told that their runs go on.
        describe: Print the AsyncAPI document of these subjects, and end.
        supervised: Set by 'callboard dev'.
    """
    common.log("info")
    if supervised:
        from callboard.cli.supervised import supervised_gateway

        return supervised_gateway(common, wait, grace)
    settings = common.settings(grace=grace)
    if describe:
        import msgspec

        from callboard.actors.gateway import Gateway

        print(msgspec.json.format(msgspec.json.encode(Gateway(settings).asyncapi())).decode())  # noqa: T201
        return 0
    from callboard.cli.serving import run_loop, serve_gateway

    def on_ready(running: Gateway) -> None:
        ready = "answering on cb.api.>; try: nats request cb.api.actors.all ''"
        common.output.line({"event": "gateway_ready", "gateway": running.id}, ready)

    return run_loop(serve_gateway(settings, wait, on_ready))
