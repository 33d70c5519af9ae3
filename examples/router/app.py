"""A router: a small model classifies what somebody asks; a talker or a coder answers.

callboard run ask --question "Write a function that reverses a list" --local examples/router/app.py

The models are SCRIPTED FUNCTIONS, so that this runs anywhere. With MODEL in the environment, the address of
any server with the OpenAI API such as http://127.0.0.1:8000/v1, the model there is asked; MODEL_CODE names
another one for code.
"""

import os
from dataclasses import dataclass
from typing import Literal

from router_scripts import code_script, small_script

from callboard import LlmAgent, model_at, model_function, workflow

MODEL = os.environ.get("MODEL", "")
MODEL_CODE = os.environ.get("MODEL_CODE", MODEL)

small = model_at("small", url=MODEL) if MODEL else model_function(name="small")(small_script)
code = model_at("code", url=MODEL_CODE) if MODEL_CODE else model_function(name="code")(code_script)


@dataclass
class Route:
    """What a question is."""

    kind: Literal["chat", "code"]


@dataclass
class Snippet:
    """What the coder gives."""

    language: str
    source: str


@dataclass
class Answer:
    """What somebody gets.

    Attributes:
        kind: how it was classified; by: who has answered; model: whether that was one.
    """

    kind: str
    by: str
    text: str
    model: str


# It judges each question by itself, so it has no history, and many at once.
classifier = LlmAgent(
    "classifier",
    model=small,
    instructions="Classify the user's message: 'code' if it asks for a program or about one, else 'chat'.",
    output=Route,
    history=0,
)
talker = LlmAgent("talker", model=small, instructions="You are friendly and brief.")
coder = LlmAgent("coder", model=code, instructions="You write short, correct programs.", output=Snippet)


@workflow
async def ask(question: str) -> Answer:
    """Classify, then chat or code. In a session both remember what was said."""
    route = await classifier.run(question)
    if route.kind == "code":
        found = await coder.run(question)
        text, by, url = f"```{found.language}\n{found.source}\n```", "coder", MODEL_CODE
    else:
        text, by, url = await talker.run(question), "talker", MODEL
    return Answer(route.kind, by, text, url or "a scripted function, no model")
