"""``callboard host --model``: which model a host is to serve, from its options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from callboard.cli.exits import UsageError

if TYPE_CHECKING:
    from callboard.actors.models.served import ServedModel
    from callboard.actors.models.types import Price


def served_model(
    name: str | None,
    url: str | None,
    api_key_env: str | None,
    engine_model: str | None,
    vllm: str | None,
    vllm_arg: Sequence[str] | None,
    price: str | None,
    *,
    priorities: bool = False,
    continues: bool = False,
    kv_events: bool = False,
) -> ServedModel | None:
    """The model that the options name; None if they name none.

    Raises:
        UsageError: options are missing, or do not go together.
    """
    of_url = {
        "--api-key-env": api_key_env,
        "--engine-model": engine_model,
        "--priorities": priorities,
        "--continues": continues,
    }
    of_vllm = {"--vllm-arg": vllm_arg, "--kv-events": kv_events}
    if name is None:
        given = {"--url": url, "--vllm": vllm, **of_url, **of_vllm, "--price": price}
        alone = [option for option, value in given.items() if value]
        if alone:
            raise UsageError(f"{', '.join(alone)} needs the name of a model: --model NAME")
        return None
    from callboard.actors.models.served import model_at, model_on_vllm

    if (url is None) == (vllm is None):
        raise UsageError(
            f"--model {name} needs one engine: --url URL of a server with the OpenAI API, or --vllm MODEL"
        )
    misplaced = [option for option, value in (of_url if vllm else of_vllm).items() if value]
    if misplaced:
        raise UsageError(f"{', '.join(misplaced)} cannot go with {'--vllm' if vllm else '--url'}")
    costs = _price(price)
    if vllm is not None:
        return model_on_vllm(name, model=vllm, arguments=vllm_arg or (), kv_events=kv_events, price=costs)
    assert url is not None
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url} is no address of an engine: give one as http://127.0.0.1:8000/v1")
    return model_at(
        name,
        url=url,
        api_key_env=api_key_env,
        engine_model=engine_model,
        priorities=priorities,
        continues=continues,
        price=costs,
    )


def _price(typed: str | None) -> Price | None:
    from callboard.actors.models.types import Price

    if typed is None:
        return None
    try:
        costs = [float(part) for part in typed.split(",")]
    except ValueError:
        costs = []
    if len(costs) != 2 or not all(0 <= cost < math.inf for cost in costs):
        raise UsageError(f"--price {typed!r}: give INPUT,OUTPUT in dollars for a million tokens, as 0.15,0.6")
    return Price(*costs)
