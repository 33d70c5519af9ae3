"""The demo as `make demo` runs it: a process of its own, which starts others and leaves none."""

import asyncio
import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import app
import demo
import demo_hosts
import matplotlib.image
import msgspec
import psutil
import pytest
from tests.examples.financial_analyst.own import check_figures
from tests.support import standin

from callboard import connect
from callboard.actors.declared import declaration

ENDS_WITHIN = 100.0  # s; it takes about four where nothing else runs
GONE_WITHIN = 15.0  # s
MARK = "CALLBOARD_DEMO_TEST"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Running:
    """The demo, started; whatever it starts is known by a mark in the environment.

    Args:
        folder: for its reports and its temporary files.
        arguments: of its command line.
        terminal: whether it prints to one.
    """

    def __init__(self, folder: Path, *arguments: str, terminal: bool = False) -> None:
        self.out = folder / "out"
        self.output = ""
        self._tmp = folder / "tmp"
        self._tmp.mkdir()
        self._ends = time.monotonic() + ENDS_WITHIN
        self._source, sink = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(sink, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 110, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, demo.__file__, "--out", str(self.out), *arguments],
            env=kept | {MARK: str(folder), "TMPDIR": str(self._tmp), "TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
        os.close(sink)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()
        os.close(self._source)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed something."""
        while not (found := re.search(pattern, self.output)):
            assert self._read(), f"ended without {pattern!r}:\n{self.output}"
        return found

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        while self._read():
            pass
        return self.process.wait(ENDS_WITHIN)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._source], [], [], max(0.0, self._ends - time.monotonic()))
        assert ready, f"silent for too long:\n{self.output}"
        try:
            data = os.read(self._source, 65536)
        except OSError as error:  # what a terminal gives in place of the end
            if error.errno != errno.EIO:
                raise
            return False
        self.output += _ESCAPES.sub("", data.decode(errors="replace"))
        return bool(data)

    def left(self) -> list[psutil.Process]:
        """All processes that it has started, and those that they have, as long as they live."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.out.parent):
                    found.append(process)
        return found

    def check_nothing_is_left(self, within: float = GONE_WITHIN) -> None:
        """Neither processes nor temporary files, after a time of grace."""
        ends = time.monotonic() + within
        while self.left() and time.monotonic() < ends:
            time.sleep(0.05)
        assert self.left() == []
        assert list(self._tmp.iterdir()) == []


def check_reports(out: Path) -> None:
    """The figures against another computation, the pictures by reading them, the rest by the local mode."""
    first = app.research.run_local(demo.QUESTION)
    second = app.research.run_local(demo.FOLLOW_UP, previous=first.plan)
    for folder, report, names in (
        (out, first, ("AAPL", "MSFT", "S&P 500")),
        (out / "follow-up", second, ("IBM", "S&P 500")),
    ):
        markdown = (folder / "report.md").read_text("utf-8")
        for name in names:
            check_figures(markdown, name, (2004, 1), (2009, 12))
        assert markdown == report.markdown
        assert report.chart is not None
        picture = matplotlib.image.imread(folder / "chart.png")
        assert picture.shape[:2] == (report.chart.height, report.chart.width)
        assert picture[:, :, :3].std() > 0.05  # something is drawn on it


@pytest.mark.slow
def test_it_answers_a_question_and_a_follow_up_and_leaves_nothing(tmp_path: Path) -> None:
    """By itself; each call is a line, with what it waited for."""
    with Running(tmp_path) as run:
        assert run.wait() == 0, run.output
        run.check_nothing_is_left()
    check_reports(run.out)
    assert re.search(r"chart\.call +waiting +for 6, 7, 5\n", run.output)
    assert re.search(r"chart\.call +done +on h-\w+", run.output)
    assert (run.out / "report.md").read_text("utf-8") in run.output
    assert "\n20 calls in " in run.output
    assert "What next" in run.output


@pytest.mark.slow
def test_a_model_plans_and_writes(tmp_path: Path) -> None:
    """What it says is heard; a plan that is none is replaced, visibly."""
    line = [sys.executable, str(standin.__file__), "--port", "0", "--pace", "0.02"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        try:
            url = engine.stdout.readline().strip()
            with Running(tmp_path, "--model", url) as run:
                assert run.wait() == 0, run.output
        finally:
            engine.terminate()
    assert f"serves the model 'analyst' at {url}" in run.output
    assert re.search(r"20\.1 +\| .*Facts: ", run.output)  # the stand-in repeats what it is told
    assert (
        "> **Note.** The model's plan was not used: the model's answer does not fit the schema" in run.output
    )
    assert "Written by the model analyst" in run.output
    assert "What the dead host had finished" not in run.output


@pytest.mark.slow
def test_on_a_terminal_it_shows_a_table_and_formatted_reports(tmp_path: Path) -> None:
    """Frames and columns in the place of Markdown."""
    with Running(tmp_path, terminal=True) as run:
        assert run.wait() == 0, run.output
        run.check_nothing_is_left()
    check_reports(run.out)
    assert re.search(r"call +state +host +waited +took +after", run.output)
    assert re.search(r"19 +chart\.call +done +h-\w+ .* 6, 7, 5", run.output)
    assert "╭" in run.output
    assert "| --- |" not in run.output


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize(
    ("role", "says", "terminal"),
    [
        ("agents", "what it had begun ran again on the new one", True),
        ("driver", "replayed the run from its journal", False),
    ],
)
def test_a_host_killed_in_mid_run_is_replaced_and_the_run_completes(
    tmp_path: Path, role: str, says: str, *, terminal: bool
) -> None:
    """With the same answer, and the story is told in its order."""
    with Running(tmp_path, "--kill", role, terminal=terminal) as run:
        assert run.wait() == 0, run.output
        run.check_nothing_is_left()
    check_reports(run.out)
    assert re.search(r"kill -9 +host (h-\w+)[\s\S]+dead +host \1[\s\S]+here +host h-", run.output)
    assert says in run.output


async def publish(url: str, question: str) -> None:
    """Ask as any NATS client can: plain JSON, no headers."""
    async with connect(url) as client:
        client.node.connection.publish("cb.request.research", msgspec.json.encode({"question": question}))
        await client.node.connection.flush()


@pytest.mark.slow
@pytest.mark.fault
def test_it_stays_for_the_questions_and_kills_of_others(tmp_path: Path) -> None:
    """Until Ctrl-C, which ends everything."""
    with Running(tmp_path, "--stay") as run:
        url = run.until(r"actors --nats (nats://\S+)\n")[1]
        asyncio.run(publish(url, "IBM in 2008"))
        run.until(r"\n# IBM in 2008\n[\s\S]+Worst drawdown")
        asyncio.run(publish(url, "How did TSLA do?"))
        run.until("There are no prices for 'TSLA'")
        os.kill(int(run.until(r"\nkill -9 (\d+)")[1]), signal.SIGKILL)
        run.until(r"dead +host")
        asyncio.run(publish(url, "GOOG in 2008, no chart"))
        run.until(r"\n# GOOG in 2008, no chart\n[\s\S]+Worst drawdown")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 0, run.output
        run.check_nothing_is_left()


@pytest.mark.slow
@pytest.mark.fault
def test_killed_itself_it_leaves_nothing_either(tmp_path: Path) -> None:
    """The server and the hosts end with it."""
    with Running(tmp_path, "--stay") as run:
        run.until("until Ctrl-C")
        assert len(run.left()) > 3
        run.process.kill()
        run.process.wait()
        run.check_nothing_is_left()


def test_interrupted_early_it_ends_with_an_exit_code_of_its_own(tmp_path: Path) -> None:
    """In mid-run, with calls that are not over."""
    with Running(tmp_path) as run:
        run.until(r"Analyst\.plan")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 130, run.output
        run.check_nothing_is_left()


def test_without_what_it_needs_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether nothing is installed or only the data are missing."""
    bare = subprocess.run(
        [sys.executable, "-S", demo.__file__],
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDS_WITHIN,
    )
    assert bare.returncode == 1
    assert "make demo" in bare.stderr
    assert "pip install -e '.[examples]'" in bare.stderr
    monkeypatch.setattr(demo, "EXTRAS", ("pandas", "no_such_package"))
    monkeypatch.setattr(sys, "argv", ["demo.py"])
    with pytest.raises(SystemExit, match=r"error: no_such_package not installed\. Run 'make demo'"):
        demo.main()


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    """With the reason."""
    (tmp_path / "out").write_text("a file")
    with Running(tmp_path) as run:
        assert run.wait() == 1
    assert run.output.startswith("error: ")
    assert "out" in run.output


def test_each_actor_of_the_application_has_its_host() -> None:
    """None is forgotten when one is added."""
    declared = [name for name, value in vars(app).items() if declaration(value) is not None]
    hosted = [name for names in demo_hosts.ROLES.values() for name in names.split(",")]
    assert sorted(hosted) == sorted(declared)
