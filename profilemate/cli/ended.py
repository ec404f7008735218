"""Being asked to end: what was begun is taken back first, as after Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def in_order() -> Iterator[None]:
    """Turn SIGTERM into an exit of Python, with the exit code that shells give it."""
    asked = 0

    def end(number: int, _: object) -> None:
        nonlocal asked
        asked = 128 + number
        sys.exit(asked)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked:  # C code that looks for an attribute may have lost the exception
        sys.exit(asked)
