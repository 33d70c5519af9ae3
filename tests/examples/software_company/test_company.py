"""The software company: tests that really fail send the work back; what passes is handed over."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from tests.examples.loading import load

from callboard import ChatRequest, model_function


def pytest_runs() -> Any:
    """Under its own name: the sandbox's process imports it, too."""
    load("software_company")
    return importlib.import_module("pytest_runs")


async def test_the_work_goes_back_once() -> None:
    """The first source has a fault that pytest finds; the engineer sees what it wrote, and what failed."""
    app = load("software_company")
    asked: list[ChatRequest] = []

    @model_function(name="worker")
    def watched(request: ChatRequest) -> str:
        asked.append(request)
        said: str = app.script(request)
        return said

    product = await app.build("Roman numerals")
    assert [report.passed for report in product.reports] == [False, True]
    assert "assert 'IIII' == 'IV'" in product.reports[0].output
    assert "5 passed" in product.reports[1].output
    assert product.model == "a scripted function, no model"
    said = [message.role for message in asked[-1].messages]
    assert said == ["system", "user", "assistant", "user"]
    assert "assert 'IIII' == 'IV'" in asked[-1].messages[-1].text


async def test_a_product_that_never_passes_is_not_accepted() -> None:
    """After as many rounds as are given."""
    app = load("software_company")
    model_function(name="worker")(app.script)
    with pytest.raises(app.NotAccepted, match="have failed 1 times"):
        await app.build("Roman numerals", rounds=1)


@pytest.mark.parametrize(
    ("module", "source", "tests"),
    [
        ("ends", "import os\nos._exit(0)\n", "import ends\n\ndef test_it():\n    assert False\n"),
        ("empty", "", "import empty\n"),
    ],
)
async def test_only_tests_that_pass_pass(module: str, source: str, tests: str) -> None:
    """A module that ends the process, and a file without tests, do not."""
    runs = pytest_runs()
    assert not (await runs.run_tests(module, source, tests)).passed


@pytest.mark.parametrize("name", ["../evil", "os", "test_product", ""])
async def test_names_that_no_module_may_have(name: str) -> None:
    """A path, a module of the standard library, the test file itself."""
    runs = pytest_runs()
    with pytest.raises(runs.BadName):
        await runs.run_tests(name, "", "")
