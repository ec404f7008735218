"""The examples at the end of a command's help."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """An epilog for typer: a heading and these lines as they are."""
    # \b on a line of its own keeps the lines below it as they are.
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])
