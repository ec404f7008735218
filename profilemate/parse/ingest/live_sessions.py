"""Live sessions: where their markers are, and who still writes."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from profilemate.schema.live import MARKERS


def markers_of(path: Path) -> Path | None:
    """The folder with the sidecars of a live session, None for anything else."""
    folder = path / MARKERS
    return folder if folder.is_dir() else None


def only_session(paths: Sequence[Path]) -> Path | None:
    """The live session that is all of `paths`: its tables go where its markers are."""
    return paths[0] if len(paths) == 1 and markers_of(paths[0]) is not None else None


def being_written(folder: Path) -> list[str]:
    """Sidecars whose process lives."""
    found = []
    for file in sorted(folder.iterdir()):
        with suppress(OSError), file.open("rb") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(file.name)
    return found
