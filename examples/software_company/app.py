"""A software company: manager, architect, engineer and tester, whose failed tests send the work back.

callboard run build --wish "Roman numerals" --local examples/software_company/app.py

The model is a SCRIPTED FUNCTION that knows one product and makes one mistake in it, so that this runs
anywhere. With MODEL in the environment, the address of any server with the OpenAI API such as
http://127.0.0.1:8000/v1, the model there is asked. The tests are run in either case, by pytest, in a sandbox.
"""

import os
from dataclasses import dataclass

from company_script import script
from pytest_runs import Report, run_tests

from callboard import LlmAgent, Terminal, model_at, model_function, workflow

__all__ = ["architect", "build", "engineer", "manager", "run_tests", "tester", "worker"]

MODEL = os.environ.get("MODEL", "")
worker = model_at("worker", url=MODEL) if MODEL else model_function(name="worker")(script)


@dataclass
class Task:
    """What is to be built, and when it is good."""

    title: str
    requirements: list[str]


@dataclass
class Design:
    """One module."""

    module: str
    functions: list[str]
    notes: str


@dataclass
class Source:
    """The text of one Python file."""

    text: str


@dataclass
class Product:
    """What the customer gets.

    Attributes:
        reports: of all test runs; the last one has passed. model: whether there was one.
    """

    task: Task
    design: Design
    source: str
    tests: str
    reports: list[Report]
    model: str


class NotAccepted(Terminal):
    """The tests have failed in every round."""


manager = LlmAgent(
    "manager",
    model=worker,
    instructions="You are a product manager. Turn the wish into a small task with checkable requirements.",
    output=Task,
)
architect = LlmAgent(
    "architect",
    model=worker,
    instructions=(
        "You are an architect. Design one Python module for the task: its name without .py, and the "
        "signatures of its functions. Standard library only."
    ),
    output=Design,
)
engineer = LlmAgent(
    "engineer",
    model=worker,
    instructions="You are an engineer. Write the whole module. If tests have failed, write all of it again.",
    output=Source,
)
tester = LlmAgent(
    "tester",
    model=worker,
    instructions="You are a tester. Write a pytest file that imports the module and checks each requirement.",
    output=Source,
)


@workflow
async def build(wish: str, rounds: int = 3) -> Product:
    """From a wish to a module whose tests pass.

    The tester works from the design, side by side with the engineer, and sees no code. The engineer is told
    what failed, and remembers what it wrote: its history is the session's.

    Args:
        wish: in plain words.
        rounds: how often the tests are run at most.
    """
    task = await manager.run(wish)
    design = await architect.run(task)
    order = {"task": task, "design": design}
    writing, testing = engineer.run(order), tester.run(order)
    source, tests = await writing, await testing
    reports: list[Report] = []
    for _ in range(rounds):
        reports.append(await run_tests(design.module, source.text, tests.text))
        if reports[-1].passed:
            model = MODEL or "a scripted function, no model"
            return Product(task, design, source.text, tests.text, reports, model)
        source = await engineer.run(f"The tests have failed:\n\n{reports[-1].output}")
    raise NotAccepted(f"the tests have failed {rounds} times; the last time: {reports[-1].output}")
