"""The verbs as they are declared to FastStream, and the AsyncAPI document that it makes of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import msgspec
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from pydantic import InstanceOf, WithJsonSchema

from callboard.actors.gateway.exchange import Request
