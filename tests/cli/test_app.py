"""Loading an application: under its real name, with the actors it declares, and errors that help."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard.actors.app import AppUnloadable, load, load_all, source_folder, split
from callboard.infra.errors import UnknownActor

DECLARES = """
from callboard import agent, tool, workflow

@tool
async def {prefix}look(x: int) -> int: return x

@agent(name="{prefix}Thinker")
class Mind:
    async def think(self, x: int) -> int: return x

@workflow
async def {prefix}flow() -> int: return await {prefix}look(1)
"""


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is forgotten after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def put(path: Path, text: str = "", prefix: str = "") -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text or DECLARES.format(prefix=prefix)))
    return path


def names(*specs: str) -> list[str]:
    """The names of what the applications declare."""
    return [declared.name for declared in load_all(specs)]


def test_a_file_by_itself(tmp_path: Path) -> None:
    """All its actors and workflows, in order; its folder can be imported from."""
    app = load(str(put(tmp_path / "lonely_app.py")))
    assert [d.name for d in app.declarations] == ["look", "Thinker", "flow"]
    assert app.module.__name__ == "lonely_app"
    assert str(tmp_path) in sys.path


def test_a_file_in_a_package_gets_its_dotted_name(tmp_path: Path) -> None:
    """As everybody else imports it, so that another process can import it again."""
    put(tmp_path / "shop1" / "__init__.py", "\n")
    put(tmp_path / "shop1" / "deep" / "__init__.py", "\n")
    path = put(tmp_path / "shop1" / "deep" / "actors.py")
    app = load(str(path))
    assert app.module.__name__ == "shop1.deep.actors"
    assert sys.modules["shop1.deep.actors"] is app.module
    code = f"import sys; sys.path = {sys.path!r}; import shop1.deep.actors"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_relative_paths_modules_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pkg/app.py``, ``pkg.app`` and ``pkg`` from the working directory."""
    put(tmp_path / "shop2" / "__init__.py", prefix="top_")
    put(tmp_path / "shop2" / "app.py", prefix="sub_")
    monkeypatch.chdir(tmp_path)
    assert load("shop2/app.py").module is load("shop2.app").module
    assert names("shop2") == ["top_look", "top_Thinker", "top_flow"]
    assert names("shop2/") == names("shop2")


def test_names_choose_by_actor_or_attribute(tmp_path: Path) -> None:
    """``app.py:NAME,NAME``; the actor's name and the attribute's both do, each actor comes once."""
    path = put(tmp_path / "choosy_app.py")
    assert names(f"{path}:flow,Thinker") == ["flow", "Thinker"]
    assert names(f"{path}:Mind") == ["Thinker"]
    assert names(f"{path}:Mind,Thinker") == ["Thinker"]


def test_imported_declarations_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application may only import its actors, and two applications may share one."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "parts3.py")
    put(tmp_path / "whole3.py", "from parts3 import look, Mind as Other, Mind\n")
    assert names("whole3.py") == ["look", "Thinker"]
    assert names("whole3.py", "parts3.py") == ["look", "Thinker", "flow"]


def test_two_actors_of_one_name_are_refused(tmp_path: Path) -> None:
    """Within an application and across two."""
    one, other = put(tmp_path / "one4.py"), put(tmp_path / "other4.py")
    with pytest.raises(AppUnloadable, match="named 'look'"):
        load_all([str(one), str(other)])
    both = put(tmp_path / "both4.py", "from one4 import look\nfrom other4 import look as second\n")
    with pytest.raises(AppUnloadable) as caught:
        load(str(both))
    assert caught.value.fields["reason"] == "ambiguous"


def test_an_unknown_name_is_guessed(tmp_path: Path) -> None:
    """The error says what was meant, or what there is."""
    path = put(tmp_path / "typo_app.py")
    with pytest.raises(UnknownActor, match="did you mean 'Thinker'"):
        load(f"{path}:Thinkr")
    with pytest.raises(UnknownActor, match="there is: Mind, Thinker, flow, look"):
        load(f"{path}:zzz")
    with pytest.raises(UnknownActor, match="did you mean 'flow'"):
        load(str(path)).workflow("flew")
    with pytest.raises(UnknownActor, match="no workflow 'look'"):
        load(str(path)).workflow("look")


@pytest.mark.parametrize("spec", ["nowhere.py", "no/where.py", "no_such_module_5", "json.nowhere", ".py"])
def test_a_missing_application(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said plainly, without a traceback."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AppUnloadable) as caught:
        load(spec)
    assert caught.value.fields["reason"] == "missing"
    assert "traceback" not in caught.value.fields


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("x = 1\ny = 1 / 0\n", "ZeroDivisionError: division by zero", "line 2"),
        ("def (:\n", "SyntaxError: invalid syntax", "line 1"),
        ("import no_such_module_6\n", "ModuleNotFoundError: No module named 'no_such_module_6'", "line 1"),
        ("from callboard import agent\n@agent\nclass A: ...\n", "DeclarationInvalid", "line 2"),
    ],
)
def test_an_error_in_the_users_code_is_shown_as_theirs(
    text: str, message: str, line: str, tmp_path: Path
) -> None:
    """The traceback names their file and line, and has no frame of the loader."""
    path = put(tmp_path / f"bad_app_{abs(hash(text))}.py", text)
    with pytest.raises(AppUnloadable, match=message) as caught:
        load(str(path))
    trace = caught.value.fields["traceback"]
    assert str(path) in trace
    assert line in trace
    assert "importlib" not in trace
    assert "actors/app.py" not in trace


def test_a_file_that_hides_behind_another_module(tmp_path: Path) -> None:
    """``json.py`` would give the standard library's: refused with what to do."""
    with pytest.raises(AppUnloadable, match="rename the file"):
        load(str(put(tmp_path / "json.py")))


def test_a_module_that_declares_nothing(tmp_path: Path) -> None:
    """Says how to declare something."""
    with pytest.raises(AppUnloadable, match="@workflow") as caught:
        load(str(put(tmp_path / "empty_app.py", "x = 1\n")))
    assert caught.value.fields["reason"] == "empty"


def test_splitting() -> None:
    """Place and names, where the place may have a drive."""
    assert split("app.py") == ("app.py", [])
    assert split("app.py:A,b,") == ("app.py", ["A", "b"])
    assert split("pkg.app:A") == ("pkg.app", ["A"])


def test_the_folder_to_watch_is_known_before_the_code_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a module of a package, and for what is not there yet."""
    put(tmp_path / "shop7" / "__init__.py", "\n")
    path = put(tmp_path / "shop7" / "app.py", "def (:\n")
    monkeypatch.chdir(tmp_path)
    assert source_folder(f"{path}:A") == tmp_path / "shop7"
    assert source_folder("shop7.app") == tmp_path / "shop7"
    assert source_folder("later.py") == tmp_path
