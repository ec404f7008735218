"""Steps of processes that did not annotate themselves: from the engine's own annotations.

They become rows of the same frames that our messages make, so no table tells them apart. What
cannot be known (the descriptor) is NA. Graphs are told apart by CUPTI's id or by what they launch,
and are called by that in `descriptor`: `graph:17`, `kernels:1a2b3c4d`, for several launches
`launches:1a2b3c4d`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.columns.arrays import Hashes, Ints, numbered
from profilemate.parse.columns.intervals import inside, range_ends
from profilemate.parse.gpu.kernel_sequences import mix_by_group
from profilemate.parse.merge.engine_annotations import FORWARD_SCOPES, capture_facts, step_facts
from profilemate.parse.recording.activity import STEP_PREFIXES
from profilemate.parse.trace.event_columns import columns_of
from profilemate.parse.trace.trace import Trace
from profilemate.schema.modes import EAGER, FULL, PIECEWISE

Rows = dict[str, npt.NDArray[np.object_] | Ints]


def add_steps(trace: Trace) -> None:
    """Add steps, captures and stray launches of the processes without steps of ours."""
    marked = {int(p) for n in ("step", "graph.replay") for p in trace.frames[n]["pid"].unique()}
    ranges = trace.annotations[~trace.annotations["pid"].isin(marked)]
    launches = trace.launches[~trace.launches["pid"].isin(marked)]
    steps = _step_ranges(ranges)
    begin = steps["ts"].to_numpy(dtype=np.int64)
    lane = numbered(
        *(np.concatenate([steps[c], launches[c]]).astype(np.int64) for c in ("pid", "tid"))
    )
    ts = launches["ts"].to_numpy(dtype=np.int64)
    lane, of_launch = lane[: len(steps)], lane[len(steps) :]
    end = range_ends(lane, begin, steps["dur"].to_numpy(dtype=np.int64))
    step = inside(lane, begin, end, of_launch, ts)
    graph = launches["graph"].to_numpy(dtype=np.uint64)
    names = _names(graph, launches["graph_id"].to_numpy(dtype=np.int64))
    _append(trace, "step", _steps(trace, steps, step, graph, names))
    captures = [(row, f) for row, t in enumerate(ranges["text"]) if (f := capture_facts(t))]
    _append(trace, "graph.capture", _captures(ranges, captures))
    stray = np.flatnonzero(step < 0)
    _append(
        trace,
        "graph.replay",
        {**_common(launches.iloc[stray]), "descriptor": names[stray]},
    )


def _step_ranges(ranges: pd.DataFrame) -> pd.DataFrame:
    """The ranges that are steps: annotations of one, or else scopes of the forward pass."""
    said = ranges["text"].map(lambda t: t.startswith(STEP_PREFIXES)).astype(bool)
    forward = ranges["text"].map(lambda t: t in FORWARD_SCOPES).astype(bool)
    forward &= ~ranges["pid"].isin(ranges["pid"][said])
    return ranges[said | forward]


def _names(graph: Hashes, graph_id: Ints) -> npt.NDArray[np.object_]:
    """What to call the graph of each launch."""
    texts = [
        f"graph:{i}" if i > 0 else f"kernels:{g >> 32:08x}" if g else None
        for g, i in zip(graph.tolist(), graph_id.tolist(), strict=True)
    ]
    return np.array(texts, dtype=object)


def _steps(
    trace: Trace, steps: pd.DataFrame, step: Ints, graph: Hashes, names: npt.NDArray[np.object_]
) -> Rows:
    facts = [step_facts(text) for text in steps["text"]]
    count = len(steps)
    launches = np.bincount(step[step >= 0], minlength=count).astype(np.int64)
    mode = np.where(launches == 0, EAGER, np.where(launches == 1, FULL, PIECEWISE))
    called = np.full(count, None, dtype=object)
    kept = np.flatnonzero(step >= 0)
    kept = kept[np.argsort(step[kept], kind="stable")]  # launches are in order of time
    if len(kept):
        mixed = np.zeros(count, dtype=np.uint64)
        mix_by_group(mixed, step[kept], graph[kept])
        for row in np.flatnonzero(launches > 1).tolist():
            called[row] = f"launches:{int(mixed[row]) >> 32:08x}"
        single = kept[launches[step[kept]] == 1]
        called[step[single]] = names[single]
    unknown = trace.api_calls is None
    nothing = np.full(count, None, dtype=object)
    return {
        **_common(steps),
        "mode": nothing if unknown else mode.astype(object),
        "launches": nothing if unknown else launches,
        "descriptor": called,
        "unpadded": np.array([f and f.tokens for f in facts], dtype=object),
        "reqs": np.array([f and f.requests for f in facts], dtype=object),
        "prefill_tokens": np.array([f and f.prefill_tokens for f in facts], dtype=object),
        "decode_tokens": np.array([f and f.decode_tokens for f in facts], dtype=object),
    }


def _captures(ranges: pd.DataFrame, found: Sequence[tuple[int, tuple[str, int]]]) -> Rows:
    rows = ranges.iloc[[row for row, _ in found]]
    return {
        **_common(rows),
        "mode": np.array([mode for _, (mode, _) in found], dtype=object),
        "num_tokens": np.array([tokens for _, (_, tokens) in found], dtype=object),
    }


def _common(rows: pd.DataFrame) -> Rows:
    dur = rows["dur"].to_numpy(dtype=object)
    dur[rows["dur"].to_numpy(dtype=np.int64) < 0] = None
    return {"dur": dur, **{c: rows[c].to_numpy(dtype=np.int64) for c in ("ts", "pid", "tid")}}


def _append(trace: Trace, name: str, rows: Rows) -> None:
    """Add rows to a frame, which stays in order of (ts, pid)."""
    count = len(rows["ts"])
    if not count:
        return
    nothing = np.full(count, None, dtype=object)
    data = {
        column: pd.Series(rows.get(column, nothing), dtype=dtype)
        for column, dtype in columns_of(name).items()
    }
    every = pd.concat([f for f in (trace.frames[name], pd.DataFrame(data)) if len(f)])
    trace.frames[name] = every.sort_values(["ts", "pid"], kind="stable", ignore_index=True)
