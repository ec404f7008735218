"""`cuda_graph_captures`, `cuda_graph_usage`, `cuda_graph_timeline`: the graphs of the workers.

A graph is known by its runtime mode and all fields of vLLM's BatchDescriptor. The standard files
show the four fields that every vLLM has, so graphs that differ in a further field (the number of
LoRA adapters) are rows that look alike.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import Bools, Column, Table, flags, frame_of, nullable, numbers
from profilemate.parse.tables.step_rows import on_graphs
from profilemate.parse.trace.cuda_event_times import timed
from profilemate.parse.trace.steps_on_gpu import Work, owners, work_of
from profilemate.parse.trace.trace import Trace, once_per_trace
from profilemate.schema import GRAPH_KEY

KEY = [f.name for f in GRAPH_KEY]

KEY_COLUMNS = (
    Column("runtime_mode", "value", "CUDAGraphMode: FULL or PIECEWISE"),
    Column("num_tokens", "value", "BatchDescriptor.num_tokens: tokens of the step after padding"),
    Column("num_reqs", "value", "BatchDescriptor.num_reqs, None where any number may run on it"),
    Column("uniform", "value", "BatchDescriptor.uniform: all requests have as many query tokens"),
    Column("has_lora", "value", "BatchDescriptor.has_lora: captured with LoRA active"),
)

CAPTURE_COLUMNS = (
    *KEY_COLUMNS,
    Column(
        "capture_time_sec",
        "seconds",
        "when its first piece was first captured (graph.capture), negative if that was before the "
        "recording began; graphs that were captured to measure memory and thrown away are left out",
    ),
)

USAGE_COLUMNS = (
    *KEY_COLUMNS,
    Column(
        "replay_count",
        "value",
        "model steps that ran on it (step, graph.replay), however many pieces each launched; "
        "dummy steps are left out",
    ),
)

TIMELINE_COLUMNS = (
    Column("timestamp_sec", "seconds", "begin of the step's first launch of the graph"),
    Column("descriptor", "value", "the graph, as vLLM prints its mode and BatchDescriptor"),
    Column(
        "duration_ms",
        "milliseconds",
        "GPU span where the launches have GPU records: begin of the first to end of the last; else "
        "the time between CUDA events around them (PROFILEMATE_GPU_TIMING); else "
        "the host duration: the sum over the launches of the graph in the step (graph.replay), or "
        "the model execution (step) where its launches have no ranges of their own. metadata.json "
        "says which",
    ),
)


def key_codes(*frames: pd.DataFrame) -> tuple[list[Ints], pd.DataFrame]:
    """Number the graphs of several frames together; the numbers' keys are the rows of the frame.

    Versions that know no `num_active_loras` and those that say 0 mean the same.
    """
    keys = pd.concat([f[KEY] for f in frames], ignore_index=True)
    keys["num_active_loras"] = keys["num_active_loras"].fillna(0)
    code = np.zeros(len(keys), dtype=np.int64)
    for name in KEY:
        part, values = pd.factorize(keys[name])
        _, code = np.unique(code * (len(values) + 1) + part + 1, return_inverse=True)
    _, examples = np.unique(code, return_index=True)
    cuts = np.cumsum([len(f) for f in frames])[:-1]
    return np.split(code, cuts), keys.iloc[examples].reset_index(drop=True)


def captures(trace: Trace) -> pd.DataFrame:
    """The captures of the graphs in use.

    A recording that began later was told the graphs once more, one event for all pieces of a
    graph (`again`): it counts, once, where the recording does not have the captures themselves.
    """
    capture = trace.frames["graph.capture"]
    capture = capture[~flags(capture["phase"] == "profile")]
    again = flags(capture["again"].notna())
    if not again.any():
        return capture
    graph = capture[["pid", *KEY, "owner", "model"]]
    # Captures come first, then of what was told again that which tells of most.
    order = np.lexsort((-numbers(capture["again"], 0), again))
    repeated = np.zeros(len(capture), dtype=bool)
    repeated[order] = graph.iloc[order].duplicated().to_numpy()
    return capture[~(again & repeated)]


def cuda_graph_captures(trace: Trace) -> pd.DataFrame:
    """One row per graph, in order of first capture."""
    capture = captures(trace)
    (code,), keys = key_codes(capture)
    first = pd.Series(capture["ts"].to_numpy(dtype=np.int64)).groupby(code).min()
    first = first.sort_values(kind="stable")
    data = _key_data(keys.iloc[first.index.to_numpy()])
    return frame_of(CAPTURE_COLUMNS, {**data, "capture_time_sec": first.to_numpy(dtype=np.int64)})


def _key_data(keys: pd.DataFrame) -> dict[str, object]:
    return {
        column.name: keys[name].array
        for column, name in zip(KEY_COLUMNS, KEY[: len(KEY_COLUMNS)], strict=True)
    }


def _on_graphs(frame: pd.DataFrame) -> Bools:
    return ~flags(frame["dummy"]) & on_graphs(frame["mode"])


def _step_ids(frame: pd.DataFrame) -> Ints:
    """One number per (process, step number): process ids have 22 bits."""
    return (frame["pid"].to_numpy(dtype=np.int64) << 40) | numbers(frame["step"], 0)


def _same_step(left: pd.DataFrame, right: pd.DataFrame) -> Bools:
    """Rows of `left` whose (process, step number) is in `right`; unknown numbers match nothing."""
    known = right[flags(right["step"].notna())]
    return np.isin(_step_ids(left), _step_ids(known)) & flags(left["step"].notna())


@dataclass(frozen=True, slots=True)
class GraphSteps:
    """Model steps that ran on graphs.

    Attributes:
        rows: `pid`, `run`, `graph` (a number), `ts`, `dur` (on the host), `hooked` (launches that
            hooks saw or expected, -1 where none says), `own` (it is the graph of the step's model,
            not of another one in it, such as a drafter's), in order of time.
        keys: The graphs, by their number.
        work: Launches and GPU records of each row.
    """

    rows: pd.DataFrame
    keys: pd.DataFrame
    work: Work


_SAME = ["pid", "run", "graph"]


def graph_steps(trace: Trace, *, unknown: bool = False) -> GraphSteps:
    """One row per (process, step, graph).

    A `step` event says the graph of its model, unless it ran eagerly or launched nothing (then
    vLLM captured the graph in this step). A `graph.replay` event says a launch: of the same graph
    again, which adds nothing but its time, or of another one, such as a drafter's. Launches
    without a step number count where their process has no `step` events, by their first piece; two
    models on equal graphs then count twice. Dummy steps, which keep ranks in lock-step, are left
    out.

    Args:
        trace: The trace.
        unknown: Each launch of a place that no hook knows is a row too.
    """
    return _with_unknown(trace) if unknown else _without_unknown(trace)


@once_per_trace  # five tables ask for it
def _with_unknown(trace: Trace) -> GraphSteps:
    return _graph_steps(trace, unknown=True)


@once_per_trace
def _without_unknown(trace: Trace) -> GraphSteps:
    return _graph_steps(trace, unknown=False)


def _graph_steps(trace: Trace, *, unknown: bool) -> GraphSteps:
    """See `graph_steps`."""
    every_step, launches = trace.frames["step"], trace.frames["graph.replay"]
    dummies = every_step[flags(every_step["dummy"])]
    steps = every_step[_on_graphs(every_step) & (numbers(every_step["launches"], 1) > 0)]
    stray = launches[flags(launches["mode"].isna()) & ~flags(launches["dummy"]) & unknown]
    launches = launches[_on_graphs(launches) & ~_same_step(launches, dummies)]
    (step_graph, launch_graph, stray_graph), keys = key_codes(steps, launches, stray)

    columns = ["pid", "ts", "dur"]
    by_step = steps[columns].assign(
        graph=step_graph, run=_numbers_or_others(steps["step"]), hooked=_hooked(trace, steps)
    )
    launched = launches[columns].assign(
        graph=launch_graph, run=numbers(launches["step"], 0), hooked=1
    )
    unnumbered = flags(launches["step"].isna())
    # Launches of a process come in order of time: a first piece opens a run of its graph.
    opens = unnumbered & (numbers(launches["piece"], 0) == 0)
    run = pd.Series(opens).groupby([launched["pid"].to_numpy(), launch_graph]).cumsum()
    launched.loc[unnumbered, "run"] = -run.to_numpy(dtype=np.int64)[unnumbered]
    has_steps = launches["pid"].isin(every_step["pid"]).to_numpy()
    launched = launched[~unnumbered | (~has_steps & (launched["run"] < 0))]
    in_runs = launched.groupby(_SAME, sort=False)
    runs = in_runs["ts"].min().to_frame().join(in_runs["dur"].sum(min_count=1))
    runs = runs.join(in_runs["hooked"].sum()).reset_index()
    alone = stray[columns].assign(
        graph=stray_graph, run=-(1 << 60) - np.arange(len(stray)), hooked=1
    )
    every = pd.concat([runs, by_step, alone], ignore_index=True)
    every["hooked"] = every.groupby(_SAME, sort=False)["hooked"].transform("max")
    every = every.drop_duplicates(_SAME)
    every = every.sort_values(["ts", "pid", "graph"], ignore_index=True)
    # Row of `every` that each replay and each step is part of, and by these each launch.
    of_replays = _rows_of(every, pd.concat([launched, alone]), len(trace.frames["graph.replay"]))
    of_steps = _rows_of(every, by_step, len(every_step))
    every["own"] = np.isin(np.arange(len(every)), of_steps)
    owner = owners(trace)
    group = of_replays[owner.replay]
    group = np.where(group >= 0, group, of_steps[owner.step])
    return GraphSteps(every, keys, work_of(trace, group, len(every)))


def _hooked(trace: Trace, steps: pd.DataFrame) -> Ints:
    """Launches of each step as its hooks counted them, or else as the captures let expect."""
    ends = trace.frames["step.end"]
    ends = ends[flags(ends["step"].notna() & ends["seen"].notna())]
    order = np.argsort(_step_ids(ends), kind="stable")
    ids, seen = _step_ids(ends)[order], numbers(ends["seen"], -1)[order]
    expected = numbers(steps["launches"], -1)
    if not len(ids):
        return expected
    wanted = _step_ids(steps)
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where((ids[at] == wanted) & flags(steps["step"].notna()), seen[at], expected)


def _rows_of(every: pd.DataFrame, events: pd.DataFrame, length: int) -> Ints:
    """Row of `every` that each row of the events' frame is part of; one -1 more at the end."""
    rows = np.full(length + 1, -1, dtype=np.int64)
    known = every[_SAME].assign(row=np.arange(len(every), dtype=np.int64))
    merged = events[_SAME].merge(known, on=_SAME, how="left")
    rows[events.index.to_numpy(dtype=np.int64)] = merged["row"].to_numpy(dtype=np.int64)
    return rows


def _numbers_or_others(step: pd.Series) -> Ints:
    """Step numbers; those that are not known get negative ones that nobody else has."""
    unknown = -np.arange(1, len(step) + 1, dtype=np.int64)
    return np.where(step.isna(), unknown, numbers(step, 0))


def cuda_graph_usage(trace: Trace) -> pd.DataFrame:
    """One row per graph that was replayed, most replayed first."""
    on_graphs = graph_steps(trace)
    steps, keys = on_graphs.rows, on_graphs.keys
    count = steps.groupby("graph").size()
    used = keys.iloc[count.index.to_numpy()].assign(replay_count=count.to_numpy(dtype=np.int64))
    order = ["replay_count", *KEY]
    used = used.sort_values(order, ascending=[False, *[True] * len(KEY)], na_position="last")
    return frame_of(USAGE_COLUMNS, {**_key_data(used), "replay_count": used["replay_count"].array})


def _describe(key: Mapping[Hashable, object]) -> str:
    fields = {name: key[name] for name in ("num_tokens", "num_reqs", "uniform", "has_lora")}
    if key["num_active_loras"]:
        fields["num_active_loras"] = key["num_active_loras"]
    text = ", ".join(f"{name}={value}" for name, value in fields.items())
    for further in str(key["descriptor"] or "").split(","):
        name, _, value = further.partition(":")
        text += f", {name}={value}" if name else ""
    return f"{key['mode']}:BatchDescriptor({text})"


@dataclass(frozen=True, slots=True)
class Durations:
    """How long model steps on graphs took, by the best that is known of each.

    Attributes:
        ns: The duration, -1 where none is known.
        on: Row of `PLACES` that says where it was measured, -1 where it was not.
    """

    ns: Ints
    on: Ints


PLACES = ("gpu", "CUDA events", "host")
"""Where a duration can be measured, the best first: GPU records, events on the GPU, the host."""


def between_events(trace: Trace, on_graphs: GraphSteps) -> Ints:
    """Time between CUDA events of each row, ns, -1 where unknown; only a model's own have any."""
    steps = on_graphs.rows
    return np.where(steps["own"], timed(trace, steps["pid"], steps["run"]), -1)


def durations_of(trace: Trace, on_graphs: GraphSteps) -> Durations:
    """The duration of each row of `on_graphs`."""
    steps, gpu = on_graphs.rows, on_graphs.work.gpu
    measured = (
        np.where(gpu.count > 0, gpu.span, -1),
        between_events(trace, on_graphs),
        numbers(steps["dur"], -1),
    )
    ns, on = np.full(len(steps), -1, dtype=np.int64), np.full(len(steps), -1, dtype=np.int64)
    for place, values in enumerate(measured):
        better = (on < 0) & (values >= 0)
        ns[better], on[better] = values[better], place
    return Durations(ns, on)


def cuda_graph_timeline(trace: Trace) -> pd.DataFrame:
    """One row per model step that ran on a graph, in order of time."""
    on_graphs = graph_steps(trace)
    steps, keys = on_graphs.rows, on_graphs.keys
    dur = durations_of(trace, on_graphs).ns
    known = keys.astype(object).where(keys.notna(), None)
    names = pd.Series([_describe(key) for key in known.to_dict("records")], dtype="string")
    data = {
        "timestamp_sec": steps["ts"],
        "descriptor": names.take(steps["graph"].to_numpy(dtype=np.int64)).array,
        "duration_ms": nullable(dur, dur >= 0),
    }
    return frame_of(TIMELINE_COLUMNS, data)


TABLES = (
    Table(
        "cuda_graph_captures",
        "One row per captured graph, in order of first capture.",
        CAPTURE_COLUMNS,
        cuda_graph_captures,
        standard=True,
        events=("graph.capture",),
    ),
    Table(
        "cuda_graph_usage",
        "One row per replayed graph, most replayed first.",
        USAGE_COLUMNS,
        cuda_graph_usage,
        standard=True,
        events=("graph.replay", "step"),
    ),
    Table(
        "cuda_graph_timeline",
        "One row per model step that ran on a graph, in order of time.",
        TIMELINE_COLUMNS,
        cuda_graph_timeline,
        standard=True,
        events=("graph.replay", "step"),
    ),
)
