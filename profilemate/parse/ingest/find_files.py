"""Which recordings a command line means: files, and directories that are searched for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from profilemate.errors import InputError
from profilemate.parse.ingest.left_out import left_out
from profilemate.parse.ingest.live_sessions import markers_of
from profilemate.parse.readers import find_recordings, wanted
from profilemate.parse.readers.refusals import EXAMPLES, unreadable
from profilemate.parse.recording.activity import ActivitySink
from profilemate.parse.recording.contract import Marker, Recording, SourceInfo, SourceKind
from profilemate.schema.live import MARKERS

_OURS = ("ranks", MARKERS)


def gather(paths: Sequence[Path]) -> dict[Path, bool]:
    """Every recording once, and whether it was found in a directory rather than named.

    A directory gives the recordings that lie in it. Those of a live session lie in its folder of
    markers; what else was put there, or in a folder of it (a torch profiler's directory), belongs
    to it. A directory without any recording gives those of the directories in it.

    Raises:
        InputError: A directory cannot be read.
    """
    found: dict[Path, bool] = {}
    for path in paths:
        inside = _inside(path) if path.is_dir() else []
        for one in inside:
            found.setdefault(one, True)
        if not inside:
            refused = left_out([path], ()) if path.is_dir() and not wanted(path) else []
            if refused:
                raise no_recording(path, refused)
            found[path] = False
    return found


def no_recording(folder: Path, refused: Sequence[str]) -> InputError:
    """What to say of a directory in which nothing can be read."""
    return InputError(
        "There is no recording in this directory", path=folder, why=" ".join(refused), hint=EXAMPLES
    )


def vanished(found: Mapping[Path, bool]) -> bool:
    """Whether one that was found in a directory is not there any more.

    Args:
        found: What `gather` said.
    """
    return any(searched and not path.exists() for path, searched in found.items())


def _inside(folder: Path) -> list[Path]:
    here = _direct(folder)
    below = [p for p in _folders(folder) if p not in here]
    if markers_of(folder) is not None:
        return [*here, *(r for p in below for r in find_recordings(p))]
    if not here:
        return [r for p in below for r in _direct(p)]
    return [*here, *(r for p in below if markers_of(p) is not None for r in _direct(p))]


def _direct(folder: Path) -> list[Path]:
    """Recordings in a directory; of a live session, its markers too."""
    markers = markers_of(folder)
    return [*([] if markers is None else find_recordings(markers)), *find_recordings(folder)]


def _folders(folder: Path) -> list[Path]:
    names = (p for p in sorted(folder.iterdir()) if not p.name.startswith("."))
    return [p for p in names if p.is_dir() and p.name not in _OURS]


class Unopened:
    """A recording that was found and cannot even be opened: reading it says why."""

    def __init__(self, path: Path, kind: SourceKind, error: InputError) -> None:
        self.info = SourceInfo(path, kind, 0)
        self._error = error

    def markers(self) -> Iterator[Marker]:
        """None.

        Raises:
            InputError: It cannot be opened.
        """
        raise self._error

    def annotations(self) -> Iterator[Marker]:
        """None."""
        return iter(())

    def activity(self, sink: ActivitySink) -> None:
        """None."""


class Tolerant:
    """A recording that was found, not named: one that cannot be read is left out, and said.

    Attributes:
        error: Why it could not be read, None if it could.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.error: InputError | None = None

    @property
    def info(self) -> SourceInfo:
        """Facts about the file."""
        return self._recording.info

    def markers(self) -> Iterator[Marker]:
        """Its messages, as far as it can be read."""
        try:
            yield from self._recording.markers()
        except (InputError, OSError) as e:
            error = e if isinstance(e, InputError) else unreadable(self.info.path, e)
            self.error = error
            why = f" ({error.why.rstrip('.')})" if error.why else ""
            self.info.notes.append(f"{self.info.path.name} is left out. {error.what}{why}.")

    def annotations(self) -> Iterator[Marker]:
        """Ranges of others."""
        return iter(()) if self.error else self._recording.annotations()

    def activity(self, sink: ActivitySink) -> None:
        """GPU activity."""
        if self.error is None:
            self._recording.activity(sink)
