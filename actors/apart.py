"""Models apart from tools: no process serves a model with an engine and runs tools.

What tools compute would hold up the answers that are passed on there. A model that is a function of this
process, as tests have it, has no engine to be held up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from callboard.actors.declared import AgentClass, Declaration
from callboard.infra.errors import CallboardError


class ToolsBesideModel(CallboardError):
    """A host was to run tools in the process that serves a model. Fields: models, tools (names)."""

    code = "tools_beside_model"


def apart(
    declarations: Sequence[Declaration], required: Collection[str] | None
) -> tuple[list[Declaration], list[Declaration]]:
    """What one process may serve, and what has to go to another: models, or tools if a model is required.

    Args:
        required: names of actors that must not go; None: all.

    Raises:
        ToolsBesideModel: models and tools are required.
    """
    models = [declared for declared in declarations if isinstance(declared, AgentClass) and declared.apart]
    tools = [declared for declared in declarations if declared.kind == "tool"]
    if not (models and tools):
        return list(declarations), []
    named = {declared.name for declared in declarations} if required is None else set(required)
    if not any(declared.name in named for declared in models):
        away: list[Declaration] = [*models]
    elif not any(declared.name in named for declared in tools):
        away = [*tools]
    else:
        raise beside([declared.name for declared in models], [declared.name for declared in tools])
    return [declared for declared in declarations if declared not in away], away


def beside(models: Sequence[str], tools: Sequence[str]) -> ToolsBesideModel:
    """The error, with what to do."""
    return ToolsBesideModel(
        f"model {', '.join(models)} and tools ({', '.join(tools)}) cannot share a process, since what tools "
        "compute would hold up the model's answers: start two hosts, one of them with --kind model, or with "
        "--model alone",
        models=list(models),
        tools=list(tools),
    )
