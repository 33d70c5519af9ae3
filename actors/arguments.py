"""The arguments of a call, on their way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from callboard.actors import values
from callboard.actors.called_at import place, placed
from callboard.infra.errors import (
    InvalidArguments,
)

if TYPE_CHECKING:
    from callboard.actors.declared import Method


def encode_arguments(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> values.Encoded:
    """The arguments of a call, encoded and held against the annotations.

    Raises:
        InvalidArguments: they do not fit, or cannot travel.
    """
    try:
        encoded = _encoded(method, args, kwargs)
    except InvalidArguments as error:
        told = placed(error, place())
        raise told from told.__cause__
    if encoded.futures:  # whether these fit is known later, when this line is long past
        encoded.called_at = place()
    return encoded


def _encoded(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> values.Encoded:
    signature = method.signature
    bound = signature.bind(args, kwargs)
    try:
        encoded = values.encode(bound)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidArguments(f"{method.where}: {error}", actor=method.actor, method=method.name) from error
    if not encoded.futures:
        signature.check(encoded.body)
    else:
        signature.check_some({n: v for n, v in bound.items() if not values.encode(v).futures}, bound)
    return encoded
