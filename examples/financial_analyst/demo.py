"""Watch a question being answered: a NATS server, two host processes and a client. `make demo` runs it.

Nothing here is needed to use Callboard: `callboard dev app.py` and `callboard run` do the same. This
script plays the operator and tells what happens.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_HELP = "Run 'make demo', or: pip install -e '.[examples]'"

try:
    import demo_screen
    from demo_hosts import APP, MODEL, ROLES, Engine, Hosts
    from demo_screen import say, title, typed
    from finance.model import Report
    from finance.save import save
    from rich.text import Text

    from callboard import CallboardError, Client, connect
    from callboard.cli.history import History
    from callboard.cli.output import Output
    from callboard.cli.watch import watch
    from callboard.infra import log
    from callboard.infra.server import EmbeddedServer
except ImportError as error:
    sys.exit(f"error: {error}. {_HELP}")

QUESTION = (
    "Compare AAPL and MSFT between 2004 and 2009: return, volatility, worst drawdown, against the S&P 500"
)
FOLLOW_UP = "And what about IBM?"
SESSION = "demo"
EXTRAS = ("arch", "empyrical", "matplotlib", "pandas", "statsmodels", "vega_datasets")

_PATIENCE = 60.0  # s
_PATIENCE_WITH_MODEL = 900.0  # s; a small model on a busy machine says few words in a second
_LOOK_EVERY = 0.5  # s


class Demo:
    """The story that is told.

    Args:
        client: connected.
        hosts: none of them started.
        url: of the server.
        options: of the command line.
    """

    def __init__(self, client: Client, hosts: Hosts, url: str, options: argparse.Namespace) -> None:
        self._client = client
        self._hosts = hosts
        self._url = url
        self._out: Path = options.out
        self._kill: str | None = options.kill
        self._stay: bool = options.stay
        self._engine = _engine(options)

    async def tell(self) -> None:
        """From the start of the hosts to what can be tried next."""
        await self._introduce()
        title(f'2. The question: "{QUESTION}"')
        say("Calls give futures. The workflow awaits the plan and passes the others on as arguments: each")
        say("call begins by itself when those are done whose numbers stand at the end of its line.\n")
        first = await self._ask(QUESTION, None, self._out)
        demo_screen.report(first.markdown, f"{typed(self._out)}/report.md")
        title(f'3. The follow-up in the same session: "{FOLLOW_UP}"')
        say("The plan of the first answer goes along, so that the question can be short.\n")
        second = await self._ask(FOLLOW_UP, first, self._out / "follow-up")
        demo_screen.report(_beginning(second.markdown), f"{typed(self._out)}/follow-up/report.md begins")
        say(Text(f"Both reports and their charts are in {typed(self._out)}."))
        if self._stay:
            await self._receive()
        else:
            demo_screen.what_next(APP)

    async def _introduce(self) -> None:
        title("1. The parts: processes that know the NATS server, not each other")
        starts = [self._hosts.start(role) for role in ROLES]
        if self._engine is not None:
            starts.append(self._hosts.start_model(self._engine))
        await asyncio.gather(*starts)
        demo_screen.parts(
            [
                ("server", self._url, "nats-server with JetStream, for this demo only"),
                ("host", self._hosts.described("agents"), "runs 5 agents and 6 tools"),
                ("host", self._hosts.described("driver"), "drives the workflow 'research'"),
                *self._model_part(),
                ("client", f"(pid {os.getpid()})", "this script: publishes questions, waits for answers"),
            ]
        )

    def _model_part(self) -> list[tuple[str, str, str]]:
        if self._engine is None:
            return []
        engine = f"at {self._engine.url}" if "://" in self._engine.url else "on vLLM"
        return [("host", self._hosts.described(MODEL), f"serves the model '{MODEL}' {engine}")]

    async def _ask(self, question: str, previous: Report | None, folder: Path) -> Report:
        """Ask, show the futures while they run, and keep the answer."""
        arguments: dict[str, Any] = {"question": question, "previous": previous.plan if previous else None}
        if self._engine is not None:
            arguments["model"] = MODEL
        run = await self._client.submit("research", arguments, session=SESSION)
        report: Report = await self._followed(run, Report, None if previous else self._kill)
        save(report, folder)
        await self._sum_up(run)
        return report

    async def _followed(self, run: str, kind: Any, kill: str | None = None) -> Any:
        """The result of a run, whose futures are shown until then."""
        tasks = [asyncio.create_task(watch(self._client, run, Output(as_json=False)))]
        if kill:
            tasks.append(asyncio.create_task(self._kill_in_mid_run(run, kill)))
        try:
            patience = _PATIENCE if self._engine is None else _PATIENCE_WITH_MODEL
            result = await self._client.result(run, patience, kind)
            await asyncio.gather(*tasks)
        finally:
            await _end(tasks)
        return result

    async def _kill_in_mid_run(self, run: str, role: str) -> None:
        """Kill a host once there are prices, and the calls that take them begin."""
        async for event in self._client.events(run):
            if event.kind == "result" and event.data["call"] == "prices.call":
                self._hosts.kill(role)
                return

    async def _sum_up(self, run: str) -> None:
        """Who did how much of a run."""
        history = History()
        times = []
        async for event in self._client.events(run, follow=False):
            history.add(event)
            times.append(event.at)
        shares = Counter(call.host for call in history.calls.values())
        done = " and ".join(f"{number} on host {host}" for host, number in shares.items())
        say(f"\n{len(history.calls)} calls in {times[-1] - times[0]:.1f} s: {done}.")
        if len({call.host for call in history.calls.values() if not call.name.startswith(f"{MODEL}.")}) > 1:
            say("What the dead host had finished was kept; what it had begun ran again on the new one.")
        if len(history.owners) > 1:
            say("The new driver replayed the run from its journal and went on where the dead one was.")

    async def _receive(self) -> None:
        """Show the runs that others submit until somebody ends this."""
        demo_screen.offer(self._url, APP, self._hosts.pid("agents"))
        seen = {summary.run for summary in await self._client.runs()}
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for run in sorted({summary.run for summary in await self._client.runs()} - seen):
                seen.add(run)
                title("Somebody asks")
                try:
                    report = await self._followed(run, dict[str, Any])
                    demo_screen.report(_beginning(report["markdown"]), f"the answer of run {run} begins")
                except CallboardError as error:
                    say(Text(str(error), style="red"))


def _beginning(markdown: str) -> str:
    """The summary and the figures."""
    return "\n## ".join(markdown.split("\n## ")[:2]) + "\n"


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def play(server: EmbeddedServer, options: argparse.Namespace) -> None:
    """Tell the story, while hosts that die are replaced."""
    hosts = Hosts(server.url, server.store_dir, say)
    async with connect(server.url) as client:
        story = asyncio.create_task(Demo(client, hosts, server.url, options).tell())
        tasks = [story, asyncio.create_task(hosts.replace_the_dead())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _end(tasks)
            await hosts.stop()


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Ask a financial analyst made of agents, and watch it work.")
    out, kill, stay = (
        "folder for the reports (default: %(default)s)",
        "kill -9 a host in mid-run (default: agents) and see the run complete",
        "stay up until Ctrl-C, for questions and kills of your own",
    )
    parser.add_argument("--out", type=Path, default=Path("callboard-demo"), metavar="DIR", help=out)
    parser.add_argument("--kill", nargs="?", const="agents", choices=ROLES, help=kill)
    parser.add_argument("--stay", action="store_true", help=stay)
    model, python, option = (
        "a model plans and writes: the URL of a server with the OpenAI API, or a model's folder for vLLM",
        "the interpreter that has vLLM (default: this one)",
        "a further option of 'callboard host --model', as --model-option=--api-key-env=KEY; may be repeated",
    )
    parser.add_argument("--model", metavar="URL", help=model)
    parser.add_argument("--model-python", default=sys.executable, metavar="PYTHON", help=python)
    parser.add_argument("--model-option", action="append", default=[], metavar="OPTION", help=option)
    return parser.parse_args()


def _engine(options: argparse.Namespace) -> Engine | None:
    if not options.model:
        return None
    at = options.model if "://" in options.model else str(Path(options.model).absolute())
    return Engine(at, str(Path(options.model_python).absolute()), tuple(options.model_option))


def main() -> int:
    """Run the demo; returns the exit code."""
    options = read_options()
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        sys.exit(f"error: {', '.join(missing)} not installed. {_HELP}")
    log.configure("error")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        with EmbeddedServer() as server:
            asyncio.run(play(server, options))
    except KeyboardInterrupt:
        say("\nended")
        return 0 if options.stay else 130
    except (CallboardError, OSError) as error:
        sys.exit(f"error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
