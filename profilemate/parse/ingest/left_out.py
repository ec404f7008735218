"""What lies in a directory and is not read: each file of it, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from profilemate.errors import InputError
from profilemate.parse.ingest.live_sessions import markers_of
from profilemate.parse.readers import find_reader, find_recordings, newer_report, wanted
from profilemate.parse.readers.kineto.inflate import GZIP, beginning
from profilemate.parse.readers.refusals import what_it_is

_SHOWN = 8
_PEEK = 1 << 12
_LEAST = 16  # characters: no trace is as short
_OURS = ("metadata.json", "findings.json")
_NO_RECORDING = (
    *(".csv", ".txt", ".log", ".md", ".html", ".pftrace", ".prom", ".png", ".sh", ".py"),
    *(".lock", ".tmp", ".part", ".yaml", ".yml", ".toml"),
)
"""Ends of names that promise no recording, our own tables among them."""


def left_out(folders: Sequence[Path], found: Collection[Path]) -> list[str]:
    """What lies in these directories and is not read, a sentence each.

    Args:
        folders: The directories that were searched.
        found: The recordings that are read.
    """
    every = [sentence for folder in folders for sentence in _in_folder(folder, set(found))]
    more = len(every) - _SHOWN
    rest = [f"{more} more files that lie there are not read either."] if more > 0 else []
    return every[:_SHOWN] + rest


def _in_folder(folder: Path, found: set[Path]) -> Iterator[str]:
    try:
        markers = markers_of(folder)
        for place in (folder, *([] if markers is None else [markers])):
            yield from _direct(place, place, found)
        below = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
        for child in below:
            if child in found or child == markers or child.name == "ranks":
                continue
            recordings = find_recordings(child)
            if found.isdisjoint(recordings) and recordings:
                yield (
                    f"{child.name}/ holds {len(recordings)} recordings that are not read, for "
                    f"recordings lie in {folder.name or folder}/ itself: name it too if they are "
                    "of this run."
                )
            elif not (child / _OURS[0]).exists():
                yield from _direct(child, folder, found)
    except (OSError, InputError):
        return  # whoever reads it says why


def _direct(folder: Path, shown_from: Path, found: set[Path]) -> Iterator[str]:
    """Files of one directory that are not read."""
    for file in sorted(folder.iterdir()):
        name = file.relative_to(shown_from)
        report = newer_report(file)
        if report is not None and report in found:
            yield f"{name} is not read: it is older than {report.name}, so it is of another run."
        elif file not in found and file.is_file() and _promises(file) and not wanted(file):
            yield f"{name} is not read: {_why(file)}."


def _promises(file: Path) -> bool:
    """Whether its name does not say that it is something else."""
    return (
        file.name not in _OURS
        and not file.name.startswith(".")
        and not file.name.endswith(_NO_RECORDING)
    )


def _why(file: Path) -> str:
    try:
        if not file.stat().st_size:
            return "it is empty"
        with file.open("rb") as opened:
            packed = opened.read(len(GZIP)) == GZIP
        if packed:
            head = beginning(file, _PEEK)
            if len(head) < _LEAST:
                return "nothing of it can be unpacked, so it was cut short or is damaged"
            if head.startswith(GZIP):
                return "it is packed twice, so unpack it once"
        find_reader(file)
    except InputError as e:
        return e.why.rstrip(".").removeprefix("By its content ") or e.what
    except OSError as e:
        return e.strerror or str(e)
    return what_it_is(file)
