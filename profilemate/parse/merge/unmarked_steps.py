"""Steps of processes that did not annotate themselves: from the engine's own annotations.

They become rows of the same frames that our messages make, so no table tells them apart. What
cannot be known (the descriptor) is NA. Graphs are told apart by CUPTI's id or by what they launch,
and are called by that in `descriptor`: `graph:17`, `kernels:1a2b3c4d`, for several launches
`launches:1a2b3c4d`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from profilemate.parse.columns.arrays import Bools, Hashes, Ints, groups, numbered
from profilemate.parse.columns.intervals import inside, range_ends
from profilemate.parse.gpu.kernel_sequences import mix_by_group
from profilemate.parse.merge.engine_annotations import (
    StepFacts,
    capture_facts,
    is_step,
    stands_for_step,
    step_facts,
)
from profilemate.parse.merge.gpu_activity import AttributedActivity
from profilemate.parse.trace.event_columns import columns_of
from profilemate.schema.modes import EAGER, FULL, PIECEWISE

Rows = dict[str, npt.NDArray[np.object_] | Ints]


def with_unmarked_steps(
    frames: Mapping[str, pd.DataFrame], activity: AttributedActivity
) -> dict[str, pd.DataFrame]:
    """The frames, with steps, captures and stray launches of the processes without steps of ours.

    Args:
        frames: The frames that messages of ours make.
        activity: The engine's own annotations and its launches.
    """
    marked = {int(p) for n in ("step", "graph.replay") for p in frames[n]["pid"].unique()}
    ranges = activity.annotations[~activity.annotations["pid"].isin(marked)]
    launches = activity.launches[~activity.launches["pid"].isin(marked)]
    steps, facts = _step_ranges(ranges)
    begin = steps["ts"].to_numpy(dtype=np.int64)
    lane = numbered(
        *(np.concatenate([steps[c], launches[c]]).astype(np.int64) for c in ("pid", "tid"))
    )
    ts = launches["ts"].to_numpy(dtype=np.int64)
    step_lane, launch_lane = lane[: len(steps)], lane[len(steps) :]
    end = range_ends(step_lane, begin, steps["dur"].to_numpy(dtype=np.int64))
    step = inside(step_lane, begin, end, launch_lane, ts)  # of each launch, -1 for none
    graph = launches["graph"].to_numpy(dtype=np.uint64)
    names = _names(graph, launches["graph_id"].to_numpy(dtype=np.int64))
    has_launches = activity.api_calls is not None
    captures = [(row, f) for row, t in enumerate(ranges["text"]) if (f := capture_facts(t))]
    stray = np.flatnonzero(step < 0)
    return {
        **frames,
        "step": _appended(
            frames, "step", _steps(steps, facts, step, graph, names, has_launches=has_launches)
        ),
        "graph.capture": _appended(frames, "graph.capture", _captures(ranges, captures)),
        "graph.replay": _appended(
            frames,
            "graph.replay",
            {**_common(launches.iloc[stray]), "descriptor": names[stray]},
        ),
    }


def _step_ranges(ranges: pd.DataFrame) -> tuple[pd.DataFrame, list[StepFacts | None]]:
    """The ranges that are steps, and what their annotations say of each.

    Annotations of a whole step, or else what stands for it. Of those that lie in each other on one
    thread the outermost counts; what it leaves open the first one inside that knows tokens says.
    """
    step = ranges["text"].map(is_step).astype(bool)
    instead = ranges["text"].map(stands_for_step).astype(bool)
    instead &= ~ranges["pid"].isin(ranges["pid"][step])
    every = ranges[step | instead]
    outer = _outermost(every)
    facts = [step_facts(text) for text in every["text"]]
    said = {row: facts[row] for row in np.unique(outer).tolist()}
    for row, around in enumerate(outer.tolist()):
        known, inner = said[around], facts[row]
        if (known is None or known.tokens is None) and inner is not None and inner.tokens:
            said[around] = inner
    whole: Bools = outer == np.arange(len(every))
    return every[whole], [said[row] for row in np.flatnonzero(whole).tolist()]


def _outermost(ranges: pd.DataFrame) -> Ints:
    """The row of the outermost range that each range lies in on its thread, maybe its own."""
    begin, dur = (ranges[name].to_numpy(dtype=np.int64) for name in ("ts", "dur"))
    lane = numbered(*(ranges[name].to_numpy(dtype=np.int64) for name in ("pid", "tid")))
    end = range_ends(lane, begin, dur)
    outer = np.arange(len(begin))
    for _, rows in groups(lane):
        in_order = rows[np.lexsort((-end[rows], begin[rows]))]
        reached = np.maximum.accumulate(end[in_order])
        opens = np.ones(len(in_order), dtype=bool)
        opens[1:] = end[in_order][1:] > reached[:-1]
        first = np.maximum.accumulate(np.where(opens, np.arange(len(in_order)), 0))
        outer[in_order] = in_order[first]
    return outer


def _names(graph: Hashes, graph_id: Ints) -> npt.NDArray[np.object_]:
    """What to call the graph of each launch."""
    texts = [
        f"graph:{i}" if i > 0 else f"kernels:{g >> 32:08x}" if g else None
        for g, i in zip(graph.tolist(), graph_id.tolist(), strict=True)
    ]
    return np.array(texts, dtype=object)


def _steps(
    steps: pd.DataFrame,
    facts: Sequence[StepFacts | None],
    step: Ints,
    graph: Hashes,
    names: npt.NDArray[np.object_],
    *,
    has_launches: bool,
) -> Rows:
    """Columns of the frame `step` for some ranges that are steps.

    Args:
        steps: The ranges, rows of `Trace.annotations`.
        facts: What their annotations say of each.
        step: Row of `steps` that each launch lies in, -1 for none; launches are in order of time.
        graph: Graph of each launch.
        names: What that is called.
        has_launches: The recording has an API trace: a step without a launch has none.
    """
    count = len(steps)
    launches = np.bincount(step[step >= 0], minlength=count).astype(np.int64)
    mode = np.where(launches == 0, EAGER, np.where(launches == 1, FULL, PIECEWISE))
    descriptor = np.full(count, None, dtype=object)
    by_step = np.flatnonzero(step >= 0)  # launches in steps, by step and time
    by_step = by_step[np.argsort(step[by_step], kind="stable")]
    if len(by_step):
        mixed = np.zeros(count, dtype=np.uint64)
        mix_by_group(mixed, step[by_step], graph[by_step])
        for row in np.flatnonzero(launches > 1).tolist():
            descriptor[row] = f"launches:{int(mixed[row]) >> 32:08x}"
        single = by_step[launches[step[by_step]] == 1]
        descriptor[step[single]] = names[single]
    nothing = np.full(count, None, dtype=object)
    return {
        **_common(steps),
        "mode": mode.astype(object) if has_launches else nothing,
        "launches": launches if has_launches else nothing,
        "descriptor": descriptor,
        "unpadded": np.array([f and f.tokens for f in facts], dtype=object),
        "reqs": np.array([f and f.requests for f in facts], dtype=object),
        "prefill_tokens": np.array([f and f.prefill_tokens for f in facts], dtype=object),
        "decode_tokens": np.array([f and f.decode_tokens for f in facts], dtype=object),
    }


def _captures(ranges: pd.DataFrame, facts: Sequence[tuple[int, tuple[str, int]]]) -> Rows:
    """Columns of the frame `graph.capture`; `facts`: row of the range, mode and tokens of each."""
    rows = ranges.iloc[[row for row, _ in facts]]
    return {
        **_common(rows),
        "mode": np.array([mode for _, (mode, _) in facts], dtype=object),
        "num_tokens": np.array([tokens for _, (_, tokens) in facts], dtype=object),
    }


def _common(rows: pd.DataFrame) -> Rows:
    dur = rows["dur"].to_numpy(dtype=object)
    dur[rows["dur"].to_numpy(dtype=np.int64) < 0] = None
    return {"dur": dur, **{c: rows[c].to_numpy(dtype=np.int64) for c in ("ts", "pid", "tid")}}


def _appended(frames: Mapping[str, pd.DataFrame], name: str, rows: Rows) -> pd.DataFrame:
    """The frame of this name with more rows, in order of (ts, pid)."""
    count = len(rows["ts"])
    if not count:
        return frames[name]
    nothing = np.full(count, None, dtype=object)
    data = {
        column: pd.Series(rows.get(column, nothing), dtype=dtype)
        for column, dtype in columns_of(name).items()
    }
    every = pd.concat([f for f in (frames[name], pd.DataFrame(data)) if len(f)])
    return every.sort_values(["ts", "pid"], kind="stable", ignore_index=True)
