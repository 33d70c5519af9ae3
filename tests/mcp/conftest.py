"""What the tests of MCP share."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # so that tests can import what they share, as `tests.cli.terminal`
    sys.path.append(ROOT)
