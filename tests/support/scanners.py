"""Both ways to read torch traces, and the compiled one's library."""

from __future__ import annotations

import build_scanner
from recorded import leave_out

from profilemate.parse.readers.kineto import native

NAMES = ("exact", "compiled")


def make_library() -> None:
    """Build the compiled scanner in this clone, if what is there is not that of its source."""
    if isinstance(native._loaded(native._LIBRARY), str):
        why = build_scanner.build(build_scanner.ROOT / build_scanner.LIBRARY)
        native._loaded.cache_clear()
        if why is not None:
            leave_out(why)
        assert not isinstance(native._loaded(native._LIBRARY), str)
