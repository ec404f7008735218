"""All tracks of a trace, process by process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.timeline import steps as steps_
from profilemate.parse.timeline.engine import engine
from profilemate.parse.timeline.gpu import gpus
from profilemate.parse.timeline.scope import Scope
from profilemate.parse.timeline.tracks import Batch, Flows
from profilemate.parse.timeline.worker import worker
from profilemate.parse.trace.ranks import Process, processes_of


def timeline(scope: Scope) -> Iterator[Batch]:
    """Everything that goes onto the timeline, in batches.

    Batches of one track are in order of time; batches of several tracks may alternate. After the
    last one `scope.outside` says what its window left out.
    """
    trace = scope.trace
    processes = processes_of(trace)
    engines = steps_.engines_of(processes)
    calls = steps_.schedule_calls(trace, engines)
    kind = steps_.kinds(trace.frames["step"])
    call_kind = steps_.call_kinds(trace, calls, kind)
    flows = _call_flows(calls, len(call_kind))
    seen = np.union1d(trace.work.rows["pid"], trace.launches["pid"]).astype(np.int64)
    known = {p.pid for p in processes}
    silent = [_silent(pid) for pid in seen.tolist() if pid not in known]
    for process in _in_order([*processes, *silent], engines):
        group = scope.tracks.make("group", _title(process, processes), pid=process.pid)
        yield from engine(scope, group, process.pid, call_kind, flows)
        yield from worker(scope, group, process.pid, kind, calls)
        yield from gpus(scope, group, process.pid, kind)


def _call_flows(calls: Ints, count: int) -> Flows:
    """Flow ids of each schedule call: one for each step that it made."""
    made = np.flatnonzero(calls >= 0)
    return Flows.grouped(calls[made], made + 1, count)


def _silent(pid: int) -> Process:
    return Process(pid, "", None, None, None, None, 0, 0)


def _in_order(processes: Sequence[Process], engines: dict[int, int]) -> list[Process]:
    """Each engine, then its workers by rank; what is neither comes last."""
    place = {p.pid: i for i, p in enumerate(processes) if "engine" in p.role}

    def key(process: Process) -> tuple[int, int, int, int]:
        own = place.get(process.pid, place.get(engines.get(process.pid, -1), len(processes)))
        return (own, process.pid not in place, process.pp or 0, process.tp or 0)

    return sorted(processes, key=key)


def _title(process: Process, processes: Sequence[Process]) -> str:
    """What a person calls a process: `Engine`, `Worker tp1`, and its pid."""
    role = {"engine": "Engine", "worker": "Worker", "engine+worker": "Engine and worker"}
    name = role.get(process.role, "Process")
    several = [p for p in processes if p.role == process.role]
    for rank in ("dp", "pp", "tp"):
        if len({getattr(p, rank) for p in several}) > 1:
            name += f" {rank}{getattr(process, rank) or 0}"
    return name if process.pid < 0 else f"{name} (pid {process.pid})"
