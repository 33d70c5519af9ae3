"""The smallest application: one workflow that greets."""

from callboard import workflow


@workflow
async def greet(name: str) -> str:
    """Greet somebody by name."""
    return f"Hello {name}"
