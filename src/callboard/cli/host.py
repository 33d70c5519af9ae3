"""``callboard host``: run actors and drive workflows in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common, Seconds
from callboard.cli.exits import UsageError

if TYPE_CHECKING:
    from callboard.actors.host import Host

Kind = Literal["agent", "model", "tool", "workflow"]


def host(
    *app: str,
    kind: Annotated[list[Kind] | None, Parameter(negative=())] = None,
    name: str = "",
    model: str | None = None,
    url: str | None = None,
    api_key_env: str | None = None,
    engine_model: str | None = None,
    priorities: Annotated[bool, Parameter(negative=())] = False,
    continues: Annotated[bool, Parameter(negative=())] = False,
    price: str | None = None,
    vllm: str | None = None,
    vllm_arg: Annotated[list[str] | None, Parameter(negative=(), allow_leading_hyphen=True)] = None,
    kv_events: Annotated[bool, Parameter(negative=())] = False,
    grace: Seconds | None = None,
    resource: Annotated[list[str] | None, Parameter(negative=())] = None,
    mcp: Annotated[list[str] | None, Parameter(negative=())] = None,
    mcp_env: Annotated[list[str] | None, Parameter(negative=())] = None,
    mcp_timeout: Seconds = 300.0,
    supervised: Annotated[bool, Parameter(show=False)] = False,
    provisioned: Annotated[bool, Parameter(show=False)] = False,
    common: Common = DEFAULTS,
) -> int:
    """Run the actors and workflows of an application, serve a model, adopt the tools of MCP servers.

    It ends gently on SIGTERM and Ctrl-C: takes nothing new, gives back what has not started, finishes
    what has. A second Ctrl-C ends it at once.

        callboard host app.py --nats nats://10.0.0.1:4222
        callboard host app.py:StockAnalyst,prices
        callboard host shop.agents shop.tools:search
        callboard host app.py --kind tool
        callboard host shop.models --resource gpu=2 --resource memory_gb=64
        callboard host --model writer --url http://127.0.0.1:8000/v1
        callboard host --model writer --vllm Qwen/Qwen2.5-7B-Instruct --vllm-arg=--max-model-len=4096
        callboard host --mcp "python -m mcp_server_time" --mcp docs=https://tools.example.org/mcp

    Args:
        app: A file or module, then optionally ':' and names of actors. Tools never run in the process of a
            model: where an application has both, its models are left to another host ('--kind model').
        kind: Only the application's actors of this kind; may be given again.
        name: A name that stays when this host is started again: routes may give it in place of the id. No two
            living hosts have the same one; one that was killed is free after a second.
        model: Serve a model under this name: what callboard.model("NAME") calls.
        url: Where its engine is: a server with the OpenAI API, up to and with /v1.
        api_key_env: The environment variable that holds the engine's key.
        engine_model: The engine's name of the model. By default the only one that it lists, or NAME.
        priorities: The engine takes vLLM's field 'priority', since it runs with --scheduling-policy priority:
            urgent calls go first there, too. With --vllm that is so anyway.
        continues: The engine takes vLLM's field 'continue_final_message': an answer that breaks off goes on
            there when it is tried again. With --vllm that is so anyway.
        price: What budgets are charged for it, INPUT,OUTPUT in dollars for a million tokens.
        vllm: Run vLLM for it, with this model or path; it is started again if it dies.
        vllm_arg: An argument of the vLLM server, as --vllm-arg=--NAME=VALUE; may be given again.
        kv_events: Have vLLM tell of its prefix cache: so the policy prefix_cache sends no calls after what it
            has dropped.
        grace: Seconds that running calls get to finish on draining.
        resource: What this host has, as gpu=2; may be given again. By default CALLBOARD_RESOURCES, and cpu
            and memory_gb of the machine. An actor that needs more is left out, unless it is named.
        mcp: An MCP server whose tools become an actor: a command line, or an http(s) address; NAME= before it
            names the actor. May be given again, and without an application.
        mcp_env: An environment variable that MCP servers started here may see, such as an API key. By default
            they get PATH, HOME and the like only.
        mcp_timeout: Seconds that a call of a tool may take.
        supervised: Set by 'callboard dev' and 'callboard controller'.
        provisioned: Set by 'callboard controller'.
    """
    common.log("info")
    from callboard.infra.settings import amounts

    if name and supervised:
        raise UsageError("a supervised host has no name of its own: its processes come and go")
    has = amounts(resource) if resource else None
    if supervised:
        from callboard.cli.supervised import supervised as on_leash

        return on_leash(app, common, grace, has, kind or (), provisioned=provisioned)
    from callboard.actors.app import load_all
    from callboard.actors.resources import Placed, place_app
    from callboard.cli.models import served_model
    from callboard.cli.serving import run_loop, serve

    served = served_model(
        model,
        url,
        api_key_env,
        engine_model,
        vllm,
        vllm_arg,
        price,
        priorities=priorities,
        continues=continues,
        kv_events=kv_events,
    )
    if not (app or mcp or served):
        raise UsageError(
            "there is nothing to host: name an application, an MCP server (--mcp), or a model (--model with "
            "--url or --vllm)"
        )
    settings = common.settings(grace=grace, resources=has)

    def on_ready(started: Host) -> None:
        actors = [declared.name for declared in started.declarations]
        common.output.line({"event": "host_ready", "host": started.id, "actors": actors}, "")

    own = [served] if served is not None else []
    if any(one.name == declared.name for one in own for declared in load_all(app)):
        raise UsageError(f"the application has an actor {model!r}: give --model another name")
    placed = place_app(app, settings, kind or (), own) if app else Placed(list(own), [])
    adopted = None
    if mcp:
        from callboard.cli.mcp import adopting

        adopted = adopting(mcp, mcp_env or [], mcp_timeout)
    return run_loop(serve(placed, settings, on_ready, adopted=adopted, name=name))
