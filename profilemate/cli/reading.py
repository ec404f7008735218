"""What commands that read recordings have in common: progress, an end in order, the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from profilemate.cli import ended, show

if TYPE_CHECKING:  # needs pandas
    from profilemate.parse.cache import TraceCache
    from profilemate.parse.pipeline import How


def decoded_traces(no_cache: bool, folder: Path | None = None) -> TraceCache | None:
    """The cache to use, None for none."""
    from profilemate.parse.cache import TraceCache

    return None if no_cache else TraceCache(folder)


def say_if_uncached(decoded: TraceCache | None) -> None:
    """Say on stderr why nothing is kept, if that is so: the answer is all there."""
    if decoded is not None and decoded.note is not None:
        show.note(decoded.note)


@contextmanager
def reading(
    nsys: Path | None,
    cache: Path | None,
    no_cache: bool,
    max_memory: str | None,
    jobs: int | None = 1,
    scheduler: str | None = None,
    *,
    quiet: bool,
    bar: bool = True,
) -> Iterator[How]:
    """How to read recordings, by the options that say so.

    Says at the end why nothing is kept, if that is so.
    """
    from profilemate.parse.columns.budget import memory_limit

    decoded, limit = decoded_traces(no_cache, cache), memory_limit(max_memory)
    with ended.in_order(), show.progress(quiet or not bar) as progress:
        yield {
            "nsys": nsys,
            "cache_dir": cache,
            "decoded": decoded,
            "progress": progress,
            "jobs": jobs,
            "scheduler": scheduler,
            "limit": limit,
        }
    if not quiet:
        say_if_uncached(decoded)
