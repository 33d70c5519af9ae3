"""``callboard host --model``, and what models say in ``callboard run --watch``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.terminal import Running, Typed

from callboard.actors.listening import Piece
from callboard.actors.models.types import Price
from callboard.cli.exits import Exit
from callboard.cli.models import served_model
from callboard.cli.saying import Saying
from callboard.infra.server import EmbeddedServer

STANDIN = Path(__file__).parents[1] / "support" / "standin.py"
APP = """
from callboard import model, workflow

@workflow
async def ask(text: str) -> str:
    return (await model("writer").chat(text)).text
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    """The address of a stand-in for an engine, a process of its own."""
    line = [sys.executable, str(STANDIN), "--port", "0", "--pace", "0.1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


@pytest.fixture(scope="module")
def models(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a host that has an application and serves a model."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "asking.py").write_text(APP)
    with EmbeddedServer() as server:
        more = ("--model", "writer", "--url", engine, "--json")
        with Running("host", "asking.py", *more, url=server.url, cwd=folder) as host:
            assert '"actors":["ask","writer"]' in host.until('"event":"host_ready"')
            yield server.url


def test_a_model_beside_an_application(models: str, typed: Typed) -> None:
    """Its workflows find it; it is listed as what it is."""
    assert typed("run", "ask", "--text", "to be", url=models).out == "to be \n"
    listed = {row["name"]: row for row in typed("actors", "--json", url=models).json}
    assert (listed["writer"]["kind"], listed["writer"]["methods"]) == ("model", ["chat", "complete", "embed"])


def test_tools_beside_a_model(engine: str, nats_url: str, tmp_path: Path) -> None:
    """The log says which, and how to start them apart."""
    (tmp_path / "tooled.py").write_text(
        f"from callboard import tool\n{APP}\n@tool\nasync def f() -> None: ...\n"
    )
    more = ("--model", "writer", "--url", engine, "--json")
    with Running("host", "tooled.py", *more, url=nats_url, cwd=tmp_path) as host:
        warned = host.until("tools_beside_model")
        assert "callboard host tooled.py" in warned
        assert "callboard host --model writer" in warned


def test_a_model_alone(engine: str, nats_url: str) -> None:
    """No application is needed."""
    with Running("host", "--model", "writer", "--url", engine, "--json", url=nats_url) as host:
        assert '"actors":["writer"]' in host.until('"event":"host_ready"')


def test_watching(models: str, typed: Typed) -> None:
    """What is said stands on stderr with its call, and in JSON lines."""
    ran = typed("run", "ask", "--text", "to be or not", "--watch", url=models)
    assert "1        | to be or not \n" in ran.err
    lines = typed("run", "ask", "--text", "to be", "--watch", "--json", url=models).lines
    said = [line for line in lines if line.get("event") == "tokens"]
    assert "".join(line["text"] for line in said) == "to be "
    assert said[-1]["done"] is True


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "nothing to host"),
        (("--url", "http://127.0.0.1:1/v1"), "--url needs the name of a model"),
        (("--model", "writer"), "--model writer needs one engine"),
        (("--model", "writer", "--url", "http://x/v1", "--vllm", "m"), "--model writer needs one engine"),
        (("--model", "writer", "--vllm", "m", "--api-key-env", "K"), "--api-key-env cannot go with --vllm"),
        (
            ("--model", "writer", "--url", "http://x/v1", "--kv-events"),
            "--kv-events cannot go with --url",
        ),
        (
            ("--model", "writer", "--url", "http://x/v1", "--vllm-arg=--a=1"),
            "--vllm-arg cannot go with --url",
        ),
        (("--model", "writer", "--url", "localhost:8000/v1"), "--url localhost:8000/v1 is no address"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], told: str, typed: Typed) -> None:
    """Are told before anything starts."""
    ran = typed("host", *options)
    assert ran.code == Exit.USAGE
    assert told in ran.err


def test_lines() -> None:
    """A line is told when it is complete; what begins anew is marked."""
    saying = Saying()
    assert saying.lines(Piece("one\ntw", "r:1")) == ["1        | one"]
    assert saying.lines(Piece("anew", "r:1", attempt=2, reset=True)) == [
        "1        | ...",
        "1        | (begins anew, attempt 2)",
    ]
    assert saying.lines(Piece(" end", "r:1", done=True)) == ["1        | anew end"]
    assert saying.open == {}


def test_last_words() -> None:
    """For a live table: the end of each answer that is given now."""
    saying = Saying()
    saying.take(Piece("some long story\nthat goes on", "r:1"))
    saying.take(Piece("x", "r:2"))
    assert saying.last(30, 5) == ["1 | story that goes on", "2 | x"]
    saying.take(Piece("", "r:1", done=True))
    assert saying.last(30, 5) == ["2 | x"]


def test_a_price(typed: Typed) -> None:
    """Two amounts; anything else is refused, as is one without a model."""
    served = served_model("m", "http://127.0.0.1:9/v1", None, None, None, None, "0.15,0.6")
    assert served is not None
    assert served.price == Price(0.15, 0.6)
    for wrong in ("1", "1,x", "1,-2", "1,2,3", "nan,1"):
        told = typed("host", "--model", "m", "--url", "http://127.0.0.1:9/v1", "--price", wrong)
        assert (told.code, "give INPUT,OUTPUT in dollars" in " ".join(told.err.split())) == (Exit.USAGE, True)
    assert "--price needs the name of a model" in typed("host", "--price", "1,2").err
