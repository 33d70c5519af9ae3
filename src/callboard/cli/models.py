"""``callboard host --model``: which model a host is to serve, from its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from callboard.cli.exits import UsageError

if TYPE_CHECKING:
    from callboard.actors.models.served import ServedModel


def served_model(
    name: str | None, url: str | None, api_key_env: str | None, engine_model: str | None
) -> ServedModel | None:
    """The model that the options name; None if they name none.

    Raises:
        UsageError: options are missing, or do not go together.
    """
    if name is None:
        given = {"--url": url, "--api-key-env": api_key_env, "--engine-model": engine_model}
        alone = [option for option, value in given.items() if value is not None]
        if alone:
            raise UsageError(f"{', '.join(alone)} needs the name of a model: --model NAME")
        return None
    from callboard.actors.models.served import model_at

    if url is None:
        raise UsageError(f"--model {name} needs an engine: --url URL of a server with the OpenAI API")
    return model_at(name, url=url, api_key_env=api_key_env, engine_model=engine_model)
