"""Traces that were decoded before: the second question about a recording is answered at once.

The columns of a decoded trace are kept in the user's cache folder, under the identity of every file
they were read from and of the code that read them. Whatever goes wrong here, there is no cache and
the recording is decoded; needs pyarrow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from profilemate.errors import InputError
from profilemate.parse.cache.files import NO_HOME, SUFFIX, default_folder, remove, shrink
from profilemate.parse.trace.trace import Trace

if TYPE_CHECKING:  # needs pyarrow
    from profilemate.parse.cache.identity import Identity

DEFAULT_MB = 2000
"""How much is kept where `PROFILEMATE_CACHE_MB` says nothing."""

WORTH_S = 0.1
"""A recording that is decoded in less than this is not kept: it takes 0.01 s to find one and 0.02 s
to keep it, and the program itself needs 0.5 s to begin."""


def limit() -> int:
    """How many bytes may be kept: `$PROFILEMATE_CACHE_MB`; 0 for no cache.

    Raises:
        InputError: That is no number.
    """
    said = os.environ.get("PROFILEMATE_CACHE_MB", "")
    try:
        megabytes = float(said) if said else DEFAULT_MB
        return max(0, int(megabytes * 1e6))
    except (ValueError, OverflowError) as e:
        raise InputError(
            f"PROFILEMATE_CACHE_MB={said} is no number of megabytes",
            hint=f"PROFILEMATE_CACHE_MB={DEFAULT_MB} is the default, 0 keeps nothing.",
        ) from e


class TraceCache:
    """Decoded traces in a folder.

    Args:
        folder: The folder; `default_folder()` if not given.
        worth_s: Seconds that decoding has to take for its result to be kept.

    Attributes:
        note: Why nothing could be kept, a sentence; None as long as all is well.
    """

    def __init__(self, folder: Path | None = None, *, worth_s: float = WORTH_S) -> None:
        self._folder = folder or default_folder()
        self.note: str | None = None
        self._worth_s = worth_s
        self._limit = limit()

    @property
    def folder(self) -> Path:
        """The folder; of a user who can have none nothing asks for it."""
        assert self._folder is not None
        return self._folder

    def slot(
        self, found: Mapping[Path, bool], nsys: Path | None, *, records: bool = True
    ) -> Slot | None:
        """Where the trace of these recordings is or will be kept; None where it must not be.

        Args:
            found: What `gather` says.
            nsys: The nsys that was asked for, if any.
            records: Every GPU record is asked for, not only what is folded of them.
        """
        if not self._limit:
            return None
        if self._folder is None:
            self.note = NO_HOME
            return None
        found = dict(found)
        try:
            from profilemate.parse.cache.identity import identity

            now = identity(found, nsys, records=records)
        except (ImportError, OSError):  # no pyarrow; or a file that reading will tell more about
            return None
        return None if now is None else Slot(self, found, nsys, records, now)

    def load(self, identity: Identity) -> Trace | None:
        """The trace of an identity, if it was kept."""
        import pyarrow as pa

        from profilemate.parse.cache import pack, store

        path = self.folder / f"{identity.name}{SUFFIX}"
        read = store.read(path)
        if read is None:
            return None
        facts, tables = read
        try:
            if facts.pop("identity") == identity.text:
                return pack.unpack(facts, tables)
        except (ValueError, KeyError, TypeError, IndexError, pa.ArrowException):
            remove(path)
        return None

    def keep(self, identity: Identity, trace: Trace) -> None:
        """Keep a trace; where that cannot be, say so in `note`."""
        import pyarrow as pa

        from profilemate.parse.cache import pack, store

        target = self.folder / f"{identity.name}{SUFFIX}"
        try:
            facts, tables = pack.pack(trace)
            size = store.write(target, {"identity": identity.text, **facts}, tables)
        except (pack.UnkeepableError, pa.ArrowException, MemoryError):
            return
        except OSError as e:
            self.note = f"nothing is cached in {self.folder}: {e.strerror or e}"
            return
        if size > self._limit:
            remove(target)
        shrink(self.folder, self._limit)

    def is_worth(self, seconds: float) -> bool:
        """Whether a trace that took so long to decode is kept."""
        return seconds >= self._worth_s


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one trace in a cache."""

    cache: TraceCache
    found: dict[Path, bool]
    nsys: Path | None
    records: bool
    identity: Identity

    def load(self) -> Trace | None:
        """The trace, if it was kept."""
        return self.cache.load(self.identity)

    def keep(self, trace: Trace, seconds: float) -> None:
        """Keep the trace, which took so long to decode, if that can be told from any later one.

        That is if its files were not touched while they were read, nor a moment before.
        """
        if not self.identity.settled or not self.cache.is_worth(seconds):
            return
        again = self.cache.slot(self.found, self.nsys, records=self.records)
        if again is not None and again.identity.text == self.identity.text:
            self.cache.keep(self.identity, trace)
