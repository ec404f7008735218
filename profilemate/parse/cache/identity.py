"""What an answer depends on: the bytes that are read, and the program that reads them.

A file is told by its path, size, inode, times, and the content of its first and last 64 KiB. Who
changes a byte in the middle of a large file and puts its `mtime` back moves its `ctime`, which no
program can set. What is left is a change in the same tick of the file system's clock as the one
before it: of a file that was changed a moment ago nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
import pyarrow as pa

import profilemate
from profilemate.errors import ToolError
from profilemate.parse.ingest.live_sessions import being_written
from profilemate.parse.readers.nsys.report import MAGIC, find_nsys
from profilemate.schema.live import MARKERS

FORMAT = 2
"""Raised when the files of the cache change."""

SETTLED_NS = 2_000_000_000
"""A file that was changed later than this before it is read may change again unseen: the clocks of
file systems tick every few milliseconds, those of some network file systems every second or two."""

_ENDS = 1 << 16  # bytes
_BESIDE = ("-wal", "-journal")  # of an sqlite file, which belong to its content


@dataclass(frozen=True, slots=True)
class Identity:
    """What a trace was or would be made of.

    Attributes:
        text: Equal for equal answers only.
        changed_ns: When the youngest of the files was changed.
        taken_ns: When it was looked at.
    """

    text: str
    changed_ns: int
    taken_ns: int

    @property
    def name(self) -> str:
        """A name for it, of a file."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def settled(self) -> bool:
        """Whether every later change of the files would make it another one."""
        return self.changed_ns < self.taken_ns - SETTLED_NS


def identity(
    found: Mapping[Path, bool], nsys: Path | None, *, records: bool = True
) -> Identity | None:
    """The identity of recordings and their reader; None for a session that is being written.

    Args:
        found: What `gather` says: recordings, and whether they were found or named.
        nsys: The nsys that was asked for, if any.
        records: Every GPU record is asked for.

    Raises:
        OSError: One of the files cannot be looked at.
    """
    taken = time.time_ns()
    changed = 0
    recordings = []
    for folder in {path.parent for path in found}:
        if folder.name == MARKERS and being_written(folder):
            return None
    for path, searched in found.items():
        parts = []
        for file in _files(path):
            facts, last = _file(file)
            parts.append(facts)
            changed = max(changed, last)
        recordings.append([str(path), searched, parts, _exporter(path, nsys)])
    versions = [profilemate.__version__, sources(), pd.__version__, pa.__version__]
    said = [FORMAT, versions, records, recordings]
    return Identity(json.dumps(said), changed, taken)


def _files(path: Path) -> Iterator[Path]:
    """The files that reading a recording reads."""
    if path.is_dir():
        yield from sorted(p for p in path.iterdir() if p.is_file())
        return
    yield path
    for suffix in _BESIDE:
        beside = Path(f"{path}{suffix}")
        if beside.exists():
            yield beside


def _file(path: Path) -> tuple[list[str | int], int]:
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        ends = hashlib.sha256(file.read(_ENDS))
        if facts.st_size > _ENDS:
            file.seek(max(_ENDS, facts.st_size - _ENDS))
            ends.update(file.read(_ENDS))
    times = (facts.st_mtime_ns, facts.st_ctime_ns)
    where = os.path.realpath(path)
    return [where, facts.st_size, facts.st_ino, *times, ends.hexdigest()], max(times)


def _exporter(path: Path, nsys: Path | None) -> list[str] | None:
    """The nsys that exports a report, None for anything else and where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return None
    try:
        program = find_nsys(nsys, path)
        return [str(program.path), program.version()]
    except ToolError:
        return None


@lru_cache(maxsize=1)
def sources() -> str:
    """A hash of the code that reads: a checkout changes without its version."""
    package = Path(profilemate.__file__).parent
    digest = hashlib.sha256()
    for folder in ("parse", "schema"):
        for file in sorted((package / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(package)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
