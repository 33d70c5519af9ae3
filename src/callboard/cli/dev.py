"""``callboard dev``: everything on this machine, reloaded on change."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from callboard.actors.app import source_folder
from callboard.cli.arguments import Parameters
from callboard.cli.common import DEFAULTS, Common, Count, Port, Seconds
from callboard.cli.exits import Exit, UsageError, restored
from callboard.cli.policy import check
from callboard.cli.up import nats_option, start_server
from callboard.controller.dev import Broken, Sources, Supervisor, ended_by
from callboard.infra.messages.registry import ActorInfo
from callboard.infra.server import EmbeddedServer

_LOOK_EVERY = 0.5
_SUGGESTED = 3
_AFTER_GRACE = 2.0


def dev(
    *app: Annotated[str, Parameter(required=True)],
    port: Port | None = None,
    store: Path | None = None,
    reload: bool = True,
    hosts: Annotated[Count, Parameter(alias="-n")] = 1,
    gateway: bool = True,
    policy: Annotated[list[str] | None, Parameter(negative=())] = None,
    grace: Seconds = 5.0,
    common: Common = DEFAULTS,
) -> int:
    """Run an application with a server of its own, and reload it when a file is saved.

    Code that cannot be imported is shown and the old code goes on. Hosts that crash are started again.
    A gateway answers on cb.api.>, for clients that submit and wait in one round trip. With --nats or
    NATS_URL a running server is used instead of an own one.

        callboard dev app.py
        callboard dev app.py -n 3 --store ./data
        callboard dev app.py --policy srtf

    Args:
        app: A file or module, then optionally ':' and names of actors.
        port: Where the server listens on 127.0.0.1. By default 4222, or a free port if that is taken.
        store: Directory for the server's data. By default a temporary one, removed at the end.
        reload: Reload when a file is saved.
        hosts: How many host processes.
        gateway: Run a gateway, too, once the application works.
        policy: Run a controller, too, with this policy, by name or as FILE:CLASS; the first goes before the
            others.
        grace: Seconds that running calls get to finish on a reload and at the end.
    """
    common.log("warning")
    running = common.settings(default_url="").nats_url
    if running and (port is not None or store is not None):
        raise UsageError(
            f"--port and --store are for an own server, but --nats or NATS_URL says {running}: leave out "
            "the one or the other"
        )
    check(policy or ())
    work = _Dev(app, hosts, running, port, store, common, grace, policy or ())
    return asyncio.run(work.run(reload=reload, gateway=gateway))


class _Dev:
    def __init__(
        self,
        app: Sequence[str],
        hosts: int,
        running: str,
        port: int | None,
        store: Path | None,
        common: Common,
        grace: float,
        policies: Sequence[str],
    ) -> None:
        self._app = app
        self._url = running
        self._port = port
        self._store = store
        self._common = common
        self._output = common.output
        self._server: EmbeddedServer | None = None
        self._server_up = asyncio.Event()
        self._grace = grace
        self._supervisor = Supervisor(
            self._command("host", *app, *self._drains), hosts, self._address, self._tell
        )
        self._ready = asyncio.Event()
        self._gateway = Supervisor(
            self._command("gateway", *self._drains), 1, self._address, partial(self._tell_of, "gateway")
        )
        chosen = [word for policy in policies for word in ("--policy", policy)]
        self._controller = Supervisor(
            self._command("controller", *chosen), 1, self._address, partial(self._tell_of, "controller")
        )
        self._has_controller = bool(chosen)
        self._models = Supervisor(
            self._command("host", *app, "--kind", "model", *self._drains),
            1,
            self._address,
            partial(self._tell_of, "models"),
        )
        self._apart: dict[str, str] = {}
        self._apart_changing = asyncio.Lock()
        self._loading: set[asyncio.Task[None]] = set()

    @property
    def _drains(self) -> list[str]:
        return ["--grace", f"{self._grace}"]

    def _command(self, *words: str) -> list[str]:
        """A process on a leash."""
        command = [sys.executable, "-m", "callboard", *words, "--supervised"]
        level = self._common.log_level or "warning"
        return [*command, "--log-level", level, *(["--json"] if self._common.json else [])]

    async def run(self, *, reload: bool, gateway: bool) -> int:
        """Run until interrupted; returns the exit code."""
        stop = self._stop_on_signals()
        work = [asyncio.create_task(self._serve()), asyncio.create_task(self._host(reload=reload))]
        if gateway:
            work.append(asyncio.create_task(self._beside(self._gateway)))
        if self._has_controller:
            work.append(asyncio.create_task(self._beside(self._controller)))
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait((*work, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self._output.hint("draining; Ctrl-C again ends at once")
        finally:
            work += self._loading
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await asyncio.gather(*(one.stop(self._grace + _AFTER_GRACE) for one in self._all))
            if self._server is not None:
                await asyncio.to_thread(self._server.stop)
        return Exit.OK

    def _stop_on_signals(self) -> asyncio.Event:
        stop = asyncio.Event()

        def interrupt() -> None:
            if not stop.is_set():
                stop.set()
                return
            for one in self._all:
                one.kill()
            os._exit(Exit.INTERRUPTED)  # the server's keeper ends it and removes a temporary store

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        return stop

    # -- the server -----------------------------------------------------------------------------------

    async def _address(self) -> str:
        await self._server_up.wait()
        return self._url

    async def _serve(self) -> None:
        """Start the server, if it is to be ours, and start it again if somebody ends it."""
        if not self._url:
            always = self._common.settings().production
            server = await asyncio.to_thread(start_server, self._port, self._store, sync_always=always)
            self._server = server
            self._url = server.url
        self._tell("server_ready", {"url": self._url})
        self._server_up.set()
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self._server is not None and not self._server.running:
                self._tell("server_died", {"url": self._url})
                await asyncio.to_thread(self._server.start)

    # -- the hosts ------------------------------------------------------------------------------------

    async def _host(self, *, reload: bool) -> None:
        sources = Sources(self._folders)
        broken = await self._supervisor.load()
        if broken is not None and (not reload or broken.hopeless):
            raise restored(broken.code, broken.message, broken.fields)
        self._load_models()
        if not reload:
            await asyncio.Event().wait()
        async for files in sources.changes():
            self._tell("changed", {"files": files})
            await self._supervisor.load()
            self._load_models()

    def _load_models(self) -> None:
        """Serve models apart from tools; they are loaded again only if they are declared otherwise now."""
        task = asyncio.create_task(self._serve_apart())
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)

    async def _serve_apart(self) -> None:
        async with self._apart_changing:
            apart = self._supervisor.apart()
            if apart == self._apart:
                return
            if not apart:
                await self._models.stop(self._grace + _AFTER_GRACE)
            elif await self._models.load() is not None:
                return  # the next save may help
            self._apart = apart

    def _folders(self) -> set[Path]:
        return {source_folder(spec) for spec in self._app} | self._supervisor.folders()

    async def _beside(self, other: Supervisor) -> None:
        """Run a gateway or controller. They are slow to start: who waits for a first result comes first."""
        await self._ready.wait()
        await other.load()
        await asyncio.Event().wait()

    @property
    def _all(self) -> tuple[Supervisor, ...]:
        return self._controller, self._gateway, self._supervisor, self._models

    # -- telling --------------------------------------------------------------------------------------

    def _tell(self, event: str, data: dict[str, Any]) -> None:
        if event == "ready":
            self._ready.set()
        if self._output.as_json:
            self._output.line({"event": event, **data}, "")
            return
        text = self._text(event, data)
        self._output.line({}, text)
        if event == "ready":
            for line in self._next(data["actors"]):
                self._output.plain(line)

    def _tell_of(self, what: str, event: str, data: dict[str, Any]) -> None:
        if event in {"ready", "reloaded", "restarted"}:
            named = {"models": [actor.name for actor in data["actors"]]} if what == "models" else {}
            self._tell(f"{what}_ready", named)
        else:
            self._tell(f"{what}_{event}", data)

    def _text(self, event: str, data: dict[str, Any]) -> str:
        what, _, happened = event.partition("_")
        if what in {"gateway", "controller", "models"} and happened != "ready":
            return self._on_trouble(what, happened, **data)
        text: str = getattr(self, f"_on_{event}")(**data)
        return text

    def _on_server_ready(self, url: str) -> str:
        return f"[dim]server[/]    {url}"

    def _on_server_died(self, url: str) -> str:
        return f"[red]server[/]    {url} was ended by somebody; starting it again"

    def _on_ready(self, actors: list[ActorInfo]) -> str:
        return f"[bold green]ready[/]     {_listed(actors)}"

    def _on_reloaded(self, actors: list[ActorInfo]) -> str:
        return f"[green]reloaded[/]  {_listed(actors)}"

    def _on_restarted(self, actors: list[ActorInfo]) -> str:
        return "[green]restarted[/]"

    def _on_changed(self, files: list[str]) -> str:
        return f"[dim]changed[/]   {', '.join(os.path.relpath(file) for file in files)}"

    def _on_broken(self, error: Broken, *, kept: bool) -> str:
        self._output.plain(f"{error.fields.get('traceback', '')}error: {error.message}")
        return "[yellow]broken[/]    " + ("the old code goes on" if kept else "waiting for a change")

    def _on_crashed(self, code: int, retry_in: float) -> str:
        return f"[red]crashed[/]   a host {ended_by(code)}; another one starts in {retry_in:g} s"

    def _on_gateway_ready(self) -> str:
        return f"[dim]gateway[/]   nats request{self._option()} cb.api.run.WORKFLOW ARGUMENTS"

    def _on_controller_ready(self) -> str:
        return f"[dim]controller[/] callboard policy list{nats_option(self._url)}"

    def _on_models_ready(self, models: list[str]) -> str:
        return f"[dim]models[/]    {', '.join(models)}, in a process of their own"

    def _on_trouble(self, what: str, happened: str, **data: Any) -> str:
        """A gateway, a controller or the models' host has ended, or cannot be started."""
        from rich.markup import escape

        if happened == "crashed":
            told = f"{ended_by(data['code'])}; another one starts in {data['retry_in']:g} s"
        else:
            told = f"cannot be started: {data['error'].message}"
        return f"[red]{what:10}[/]{escape(told)}"

    def _option(self) -> str:
        """How NATS's own tool finds the server."""
        return nats_option(self._url).replace("--nats", "-s")

    def _next(self, actors: list[ActorInfo]) -> list[str]:
        """What can be typed now."""
        lines = []
        workflows = [actor for actor in actors if actor.kind == "workflow"]
        for workflow in workflows[:_SUGGESTED]:
            arguments = Parameters(workflow).example()
            options = " ".join(f"--{name} {_typed(value)}" for name, value in arguments.items())
            parts = ["callboard", "run", workflow.name, options, "--watch"]
            lines.append(f"  {' '.join(part for part in parts if part)}{nats_option(self._url)}")
            if len(lines) == 1:
                body = shlex.quote(json.dumps(arguments))
                lines.append(f"  nats pub{self._option()} cb.request.{workflow.name} {body}")
        return lines


def _typed(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def _listed(actors: list[ActorInfo]) -> str:
    names = {kind: [a.name for a in actors if a.kind == kind] for kind in ("workflow", "agent", "tool")}
    return "; ".join(f"{kind}s {', '.join(named)}" for kind, named in names.items() if named)
