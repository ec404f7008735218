"""What each recording of a run is, by its content, and what of it concerns the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from profilemate.parse.merge.aligned_recordings import AlignedRecordings
from profilemate.parse.merge.engine_annotations import FORWARD_SCOPES
from profilemate.parse.merge.gpu_activity import Activity
from profilemate.parse.recording.activity import STEP_PREFIXES
from profilemate.parse.recording.contract import Silence, SourceInfo, SourceKind


@dataclass(frozen=True, slots=True)
class _Contents:
    """What tells which recordings concern the run.

    Attributes:
        speaking: Numbers of the recordings with messages of ours.
        stepping: Numbers of those with steps that the engine itself marks.
        known: The processes that either is of.
    """

    speaking: set[int]
    stepping: set[int]
    known: set[int]

    @classmethod
    def of(cls, recordings: AlignedRecordings) -> _Contents:
        stepping = {
            number
            for number, marker in recordings.activity.ranges
            if marker.text.startswith(STEP_PREFIXES) or marker.text in FORWARD_SCOPES
        }
        known = set(recordings.processes.key.values())
        known |= {m.pid for number, m in recordings.activity.ranges if number in stepping}
        return cls(set(recordings.index.recording.tolist()), stepping, known)

    def others_speak(self, number: int) -> bool:
        """Whether this recording is silent where another one has messages or steps."""
        return number not in self.speaking and bool((self.speaking | self.stepping) - {number})


def name_sources(recordings: AlignedRecordings) -> None:
    """Say what each recording is, by its content.

    A torch trace without any step may be that of vLLM's front end, which runs no model. That a
    recording holds no messages of ours is no loss where another one has those of its processes.
    """
    infos, contents = recordings.infos, _Contents.of(recordings)
    _note_holes(infos)
    active = contents.speaking | contents.stepping
    for number, info in enumerate(infos):
        if info.kind.by_torch and number not in active and len(infos) > 1:
            info.kind = SourceKind.TORCH_WITHOUT_STEPS
        if contents.others_speak(number) and contents.speaking:
            pids = _processes_in(recordings.activity, number)
            if number not in contents.stepping or pids & contents.known:
                info.notes = [note for note in info.notes if not isinstance(note, Silence)]


def leave_out_strangers(recordings: AlignedRecordings) -> Activity:
    """The activity without that of recordings that are of another program, which is said.

    Such a recording holds no step, and no process that another one has; alone it is all there is,
    and stays.
    """
    contents, activity = _Contents.of(recordings), recordings.activity
    for number, info in enumerate(recordings.infos):
        pids = _processes_in(recordings.activity, number)
        stranger = number not in contents.stepping and pids and not pids & contents.known
        if contents.others_speak(number) and stranger:
            activity, records = _without(activity, number)
            if records:
                info.notes.append(
                    f"{info.path.name} holds {records} graph launches and GPU records, but no step "
                    "of an engine and no process that has any elsewhere: they are left out."
                )
    return activity


def _processes_in(activity: Activity, number: int) -> set[int]:
    """Pids of the processes with activity in a recording, as that recording calls them."""
    return {
        int(pid)
        for columns in activity.columns.values()
        for pid in np.unique(columns["pid"][columns["recording"] == number])
        if pid >= 0
    }


def _without(activity: Activity, number: int) -> tuple[Activity, int]:
    """Activity without that of a recording; how many graph launches and GPU records that were."""
    records, rest = 0, {}
    for kind, columns in activity.columns.items():
        others = columns["recording"] != number
        if kind == "launches":
            records += int((~others).sum())
        elif kind == "work":
            records += int(columns["records"][~others].sum())
        rest[kind] = {name: values[others] for name, values in columns.items()}
    return replace(activity, columns=rest), records


_SEGMENT = re.compile(r"(?P<stem>.+?)(?:\.(?P<number>\d+))?\.trace\.json(?:\.gz)?")


def _note_holes(infos: Sequence[SourceInfo]) -> None:
    """Say which of a sidecar's files are missing between two that are there.

    The first may be gone because a sidecar has a largest size; the next one says so itself.
    """
    sidecars: dict[tuple[Path, str], dict[int, SourceInfo]] = {}
    for info in infos:
        segment = _SEGMENT.fullmatch(info.path.name)
        if info.kind is SourceKind.SIDECAR and segment is not None:
            key = (info.path.parent, segment["stem"])
            sidecars.setdefault(key, {})[int(segment["number"] or 1)] = info
    for (_, stem), parts in sidecars.items():
        missing = sorted(set(range(min(parts), max(parts))) - set(parts))
        if missing:
            names = ", ".join(f"{stem}.{number}.trace.json" for number in missing)
            parts[max(parts)].notes.append(
                f"Part of a sidecar is not there ({names}): what was in it is missing."
            )
