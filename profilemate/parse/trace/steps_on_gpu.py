"""Whose GPU work is whose: GPU records to launches, launches to steps and replays.

GPU work belongs to the launch whose correlation id it carries, in the same process of the same
recording: never by time, since it may start long after its host range has ended (CUPTI's
documentation of `CUpti_ActivityKernel.correlationId`). A launch belongs to the step whose range,
on the same process and thread, it begins in: on the host a call is where it is.

All GPU work of a step is more: vLLM computes logits and samples after `execute_model` has returned,
so whatever its thread starts until the next step begins is of the step. What a thread starts after
the capture of a graph is of no step until one begins, nor is what it starts before its first.

Definitions, all in ns:
* GPU span: end of the last record less begin of the first.
* GPU busy: length of the union of the records' intervals, so overlapping ones count once.
* GPU idle: span less busy.
* GPU delay: begin of the first record less begin of the launch call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import FOREVER, Columns, Ints, numbered
from profilemate.parse.columns.intervals import inside, last_begun, range_ends
from profilemate.parse.gpu.interval_unions import Folded, fold, fold_work
from profilemate.parse.trace.trace import Trace, once_per_trace


@dataclass(frozen=True, slots=True)
class Owners:
    """Row of the frames `step` and `graph.replay` that each launch lies in, -1 for none."""

    step: Ints
    replay: Ints


@dataclass(frozen=True, slots=True)
class Work:
    """What groups of launches did: one element per group, ns.

    Attributes:
        launches: Launch calls.
        host: Sum of their durations.
        called: Begin of the first of them that has GPU records, 0 for none.
        gpu: Their GPU records.
    """

    launches: Ints
    host: Ints
    called: Ints
    gpu: Folded


@once_per_trace
def owners(trace: Trace) -> Owners:
    """Find out in which step and in which replay each launch of a trace lies."""
    calls = {name: trace.launches[name].to_numpy(np.int64) for name in ("pid", "tid", "ts")}
    return Owners(
        _lie_in(trace.frames["step"], calls), _lie_in(trace.frames["graph.replay"], calls)
    )


def _lie_in(ranges: pd.DataFrame, calls: Columns) -> Ints:
    """The row of a frame that each call lies in, by process, thread and time on the host.

    Args:
        ranges: A frame with `ts`, `dur`, `pid` and `tid`.
        calls: `pid`, `tid` and `ts` (ns) of n calls.

    Returns:
        Length n; -1 for a call in none of the ranges.
    """
    begin = ranges["ts"].to_numpy(dtype=np.int64)
    dur = ranges["dur"].to_numpy(dtype=np.int64, na_value=-1)
    lane = numbered(
        *(np.concatenate([ranges[c].to_numpy(np.int64), calls[c]]) for c in ("pid", "tid"))
    )
    count = len(ranges)
    end = range_ends(lane[:count], begin, dur)
    return inside(lane[:count], begin, end, lane[count:], calls["ts"])


def work_of(trace: Trace, group: Ints, groups: int) -> Work:
    """Fold launches and their GPU records by group.

    Args:
        trace: The trace.
        group: Group of each row of `trace.launches`, -1 for a launch in none.
        groups: How many groups there are.
    """
    launches = trace.launches
    grouped = np.flatnonzero(group >= 0)  # rows of `launches`
    host_ns = np.zeros(groups, dtype=np.int64)
    np.add.at(host_ns, group[grouped], launches["dur"].to_numpy(np.int64)[grouped])
    on_gpu = grouped[launches["records"].to_numpy(np.int64)[grouped] > 0]
    called_ns = np.full(groups, FOREVER, dtype=np.int64)
    np.minimum.at(called_ns, group[on_gpu], launches["ts"].to_numpy(np.int64)[on_gpu])
    called_ns[called_ns == FOREVER] = 0
    work, overlaps = trace.work.rows, trace.work.overlaps
    launch = work["launch"]  # `id` of the launch of each row of work, -1 for none
    # A trace of some processes has not all launches: their ids rise, with gaps.
    launch_row = np.searchsorted(launches["id"].to_numpy(np.int64), launch)
    work_group = np.append(group, -1)[np.where(launch >= 0, launch_row, -1)]
    count = np.bincount(group[grouped], minlength=groups).astype(np.int64)
    return Work(count, host_ns, called_ns, fold_work(work_group, groups, work, overlaps))


@once_per_trace
def step_work(trace: Trace) -> Work:
    """The graph launches of every row of the frame `step`, and their GPU records."""
    return work_of(trace, owners(trace).step, len(trace.frames["step"]))


CAPTURES, BEFORE, ELSEWHERE = -2, -3, -4
"""Instead of a step: started after a graph was captured; before the first step of its thread; by a
thread without steps, or by a call that was not recorded."""


@once_per_trace
def starters(trace: Trace) -> Ints:
    """The row of the frame `step` that started each row of `Trace.work`, or see `CAPTURES`.

    A step is execute_model and then sample_tokens, in which the lm_head and the sampler run; where
    that is not marked, what its thread starts until the next step begins.
    """
    steps, captures = (trace.frames[name] for name in ("step", "graph.capture"))
    work = trace.work.rows
    found = np.full(len(work["pid"]), ELSEWHERE, dtype=np.int64)
    called = np.flatnonzero(work["host_ts"] >= 0)  # rows of work whose call was recorded
    calls = {
        name: work[column][called].astype(np.int64)
        for name, column in (("pid", "pid"), ("tid", "host_tid"), ("ts", "host_ts"))
    }
    lane = numbered(
        *(
            np.concatenate([steps[c].to_numpy(np.int64), captures[c].to_numpy(np.int64), calls[c]])
            for c in ("pid", "tid")
        )
    )
    begin = np.concatenate([frame["ts"].to_numpy(np.int64) for frame in (steps, captures)])
    ranges, lane_of_call = lane[: len(begin)], lane[len(begin) :]
    latest = last_begun(ranges, begin, begin, lane_of_call, calls["ts"], own=False)
    before = np.where(np.isin(lane_of_call, ranges[: len(steps)]), BEFORE, ELSEWHERE)
    after = np.where(latest >= len(steps), CAPTURES, np.where(latest < 0, before, latest))
    within = _lie_in(steps, calls)  # a graph may be captured in the middle of a step
    # A process that marks sample_tokens says where its steps end.
    marked = np.isin(calls["pid"], trace.frames["step.sample"]["pid"].to_numpy(np.int64))
    after = np.where(marked & (after >= 0), ELSEWHERE, after)
    of_sample = np.append(_steps_of_samples(trace), -1)
    sampled = of_sample[_lie_in(trace.frames["step.sample"], calls)]
    found[called] = np.where(within >= 0, within, np.where(sampled >= 0, sampled, after))
    return found


@once_per_trace
def step_gpu(trace: Trace) -> Folded:
    """All GPU records that the rows of the frame `step` started, eager ones too."""
    step = np.maximum(starters(trace), -1)
    return fold_work(step, len(trace.frames["step"]), trace.work.rows, trace.work.overlaps)


def _steps_of_samples(trace: Trace) -> Ints:
    """The row of the frame `step` that each row of `step.sample` is the rest of, -1 for none."""
    steps, samples = trace.frames["step"], trace.frames["step.sample"]
    keys = ["pid", "step"]
    known = steps[keys].assign(row=np.arange(len(steps), dtype=np.int64))
    known = known[known["step"].notna()].drop_duplicates(keys, keep="last")
    found = samples[keys].merge(known, on=keys, how="left")["row"]
    return found.to_numpy(dtype=np.int64, na_value=-1)


def gpu_time(trace: Trace) -> int:
    """Time in which the GPUs did anything at all: the union of all records, per device, ns."""
    work, overlaps = trace.work.rows, trace.work.overlaps
    device = numbered(overlaps["pid"], overlaps["device"])
    groups = int(device.max()) + 1 if len(device) else 0
    mixed = fold(device, groups, overlaps["start"], overlaps["end"]).busy
    return int(work["busy"].sum() + mixed.sum())
