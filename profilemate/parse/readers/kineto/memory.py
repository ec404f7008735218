"""Memory that is freed and asked for again stays with the process."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


@cache
def keep_freed_blocks() -> bool:
    """Tell glibc to keep blocks of some MB; whether it could be told.

    Otherwise each block of a trace is given back and its pages are asked for again: a third of the
    time it takes to read one. The most memory that is in use at a time stays the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 28) and mallopt(_TRIM_THRESHOLD, 1 << 28))
