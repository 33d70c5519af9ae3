"""What a method takes and gives, read from its annotations, and the codecs made from it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from callboard.actors import hints, travel
from callboard.infra.errors import DeclarationInvalid, InvalidArguments, InvalidResult

_FORBIDDEN = {
    inspect.Parameter.VAR_POSITIONAL: "*args",
    inspect.Parameter.VAR_KEYWORD: "**kwargs",
    inspect.Parameter.POSITIONAL_ONLY: "a positional-only parameter",
}
_NO_ARGUMENTS = b"\x80"


class Signature:
    """Arguments and result of one method.

    Args:
        where: ``actor.method``, for error texts.
        function: the handler.
        skip_self: its first parameter is the instance.
        batched: every parameter and the result are lists with one item a caller.

    Raises:
        DeclarationInvalid: an annotation cannot be resolved or cannot travel. Without one anything goes.
    """

    def __init__(self, where: str, function: Callable[..., Any], *, skip_self: bool, batched: bool) -> None:
        self.where = where
        parameters = list(inspect.signature(function).parameters.values())[1 if skip_self else 0 :]
        annotations = self._hints(function)
        fields: list[Any] = []
        self._types: dict[str, Any] = {}
        for parameter in parameters:
            annotation = self._annotation(parameter, annotations, batched=batched)
            self._types[parameter.name] = annotation
            if parameter.default is inspect.Parameter.empty:
                fields.append((parameter.name, annotation))
            else:
                fields.append(
                    (parameter.name, annotation, msgspec.field(default_factory=_const(parameter.default)))
                )
        returned = annotations.get("return", Any)
        self.result_type: Any = self._item(returned, "the result") if batched else returned
        self.names = tuple(p.name for p in parameters)
        self._defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        self.keyword_only = frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
        self._positional = len(self.names) - len(self.keyword_only)
        try:
            self.arguments_type = msgspec.defstruct(
                "Arguments", fields, kw_only=True, forbid_unknown_fields=True
            )
            self._decode_arguments = msgspec.msgpack.Decoder(self.arguments_type).decode
            self._decode_result = msgspec.msgpack.Decoder(self.result_type).decode
        except TypeError as error:
            raise DeclarationInvalid(f"{where}: a type cannot travel: {error}") from error
        hint = "; a method that no call is for begins with '_'" if skip_self else ""
        for name, kind in self._types.items():
            travel.check(kind, f"{where}: parameter {name!r}", hint)
        travel.check(self.result_type, f"{where}: its result", hint)

    def _hints(self, function: Callable[..., Any]) -> dict[str, Any]:
        try:
            return typing.get_type_hints(function, include_extras=True)
        except Exception as error:  # whatever evaluating somebody's annotations raises
            raise DeclarationInvalid(
                f"{self.where}: its annotations cannot be resolved ({error}): import the types where "
                "the actor is declared, not under TYPE_CHECKING"
            ) from error

    def _annotation(
        self, parameter: inspect.Parameter, annotations: Mapping[str, Any], *, batched: bool
    ) -> Any:
        if parameter.kind in _FORBIDDEN:
            raise DeclarationInvalid(
                f"{self.where}: {_FORBIDDEN[parameter.kind]} cannot be declared: give each parameter "
                "a name and a type, or take a dict"
            )
        annotation = annotations.get(parameter.name, Any)
        return self._item(annotation, f"parameter {parameter.name!r}") if batched else annotation

    def _item(self, annotation: Any, what: str) -> Any:
        arguments = typing.get_args(annotation)
        if typing.get_origin(annotation) is not list or len(arguments) != 1:
            raise DeclarationInvalid(f"{self.where} is batchable, so {what} must be a list[...]")
        return arguments[0]

    # -- arguments ---------------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Give each argument its name.

        Raises:
            InvalidArguments: too many, unknown or doubly given arguments.
        """
        if len(args) > self._positional:
            raise self._invalid(f"takes {self._positional} positional arguments, {len(args)} were given")
        bound = dict(zip(self.names, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.names:
                raise self._invalid(f"has no parameter {name!r}; it takes {', '.join(self.names) or 'none'}")
            if name in bound:
                raise self._invalid(f"got parameter {name!r} twice")
            bound[name] = value
        return bound

    def check(self, body: bytes) -> None:
        """Hold encoded arguments against the annotations.

        Raises:
            InvalidArguments: they do not fit.
        """
        if body != _NO_ARGUMENTS or self.names:
            self.decode_arguments(body)

    def check_some(self, given: dict[str, Any], bound: Collection[str]) -> None:
        """Hold those arguments that are there already against their annotations.

        Args:
            given: by name; bound: the names of these and of those that are yet to come.

        Raises:
            InvalidArguments: one does not fit or is missing.
        """
        missing = [name for name in self.names if name not in bound and name not in self._defaults]
        if missing:
            raise self._invalid(f"missing required arguments {', '.join(f'`{name}`' for name in missing)}")
        for name, value in given.items():
            try:
                msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=self._types[name])
            except (msgspec.DecodeError, TypeError, ValueError) as error:
                raise self._invalid(f"{name}: {error}") from error

    def decode_arguments(self, body: bytes) -> dict[str, Any]:
        """The arguments by name, defaults filled in.

        Raises:
            InvalidArguments: they do not fit the annotations.
        """
        if not self.names and body == _NO_ARGUMENTS:
            return {}
        try:
            decoded = self._decode_arguments(body)
        except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
            json = ": it looks like JSON, and must be msgpack" if body[:1] in {b"{", b"["} else ""
            raise self._invalid(f"{error}{json}") from error
        return {name: getattr(decoded, name) for name in self.names}

    def from_json(self, body: bytes) -> bytes:
        """Turn arguments given as a JSON object into msgpack.

        Raises:
            InvalidArguments: it is no JSON object, or does not fit the annotations.
        """
        try:
            return msgspec.msgpack.encode(msgspec.json.decode(body or b"{}", type=self.arguments_type))
        except (msgspec.DecodeError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._invalid(str(error)) from error

    def _invalid(self, problem: str) -> InvalidArguments:
        actor, _, method = self.where.partition(".")
        return InvalidArguments(f"{self.where}: {problem}", actor=actor, method=method)

    # -- result ------------------------------------------------------------------------------------

    def decode_result(self, value: bytes | msgspec.Raw) -> Any:
        """The value of a result.

        Raises:
            InvalidResult: it does not fit the annotation.
        """
        try:
            return self._decode_result(value)
        except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
            actor, _, method = self.where.partition(".")
            raise InvalidResult(
                f"{self.where} returned what its annotation does not allow: {error}",
                actor=actor,
                method=method,
            ) from error

    # -- schemas -----------------------------------------------------------------------------------

    def schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """JSON schemas of the argument object and of the result; empty where a type has none."""
        arguments = hints.arguments_schema(self.arguments_type, self.keyword_only, self._defaults)
        return arguments, hints.schema_of(self.result_type)


def _const(value: Any) -> Callable[[], Any]:
    return lambda: value
