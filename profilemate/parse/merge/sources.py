"""What each recording of a run is, by its content, and what of it concerns the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from profilemate.parse.merge.engine_annotations import FORWARD_SCOPES
from profilemate.parse.merge.merged import Merged
from profilemate.parse.recording.activity import STEP_PREFIXES
from profilemate.parse.recording.contract import Silence, SourceInfo, SourceKind


def sort_out(merged: Merged) -> None:
    """Say what each recording is; take out the activity of those that are of another program.

    A torch trace without any step may be that of vLLM's front end, which runs no model. Alone it
    is all there is, and kept. That a recording holds no messages of ours is no loss where another
    one has those of its processes.
    """
    infos, activity = merged.infos, merged.activity
    _note_holes(infos)
    speaking = set(merged.heard.recording.tolist())
    stepping = {
        number
        for number, marker in activity.ranges
        if marker.text.startswith(STEP_PREFIXES) or marker.text in FORWARD_SCOPES
    }
    known = set(merged.processes.key.values())
    known |= {m.pid for number, m in activity.ranges if number in stepping}
    for number, info in enumerate(infos):
        if info.kind.by_torch and number not in speaking | stepping and len(infos) > 1:
            info.kind = SourceKind.TORCH_WITHOUT_STEPS
        if number in speaking or not (speaking | stepping) - {number}:
            continue
        pids = {
            int(pid)
            for columns in activity.columns.values()
            for pid in np.unique(columns["pid"][columns["recording"] == number])
            if pid >= 0
        }
        if speaking and (number not in stepping or pids & known):
            info.notes = [note for note in info.notes if not isinstance(note, Silence)]
        if pids and number not in stepping and not pids & known:
            _leave_out(merged, number)


def _leave_out(merged: Merged, number: int) -> None:
    activity = merged.activity
    records = 0
    for kind, columns in activity.columns.items():
        kept = columns["recording"] != number
        if kind in ("launches", "work"):
            records += int(columns["records"][~kept].sum() if kind == "work" else (~kept).sum())
        activity.columns[kind] = {name: values[kept] for name, values in columns.items()}
    if records:
        merged.infos[number].notes.append(
            f"{merged.infos[number].path.name} holds {records} graph launches and GPU records, but "
            "no step of an engine and no process that has any elsewhere: they are left out."
        )


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
    for (_, stem), found in sidecars.items():
        missing = sorted(set(range(min(found), max(found))) - set(found))
        if missing:
            names = ", ".join(f"{stem}.{number}.trace.json" for number in missing)
            found[max(found)].notes.append(
                f"Part of a sidecar is not there ({names}): what was in it is missing."
            )
