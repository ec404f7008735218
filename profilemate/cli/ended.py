"""Being asked to end: what was begun is taken back first, as after Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ASKED = (signal.SIGTERM, signal.SIGHUP)
"""By whom: a service manager or `kill`; a terminal that was closed, a connection that was lost."""


@contextmanager
def in_order() -> Iterator[None]:
    """Turn these signals into an exit of Python, with the exit code that shells give them.

    One that is ignored stays so: `nohup` asks for that.
    """
    asked = 0

    def end(number: int, _: object) -> None:
        nonlocal asked
        asked = 128 + number
        sys.exit(asked)

    before = {
        number: handler
        for number in _ASKED
        if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)
    }
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:  # C code that looks for an attribute may have lost the exception
        sys.exit(asked)
