"""Examples are run by path, not installed: their folders go on the import path here."""

import sys
from pathlib import Path

_EXAMPLES = Path(__file__).parents[2] / "examples"

sys.path.insert(0, str(_EXAMPLES / "financial_analyst"))
