"""The connection: lanes, and what happens to them when things break."""

from __future__ import annotations

import asyncio
import inspect
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conftest_types import Connect, until
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from structlog.testing import capture_logs

from callboard.infra.connection import Connection, LaneClient
from callboard.infra.errors import ConnectFailed, ConnectionLost, RequestTimeout, ServerUnsuitable
from callboard.infra.server import EmbeddedServer, find_binary
from callboard.infra.settings import Settings
