"""``python -m callboard``: the command line."""

from __future__ import annotations

from callboard.cli import main

if __name__ == "__main__":  # a child made by multiprocessing imports this file again
    main()
