"""Readers: one file per format, one row each in `READERS`.

Content decides which reader a file gets; the suffix only words the error when none wants it.
"""

from __future__ import annotations

import math
from pathlib import Path

from profilemate.parse.readers import refusals
from profilemate.parse.readers.base import OpenOptions, Reader
from profilemate.parse.readers.kineto.reader import KinetoJsonReader
from profilemate.parse.readers.nsys.parquet import NsysParquetReader
from profilemate.parse.readers.nsys.report import NsysReportReader
from profilemate.parse.readers.nsys.sqlite import NsysSqliteReader
from profilemate.parse.recording.contract import Recording
from profilemate.parse.recording.progress import Progress, no_progress
from profilemate.parse.recording.worker_processes import Share

__all__ = [
    "READERS",
    "OpenOptions",
    "Reader",
    "find_reader",
    "find_recordings",
    "open_recording",
]

EXPORTS: tuple[Reader, ...] = (NsysSqliteReader(), NsysParquetReader())
REPORT = NsysReportReader()
READERS: tuple[Reader, ...] = (*EXPORTS, REPORT, KinetoJsonReader())
"""Every reader, the quickest to read with first."""

_COPIED_SEC = 1.0
"""A report that is younger by less may have been copied together with its export."""


def open_recording(
    path: Path | str,
    *,
    cache_dir: Path | str | None = None,
    nsys: Path | str | None = None,
    progress: Progress | None = None,
    streamed: bool = False,
    share: Share | None = None,
) -> Recording:
    """Open a recording, whatever its format.

    Args:
        path: A file, or the directory of a parquet export.
        cache_dir: Where exports of reports are kept; by default `$PROFILEMATE_CACHE/exports`, or
            `profilemate/exports` in the user's cache folder.
        nsys: The `nsys` to export reports with; by default `$PROFILEMATE_NSYS`, or the first on
            the PATH.
        progress: Told about work that takes its time.
        streamed: Hold no more of a recording at a time than a block of it, even if that is slower.
        share: What this process and those that it starts may use of the machine; None for all.

    Raises:
        InputError: There is no recording here, or it cannot be read.
        ToolError: A program or package that is needed is missing, too old or failed.
        OutputError: The cache cannot be written.
    """
    path = Path(path)
    options = OpenOptions(
        None if cache_dir is None else Path(cache_dir),
        None if nsys is None else Path(nsys),
        progress or no_progress,
        streamed,
        share,
    )
    reader = find_reader(path)
    try:
        return reader.open(path, options)
    except OSError as e:
        raise refusals.unreadable(path, e) from e


def find_reader(path: Path) -> Reader:
    """The reader that wants a file or directory.

    Raises:
        InputError: There is no recording here, or it cannot be read.
    """
    try:
        if path.is_symlink() or path.exists():
            return _reader_of(path)
    except OSError as e:
        raise refusals.unreadable(path, e) from e
    raise refusals.no_such_path(path)


def find_recordings(path: Path | str) -> list[Path]:
    """The recordings directly in a directory, by name.

    Of a report and its exports in the same directory, which are one recording, only the one that
    is quickest to read is named; an export that is older than its report is of an earlier one.

    Raises:
        InputError: The directory cannot be read.
    """
    best: dict[str, tuple[int, Path]] = {}
    path = Path(path)
    try:
        for child in sorted(path.iterdir()):
            rank = next((i for i, r in enumerate(READERS) if _wants(r, child)), None)
            if rank is None or newer_report(child) is not None:
                continue
            name = child.name
            for suffix in READERS[rank].suffixes:
                name = name.removesuffix(suffix)
            best[name] = min(best.get(name, (rank, child)), (rank, child))
    except OSError as e:
        raise refusals.unreadable(path, e) from e
    return sorted(child for _, child in best.values())


def wanted(path: Path) -> bool:
    """Whether any reader wants a file or directory."""
    return any(_wants(reader, path) for reader in READERS)


def newer_report(export: Path) -> Path | None:
    """The report beside an export that was recorded after it was made; None for none."""
    for reader in EXPORTS:
        for suffix in reader.suffixes:
            if not export.name.endswith(suffix):
                continue
            for kind in REPORT.suffixes:
                report = export.with_name(export.name.removesuffix(suffix) + kind)
                if _written(report) > _written(export) + _COPIED_SEC and _wants(REPORT, report):
                    return report
    return None


def _written(path: Path) -> float:
    """When a file, or the youngest of a directory, was written; -inf where it is not there."""
    try:
        files = [p for p in path.iterdir() if p.is_file()] if path.is_dir() else [path]
        return max((p.stat().st_mtime for p in files), default=-math.inf)
    except OSError:
        return -math.inf


def _wants(reader: Reader, path: Path) -> bool:
    # In a directory full of other things, what cannot be read is one of the other things.
    try:
        return reader.sniff(path)
    except OSError:
        return False


def _reader_of(path: Path) -> Reader:
    if path.stat().st_size == 0 and path.is_file():
        raise refusals.empty_file(path)
    for reader in READERS:
        if reader.sniff(path):
            return reader
    if path.is_dir():
        raise refusals.no_recording(path, find_recordings(path))
    if not path.is_file():
        raise refusals.not_a_file(path)
    raise refusals.not_a_recording(path, READERS)
