"""``callboard controller --provision``: what its options need of each other, and what is told of decisions."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.terminal import Running, Typed

APP = """
from callboard import tool, workflow

@tool(min_instances=1)
async def here(number: int) -> int:
    return number

@workflow
async def ask() -> int:
    return await here(1)
"""


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (("--provision", "local"), "--app"),
        (("--provision", "docker", "--app", "app.py"), "--image"),
        (("--provision", "docker", "--image", "shop"), "--app"),
        (("--provision", "kubernetes", "--hosts", "3"), "--deployment"),
        (("--provision", "kubernetes", "--deployment", "a=b"), "--hosts"),
        (("--hosts", "3"), "--provision"),
        (("--app", "app.py", "--namespace", "shop"), "--namespace"),
        (("--app", "app.py", "--network", "board"), "--network"),
        (("--app", "app.py", "--hosts", "-1"), "--hosts"),
        (("--app", "app.py", "--resource", "gpu"), "gpu"),
        (("--provision", "kubernetes", "--hosts", "3", "--deployment", "search"), "NAME=VALUE"),
        (("--provision", "docker", "--image", "i", "--app", "a.py", "--app", "b.py"), "one --app"),
        (("--provision", "docker", "--image", "i", "--app", "a.py"), "--host-nats"),
    ],
)
def test_options_that_do_not_fit(options: tuple[str, ...], missing: str, typed: Typed) -> None:
    """Each is told with what is missing, before anything starts."""
    told = typed("controller", *options, url="nats://127.0.0.1:9")
    assert told.code == 2
    assert missing in told.err
    assert "Traceback" not in told.err


def test_an_application_that_is_not_there(nats_url: str, typed: Typed) -> None:
    """The controller ends, and says so."""
    told = typed("controller", "--app", "nothing.py", url=nats_url)
    assert told.code == 4
    assert "no application at nothing.py" in told.err


def test_hosts_are_started_and_told_of(nats_url: str, typed: Typed, tmp_path: Path) -> None:
    """With what ``--help`` says; they end with their controller."""
    (tmp_path / "app.py").write_text(APP)
    assert typed("policy", "log", url=nats_url).out == "no decisions\n"
    with Running("controller", "--app", "app.py", "--json", url=nats_url, cwd=tmp_path) as controller:
        controller.until('"event": "provisioned"')
        controller.until('"event": "host_ready"')
        told = typed("policy", "log", url=nats_url).out
        assert "provision here at " in told
        assert "min_instances is 1, and there are 0" in told
        (made,) = typed("policy", "log", "--what", "provision", "--json", url=nats_url).json
        assert made["decision"]["policy"] == "callboard"
        assert typed("policy", "log", "--what", "kill", "--json", url=nats_url).json == []
        assert [one["name"] for one in typed("actors", "--json", url=nats_url).json] == ["here"]
    assert '"event": "stopped"' in controller.output


def test_other_decisions_are_told_in_words(nats_url: str, typed: Typed, tmp_path: Path) -> None:
    """Routes and priorities, and that they end."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "own.py").write_text(
        "from callboard.controller.policy import Policy\n"
        "class Own(Policy):\n"
        "    'Mine.'\n"
        "    every = 0.05\n"
        "    def decide(self, view, act):\n"
        "        act.set_priority('chat/7', 3)\n"
        "        act.set_priority('chat/7', -2, 'here')\n"
        "        act.admit('flow', 0.5)\n"
        "        hosts = [view.hosts.keys[row] for row in view.hosts.rows]\n"
        "        act.route('here', hosts, [2.0] * len(hosts))\n"
    )
    with (
        Running("host", "app.py", "--json", url=nats_url, cwd=tmp_path) as host,
        Running("controller", "--policy", "own.py:Own", "--json", url=nats_url, cwd=tmp_path),
    ):
        host.until('"event":"host_ready"')
        told = ""
        while "route here: h-" not in told:
            told = typed("policy", "log", url=nats_url).out
        assert "priority chat/7: 3" in told
        assert "priority chat/7 at here: -2" in told
        assert "admit flow: 0.5 a second" in told
        assert "Mine." in told
        typed("policy", "clear", url=nats_url)
        while "clear priority chat/7 at here" not in told:
            told = typed("policy", "log", "--what", "clear", url=nats_url).out
        assert "not followed any more" in told
