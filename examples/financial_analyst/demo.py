"""Watch a question being answered: a NATS server, two host processes and a client. `make demo` runs it.

Nothing here is needed to use Callboard: `callboard dev app.py` and `callboard run` do the same. This
script plays the operator and tells what happens.
"""

import argparse
import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

try:
    from demo_hosts import APP, ROLES, Hosts
    from finance.model import Report
    from finance.save import save
    from rich.console import Console
    from rich.markdown import Markdown

    from callboard import CallboardError, Client, connect
    from callboard.cli.history import History
    from callboard.cli.output import Output
    from callboard.cli.watch import watch
    from callboard.infra import log
    from callboard.infra.server import EmbeddedServer
except ImportError as error:
    sys.exit(f"error: {error.name} is not installed. Run 'make demo', or: pip install -e '.[examples]'")

QUESTION = (
    "Compare AAPL and MSFT between 2004 and 2009: return, volatility, worst drawdown, against the S&P 500"
)
FOLLOW_UP = "And what about IBM?"
SESSION = "demo"
EXTRAS = ("arch", "empyrical", "matplotlib", "pandas", "statsmodels", "vega_datasets")

_PATIENCE = 60.0  # s
_LOOK_EVERY = 0.5  # s
_WIDEST = 110

screen = Console(highlight=False)
screen.width = min(screen.width, _WIDEST)


def say(what: str | Markdown) -> None:
    """Print rich markup; through `print`, so that it stands above a live table and not within."""
    with screen.capture() as captured:
        screen.print(what, soft_wrap=isinstance(what, str))
    print(captured.get(), end="", flush=True)


def title(text: str) -> None:
    """Print a heading."""
    say(f"\n[bold cyan]{text}[/]\n")


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

    async def tell(self) -> None:
        """From the start of the hosts to what can be tried next."""
        await self._introduce()
        title(f'1  "{QUESTION}"')
        say("The workflow awaits the plan only. All other calls get futures as arguments: each starts by")
        say("itself once the calls in its last column are done, and their values go straight to its host.\n")
        first = await self._ask(QUESTION, None, self._out)
        show(first.markdown)
        title(f'2  "{FOLLOW_UP}"')
        say("The same session: the plan of the first answer goes along, so the question can be short.\n")
        self._kill = None
        second = await self._ask(FOLLOW_UP, first, self._out / "follow-up")
        show(_beginning(second))
        say(f"Written: {_short(self._out)}/report.md with chart.png, and {_short(self._out)}/follow-up/")
        if self._stay:
            await self._receive()
        else:
            _what_next()

    async def _introduce(self) -> None:
        title("0  The parts: processes that know of NATS, not of each other")
        say(f"server  {self._url}  [dim]nats-server with JetStream, for this demo only[/]")
        await asyncio.gather(*(self._hosts.start(role) for role in ROLES))
        for role, does in {"agents": "5 agents and 6 tools", "driver": "the workflow"}.items():
            say(f"{self._hosts.described(role)} runs {does}  [dim]{ROLES[role].replace(',', ', ')}[/]")
        say(f"client  (pid {os.getpid()})  [dim]this script: publishes questions, waits for the answers[/]")

    async def _ask(self, question: str, previous: Report | None, folder: Path) -> Report:
        """Ask, show the futures while they run, and keep the answer."""
        arguments = {"question": question, "previous": previous.plan if previous else None}
        run = await self._client.submit("research", arguments, session=SESSION)
        report = await self._followed(run)
        save(report, folder)
        await self._sum_up(run)
        return report

    async def _followed(self, run: str) -> Report:
        """The result of a run, whose futures are shown until then."""
        tasks = [asyncio.create_task(watch(self._client, run, Output(as_json=False)))]
        if self._kill:
            tasks.append(asyncio.create_task(self._kill_in_mid_run(run, self._kill)))
        try:
            report: Report = await self._client.result(run, _PATIENCE, Report)
            await asyncio.gather(*tasks)
        finally:
            await _end(tasks)
        return report

    async def _kill_in_mid_run(self, run: str, role: str) -> None:
        """Kill a host once there are prices, and the calls that take them begin."""
        async for event in self._client.events(run):
            if event.kind == "result" and event.data["call"] == "prices.call":
                self._hosts.kill(role)
                return

    async def _sum_up(self, run: str) -> None:
        """Who did how much of a run."""
        history = History()
        async for event in self._client.events(run, follow=False):
            history.add(event)
        shares = Counter(call.host for call in history.calls.values())
        done = " and ".join(f"{number} on {host}" for host, number in shares.items())
        took = history.done["took"] if history.done else 0.0
        say(f"\n{len(history.calls)} calls in {took:.1f} s: {done}.")
        if len(shares) > 1:
            say("What the dead host had finished was kept, what it had begun ran again on the new one.")
        if len(history.owners) > 1:
            say("The new driver replayed the run from its journal: no finished call ran again.")

    async def _receive(self) -> None:
        """Show the runs that others submit until somebody ends this."""
        _offer(self._url, self._hosts.pid("agents"))
        seen = {summary.run for summary in await self._client.runs()}
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for run in sorted({summary.run for summary in await self._client.runs()} - seen):
                seen.add(run)
                title(f"Somebody asks: run {run}")
                try:
                    show(_beginning(await self._followed(run)))
                except CallboardError as error:
                    say(f"[red]{error.__cause__ or error}[/]")


def show(markdown: str) -> None:
    """Print a report: formatted on a terminal, as it is elsewhere."""
    if screen.is_terminal:
        say(Markdown(f"\n---\n{markdown}\n---\n"))
    else:
        print(f"\n{markdown}", flush=True)


def _beginning(report: Report) -> str:
    """The summary and the figures."""
    return "\n## ".join(report.markdown.split("\n## ")[:2]) + "\n"


def _what_next() -> None:
    title("What next")
    say("make demo ARGS=--kill  [dim]# kill -9 the agents' host in mid-run, and the run completes[/]")
    say("make demo ARGS=--stay  [dim]# it stays up: publish your own questions, kill hosts at will[/]")
    say(f"{_callboard()} dev {_short(APP)}  [dim]# without this script; reloads when you save[/]")


def _offer(url: str, pid: int) -> None:
    body = shlex.quote(json.dumps({"question": "How did Google do since 2005?"}))
    title("All this is up until Ctrl-C. From another terminal:")
    say(f'{_callboard()} run research --question "IBM in 2008" --watch --nats {url}')
    say(f"nats pub -s {url} cb.request.research {body}  [dim]# or from any NATS client[/]")
    say(f"kill -9 {pid}  [dim]# the agents' host; do it while a run is on[/]")
    say(f"{_callboard()} host {_short(APP)}:StockAnalyst --nats {url}  [dim]# one more of these[/]")
    say(f"{_callboard()} runs --nats {url}  [dim]# then: show RUN; actors; doctor[/]")


def _short(path: Path) -> str:
    """As one would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _callboard() -> str:
    """How to type the command here."""
    beside = Path(sys.executable).with_name("callboard")
    return "callboard" if shutil.which("callboard") == str(beside) else _short(beside)


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
    return parser.parse_args()


def main() -> int:
    """Run the demo; returns the exit code."""
    options = read_options()
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        sys.exit(f"error: no {', '.join(missing)} here. Run 'make demo', or: pip install -e '.[examples]'")
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
        sys.exit(f"error: {error.__cause__ or error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
