"""What commands that read recordings have in common: the traces that were decoded before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from profilemate.cli import show

if TYPE_CHECKING:  # needs pandas
    from profilemate.parse.cache import TraceCache


def decoded_traces(no_cache: bool, folder: Path | None = None) -> TraceCache | None:
    """The cache to use, None for none."""
    from profilemate.parse.cache import TraceCache

    return None if no_cache else TraceCache(folder)


def say_note(decoded: TraceCache | None) -> None:
    """Say why nothing is kept, if that is so: on stderr, since the answer is all there."""
    if decoded is not None and decoded.note is not None:
        show.say(f"note: {decoded.note}")
