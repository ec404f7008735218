"""The one guard between our faults and the engine: what we do may fail, and vLLM goes on.

A fault is counted, and the first one of each place is said once.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from profilemate.printable import printable


class Faults:
    """Counts our own faults and reports each place once.

    Attributes:
        count: Faults so far.
        counts: The same by place; those of a hook are under its name.
        first: The first fault of each place, in one line.
    """

    def __init__(self) -> None:
        self.count = 0
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def report(self, where: str, fault: BaseException) -> None:
        """Count a fault; the first one of a place is written to stderr."""
        self.count += 1
        self.counts[where] = self.counts.get(where, 0) + 1
        if where in self.first:
            return
        what = traceback.format_exception_only(fault)[-1].strip()
        at = traceback.extract_tb(fault.__traceback__)
        line = f"{at[-1].filename}:{at[-1].lineno}" if at else "unknown place"
        self.first[where] = f"{what} ({line})"
        say(
            f"a fault of profilemate in {where}, vLLM is not affected: {self.first[where]}. "
            "Further ones of this place are counted and not shown."
        )


def say(text: str, tag: str = "[profilemate] ") -> None:
    """Write one line to stderr, where vLLM's own log goes; a closed stderr is no reason to fail."""
    with suppress(OSError, ValueError, AttributeError):  # sys.stderr may be None
        sys.stderr.write(f"{tag}{printable(text)}\n")
        sys.stderr.flush()


def shield(where: str, faults: Faults, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of ours safe to call from the engine: it returns None when it fails."""

    @functools.wraps(function)
    def shielded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as fault:  # noqa: BLE001 - the guard
            faults.report(where, fault)
            return None

    return shielded
