"""`ranks`: the processes of a run side by side, to find the one that is late."""

from __future__ import annotations

import numpy as np
import pandas as pd

from profilemate.parse.tables.base import Column, Table, flags, frame_of
from profilemate.parse.tables.cuda_graphs import PLACES, durations_of, graph_steps
from profilemate.parse.trace.ranks import Process, RankTrace, split_ranks
from profilemate.parse.trace.trace import Trace

COLUMNS = (
    Column(
        "rank", "value", "its rank: top-level files are of the first, those of others in ranks/"
    ),
    Column("role", "value", "engine, worker, or engine+worker in one process; None where unknown"),
    Column("host", "value", "its host, as it said"),
    Column("pid", "value", "its process id"),
    Column("dp_rank", "value", "data-parallel rank, as it said, or else its recording"),
    Column("pp_rank", "value", "pipeline-parallel rank"),
    Column("tp_rank", "value", "tensor-parallel rank"),
    Column("recording", "value", "recording that holds most of its events"),
    Column(
        "clock_offset_ms",
        "fine_milliseconds",
        "what was added to that recording's wall clock to put it on the time line of the session; "
        "None for one without a wall clock",
    ),
    Column(
        "clock_error_ms",
        "fine_milliseconds",
        "largest difference that was left to the recording it was put on the time line by; None "
        "where there was nothing to compare",
    ),
    Column("events", "value", "events of it that were read"),
    Column("steps", "value", "model steps of a worker without dummy ones, else scheduler steps"),
    Column("graph_steps", "value", "model steps that ran on a graph"),
    Column(
        "replay_p50_ms",
        "fine_milliseconds",
        "median of their durations, as in cuda_graph_timeline: of GPU records, else between CUDA "
        "events (PROFILEMATE_GPU_TIMING), else on the host",
    ),
    Column(
        "replay_on",
        "value",
        "where that was measured: gpu, CUDA events, host, or a mix: gpu and host",
    ),
    Column(
        "replay_ratio",
        "ratio",
        "replay_p50_ms to the median of it over all processes: above 1 is slower than the others",
    ),
    Column("files", "value", "names of all recordings that hold something of it, the best first"),
)


def ranks(trace: Trace) -> pd.DataFrame:
    """One row per process of the whole run, in the order of ranks."""
    rows = [_row(trace, rank, process) for rank in split_ranks(trace) for process in rank.processes]
    frame = pd.DataFrame(rows, columns=[c.name for c in COLUMNS if c.name != "replay_ratio"])
    texts = ("rank", "role", "host", "recording", "replay_on", "files")
    typed = {
        name: pd.Series(frame[name], dtype="string" if name in texts else "Int64")
        for name in frame.columns
    }
    p50 = typed["replay_p50_ms"].astype("Float64")
    # pandas 2 warns of a median of nothing.
    middle = p50.median() if p50.notna().any() else pd.NA
    return frame_of(COLUMNS, {**typed, "replay_ratio": p50 / middle})


def _row(trace: Trace, rank: RankTrace, process: Process) -> dict[str, object]:
    """The row of a process, but for `replay_ratio`."""
    steps, calls = (rank.trace.frames[n] for n in ("step", "sched.step"))
    steps = steps[(steps["pid"] == process.pid) & ~flags(steps["dummy"])]
    scheduled = int((calls["pid"] == process.pid).sum())
    count, p50, where = _replays(rank.trace, process.pid)
    sources = trace.sources_of.get(process.pid, [])
    source = next(iter(sources), None)
    names = " ".join(trace.sources[number].path.name for number in sources)
    placed = None if source is None else trace.placements[source]
    return {
        "rank": rank.rank.folder,
        "role": _utf8(process.role or None),
        "host": _utf8(process.host),
        "pid": trace.aliases.get(process.pid, process.pid),
        "dp_rank": process.dp,
        "pp_rank": process.pp,
        "tp_rank": process.tp,
        "recording": None if source is None else _utf8(trace.sources[source].path.name),
        "clock_offset_ms": None if placed is None else placed.offset,
        "clock_error_ms": None if placed is None else placed.error,
        "events": process.events,
        "steps": len(steps) or scheduled,
        "graph_steps": count,
        "replay_p50_ms": p50,
        "replay_on": where,
        "files": _utf8(names or None),
    }


def _utf8(text: str | None) -> str | None:
    """The text as the CSV file will have it: a name need not be UTF-8, a column of texts is."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def _replays(trace: Trace, pid: int) -> tuple[int, int | None, str | None]:
    """Model steps of a process that ran on graphs, the median of their durations, and of what."""
    on_graphs = graph_steps(trace)
    of_process = on_graphs.rows["pid"].to_numpy(dtype=np.int64) == pid
    durations = durations_of(trace, on_graphs)
    place = durations.on[of_process]
    known = np.sort(durations.ns[of_process][place >= 0])
    places = " and ".join(PLACES[number] for number in np.unique(place[place >= 0]).tolist())
    # The nearest rank: a duration that was measured.
    p50 = int(known[(len(known) - 1) // 2]) if len(known) else None
    return int(of_process.sum()), p50, places or None


TABLES = (
    Table(
        "ranks",
        "One row per process of the run, of all ranks.",
        COLUMNS,
        ranks,
        of_run=True,
        events=("step",),
    ),
)
