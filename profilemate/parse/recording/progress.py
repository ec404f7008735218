"""How long work tells whoever waits that it goes on."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called now and then with what is being done, how much of it is done, and how much there is.

The last is None where nobody knows. The unit is the caller's own (rows, messages): only the ratio
means something.
"""


def no_progress(what: str, done: int, total: int | None) -> None:
    """A `Progress` for those who do not watch."""
