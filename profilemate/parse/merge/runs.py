"""Which recordings are of one run of vLLM, so that two runs are never added up by mistake.

Recordings belong together if a process speaks in both, or if they lie in the markers of one live
session; else if they overlap in time and do not claim the same place (two engines of the same
data-parallel rank are two servers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from profilemate.errors import InputError
from profilemate.parse.ingest.live_sessions import markers_of
from profilemate.parse.merge.aligned_recordings import AlignedRecordings
from profilemate.parse.merge.process_identity import Union
from profilemate.parse.recording.activity import STEP_PREFIXES
from profilemate.printable import shell_word
from profilemate.schema.live import MARKERS

NEAR_NS = 1_000_000_000
"""Recordings of one run may miss each other by this much."""
_SHOWN = 6

Claim = tuple[str, int, int, int]


@dataclass(slots=True)
class Run:
    """Recordings that belong together.

    Attributes:
        members: Their numbers.
        first: When the first of them began, on the trace's clock.
        last: When the last ended.
        claims: Role and ranks of each of their processes that said so.
        speaks: Whether there are messages of ours in them.
        steps: Whether there are steps of an engine in them, ours or its own.
    """

    members: list[int]
    first: int
    last: int
    claims: set[Claim] = field(default_factory=set)
    speaks: bool = False
    steps: bool = False

    def fits(self, other: Run) -> bool:
        """Whether the other one may be of the same run."""
        apart = max(self.first, other.first) - min(self.last, other.last)
        return apart <= NEAR_NS and not self.claims & other.claims

    def take(self, other: Run) -> None:
        """The other one is of the same run."""
        self.members += other.members
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.claims |= other.claims
        self.speaks |= other.speaks
        self.steps |= other.steps


def find_runs(recordings: AlignedRecordings) -> list[Run]:
    """Sort recordings by run: those with messages of ours first, each in order of time."""
    runs: list[Run] = []
    parts = sorted(
        _parts(recordings), key=lambda r: (not r.speaks, not r.steps, r.first, r.members)
    )
    for part in parts:
        fitting = [run for run in runs if run.fits(part)]
        # A recording without messages says nothing of its place: the first run at its time has it.
        if len(fitting) == 1 or (fitting and not part.speaks):
            fitting[0].take(part)
        else:
            runs.append(part)
    return runs


def _parts(recordings: AlignedRecordings) -> list[Run]:
    """Recordings that belong together for certain."""
    infos, processes = recordings.infos, recordings.processes
    together = Union(len(infos))
    by_process: dict[int, int] = {}
    for recording, process in zip(processes.recording, processes.process, strict=True):
        together.join(by_process.setdefault(process, recording), recording)
    by_folder: dict[Path, int] = {}
    for number, info in enumerate(infos):
        session = session_of(info.path)
        if session is not None:
            together.join(by_folder.setdefault(session, number), number)
    claims = recordings.claims()
    speaking = set(processes.recording)
    stepping = {n for n, m in recordings.activity.ranges if m.text.startswith(STEP_PREFIXES)}
    runs = []
    for members in together.sets().values():
        members = [m for m in members if infos[m].window is not None]
        windows = [infos[m].window or (0, 0) for m in members]
        shifts = [recordings.aligned.placements[m].shift for m in members]
        if members:
            runs.append(
                Run(
                    members,
                    min(a + by for (a, _), by in zip(windows, shifts, strict=True)),
                    max(b + by for (_, b), by in zip(windows, shifts, strict=True)),
                    {c for m in members for c in claims.get(m, ())},
                    bool(speaking & set(members)),
                    bool((speaking | stepping) & set(members)),
                )
            )
    return runs


def session_of(path: Path) -> Path | None:
    """The live session that a recording belongs to by the place it lies in."""
    for folder in path.parents[:2]:
        if folder.name == MARKERS:
            return folder.parent
        if markers_of(folder) is not None:
            return folder
    return None


def refuse_several(recordings: AlignedRecordings, named: Sequence[Path]) -> None:
    """Of recordings that were found in directories: all have to be of one run.

    Raises:
        InputError: They are not.
    """
    runs = [run for run in find_runs(recordings) if run.steps]
    if len(runs) > 1:
        lines = [
            f"Run {n}, {_when(recordings, run)}: {_what(recordings, run)}."
            for n, run in _list(runs)
        ]
        raise InputError(
            f"There are recordings of {len(runs)} runs here",
            path=named[0] if len(named) == 1 else None,
            why=" ".join(lines),
            hint="Parse one at a time:",
            command=tuple(f"profilemate parse {_typed(recordings, run)}" for run in runs),
        )


def doubt_several(recordings: AlignedRecordings) -> str | None:
    """Of recordings that were all named: what to say if they do not look like one run."""
    runs = [run for run in find_runs(recordings) if run.steps]
    if len(runs) < 2:
        return None
    listed = "; ".join(f"{n}: {_what(recordings, run)}" for n, run in _list(runs))
    return (
        f"These look like recordings of {len(runs)} runs ({listed}): they overlap neither in time "
        "nor in a process, or claim the same ranks. Parse them one at a time if they are."
    )


def _list(runs: Sequence[Run]) -> list[tuple[int, Run]]:
    return list(enumerate(runs, 1))


def _when(recordings: AlignedRecordings, run: Run) -> str:
    zero = recordings.aligned.zero
    if zero is None:
        return "of unknown time"
    begin, end = (datetime.fromtimestamp((zero + t) / 1e9) for t in (run.first, run.last))
    return f"{begin:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S}"


def _what(recordings: AlignedRecordings, run: Run) -> str:
    names = [recordings.infos[m].path.name for m in sorted(run.members)]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN))


def _typed(recordings: AlignedRecordings, run: Run) -> str:
    """What to type for a run: its session directory if it is all of one, else its files."""
    paths = [recordings.infos[m].path for m in sorted(run.members)]
    sessions = {session_of(path) for path in paths}
    if len(sessions) == 1 and (session := sessions.pop()) is not None:
        return shell_word(session)
    return " ".join(map(shell_word, paths))
