"""``policy``: list, set and clear on the command line."""

from __future__ import annotations

from pathlib import Path

from tests.cli.terminal import Running, Typed, eventually

from callboard.infra.server import EmbeddedServer


def test_policies_are_chosen_and_cleared(typed: Typed, tmp_path: Path) -> None:
    """While a controller runs, which takes them up; for people, and as JSON."""
    own = tmp_path / "own.py"
    own.write_text(
        "from callboard.controller.policy import Policy\n"
        "class Own(Policy):\n"
        "    def decide(self, view, act):\n"
        "        raise ValueError('[not] yet')\n"
    )
    with EmbeddedServer() as server:
        url = server.url
        assert "no policies\n" in typed("policy", "list", url=url).out
        with Running("controller", "--policy", "srtf", "--json", url=url) as controller:
            controller.until('"event": "policies"')
            assert typed("policy", "set", "srtf", f"{own}:Own", "srtf", url=url).out == f"srtf, {own}:Own\n"
            controller.until('"event": "policy_disabled"')
            while (
                (told := typed("policy", "list", "--json", url=url).json)["running"] is None
                or len(told["running"]["policies"]) < 2
                or not told["running"]["policies"][1].get("problem")
                or not told["leader"]  # for a moment there is none where the machine stood still
            ):
                pass
            assert told["leader"].startswith("c-")
            assert told["chosen"] == ["srtf", f"{own}:Own"]
            first, second = told["running"]["policies"]
            assert (first["state"], second["state"]) == ("deciding", "disabled")
            assert second["problem"] == "ValueError: [not] yet"
            eventually(lambda: "no controller leads" not in typed("policy", "list", url=url).out)
            assert "disabled" in typed("policy", "list", url=url).out
            assert typed("policy", "clear", "--json", url=url).json == {"chosen": []}
            assert typed("policy", "reset", "--json", url=url).json == {"chosen": None}
            controller.until('"policies": ["srtf"], "by": "--policy"')
            assert "started with" in typed("policy", "reset", url=url).out
            assert typed("policy", "list", "--json", url=url).json["chosen"] is None
        assert "no controller leads" in typed("policy", "list", url=url).out
        assert typed("policy", "list", "--json", url=url).json["leader"] == ""
        assert typed("policy", "set", "srft", url=url).code == 2
        assert typed("policy", "set", url=url).code == 2


def test_a_file_that_cannot_be_used(typed: Typed, nats_url: str, tmp_path: Path) -> None:
    """Is refused where it is here; of one that is not here, which controllers may have, is warned."""
    (tmp_path / "own.py").write_text("import nothing_like_this\n")
    for name, problem in (("own.py:Own", "nothing_like_this"), ("own.py", "no such policy")):
        ran = typed("policy", "set", f"{tmp_path / name}", url=nats_url)
        assert (ran.code != 0, problem in ran.err or "there is no policy" in ran.err) == (True, True)
    assert typed("policy", "list", "--json", url=nats_url).json["chosen"] is None
    away = f"{tmp_path / 'away.py'}:Own"
    ran = typed("policy", "set", "srtf", away, "--json", url=nats_url)
    assert (ran.code, ran.json) == (0, {"chosen": ["srtf", away], "not_here": [away]})
    assert f"warning: there is no file for {away} here" in ran.err


def test_a_policy_that_there_is_not(typed: Typed) -> None:
    """Is told before anything starts."""
    for command in (("controller",), ("dev", "app.py")):
        ran = typed(*command, "--policy", "srft")
        assert (ran.code, "there is no policy 'srft': give FILE:CLASS, or one of" in ran.err) == (2, True)
