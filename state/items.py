"""Items of managed state and their annotations: encoding, decoding, and which of them can be changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import inspect

from callboard.infra.errors import DeclarationInvalid, ItemInvalid

_FIXED = (
    inspect.NoneType,
    inspect.BoolType,
    inspect.IntType,
    inspect.FloatType,
    inspect.StrType,
    inspect.BytesType,
    inspect.DateTimeType,
    inspect.TimeType,
    inspect.DateType,
    inspect.TimeDeltaType,
    inspect.UUIDType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.LiteralType,
)
_FIXED_VALUES = frozenset({type(None), bool, int, float, str, bytes})


def _standing_for(value: Any) -> Any:
    """What is stored of a lazy value, or of another collection."""
    plain = getattr(type(value), "__travelling__", None)
    if plain is None:
        raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be stored")
    return plain(value)


_encode = msgspec.msgpack.Encoder(enc_hook=_standing_for).encode


class Codec:
    """Takes items of one annotation to msgpack and back.

    Args:
        where: ``Agent.attribute``, for error texts.
        annotation: a type that msgspec knows.

    Raises:
        DeclarationInvalid: it cannot be stored.
    """

    def __init__(self, where: str, annotation: Any) -> None:
        self._where = where
        self.annotation = annotation
        try:
            self.decode = msgspec.msgpack.Decoder(annotation).decode
            self._mutable = _mutable(inspect.type_info(annotation), set())
        except TypeError as error:
            raise DeclarationInvalid(f"{where}: a type cannot be stored: {error}") from error

    def encode(self, value: Any) -> tuple[bytes, Any]:
        """An item in msgpack, and the item: the value itself if it is what will be read back, but for tuples.

        Raises:
            ItemInvalid: it does not fit the annotation.
        """
        try:
            raw = _encode(value)
            read = self.decode(raw)
            if type(read) is type(value) and (read == value or _is_alike(read, value)):
                return raw, value
            return _encode(read), read
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ItemInvalid(
                f"{self._where} takes {shown(self.annotation)}, and {_short(value)} is none: {error}",
                attribute=self._where,
            ) from error

    def check_key(self, raw: bytes, limit: int) -> None:
        """A key stands where it is, beside others; only values travel by reference.

        Raises:
            ItemInvalid: it is too long.
        """
        if len(raw) > limit:
            raise ItemInvalid(
                f"a key of {self._where} has {len(raw):,} bytes, and may have {limit:,} (setting "
                "inline_limit): take a short name or a hash as the key, and keep the text in the value",
                attribute=self._where,
                size=len(raw),
                limit=limit,
            )

    def encoded_again(self, value: Any) -> bytes:
        """An item that was fetched, as it is now.

        Raises:
            ItemInvalid: what was done to it does not fit the annotation.
        """
        return self.encode(value)[0]

    def is_changed(self, raw: bytes, now: bytes) -> bool:
        """Whether an item that was fetched has been changed since.

        Args:
            raw: as it is stored, perhaps under another annotation, or with a set in another order.
            now: what :meth:`encoded_again` gave.
        """
        return now != raw and now != _encode(self.decode(raw))

    def mutable(self, value: Any) -> bool:
        """Whether an item can be changed without being put back."""
        return self._mutable and type(value) not in _FIXED_VALUES


def default_of(annotation: Any) -> Any:
    """What a value is that nobody has set: None where that fits, else what its type makes without arguments.

    Raises:
        TypeError: it makes nothing.
    """
    try:
        return msgspec.convert(None, annotation)
    except msgspec.ValidationError:
        return (getattr(annotation, "__origin__", None) or annotation)()


def _mutable(kind: inspect.Type, met: set[type]) -> bool:
    if isinstance(kind, _FIXED):
        return False
    inner: Iterable[inspect.Type]
    match kind:
        case inspect.Metadata():
            inner = (kind.type,)
        case inspect.UnionType():
            inner = kind.types
        case inspect.TupleType():
            inner = kind.item_types
        case inspect.VarTupleType() | inspect.FrozenSetType():
            inner = (kind.item_type,)
        case inspect.StructType() | inspect.DataclassType() | inspect.NamedTupleType():
            if kind.cls in met:
                return False
            met.add(kind.cls)
            if not _frozen(kind.cls):
                return True
            inner = [field.type for field in kind.fields]
        case _:
            return True
    return any(_mutable(one, met) for one in inner)


def _frozen(cls: type) -> bool:
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_config__.frozen
    if dataclasses.is_dataclass(cls):
        return bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]
    return issubclass(cls, tuple)


def _is_alike(read: Any, value: Any) -> bool:
    try:
        return _alike(read, value)
    except RecursionError:
        return False


def _alike(read: Any, value: Any) -> bool:
    """Whether values that are not equal are of the same parts: NaN, or of types that compare by identity."""
    if type(read) is not type(value):  # what is annotated as anything is read as a list
        return type(read) is list and type(value) is tuple and _all_alike(read, value)
    if isinstance(value, list | tuple):
        return _all_alike(read, value)
    if isinstance(value, dict):
        return read.keys() == value.keys() and all(_alike(read[key], one) for key, one in value.items())
    if isinstance(value, msgspec.Struct):
        return all(_alike(getattr(read, one), getattr(value, one)) for one in value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return all(_alike(getattr(read, one, None), getattr(value, one, None)) for one in names)
    return bool(read == value) or (read != read and value != value)  # noqa: PLR0124 - as NaN is


def _all_alike(read: Any, value: Any) -> bool:
    return len(read) == len(value) and all(_alike(one, other) for one, other in zip(read, value, strict=True))


def shown(annotation: Any) -> str:
    """A type as a reader knows it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
