"""``policy``: list, set and clear on the command line."""

from __future__ import annotations

from pathlib import Path

from tests.cli.terminal import Running, Typed

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
            ):
                pass
            assert told["chosen"] == ["srtf", f"{own}:Own"]
            first, second = told["running"]["policies"]
            assert (first["state"], second["state"]) == ("deciding", "disabled")
            assert second["problem"] == "ValueError: [not] yet"
            listed = typed("policy", "list", url=url).out
            assert ("disabled" in listed, "no controller leads" in listed) == (True, False)
            assert told["leader"].startswith("c-")
            assert typed("policy", "clear", "--json", url=url).json == {"chosen": []}
        assert "no controller leads" in typed("policy", "list", url=url).out
        assert typed("policy", "list", "--json", url=url).json["leader"] == ""
        assert typed("policy", "set", "srft", url=url).code == 2
        assert typed("policy", "set", url=url).code == 2


def test_a_policy_that_there_is_not(typed: Typed) -> None:
    """Is told before anything starts."""
    for command in (("controller",), ("dev", "app.py")):
        ran = typed(*command, "--policy", "srft")
        assert (ran.code, "there is no policy 'srft': give FILE:CLASS, or one of" in ran.err) == (2, True)
