"""Examples are run by path, not installed: their folders go on the import path here.

So does the root, for what tests share.
"""

import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(_ROOT / "examples" / "financial_analyst"))
if str(_ROOT) not in sys.path:
    sys.path.append(str(_ROOT))
