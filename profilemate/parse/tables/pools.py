"""The block pools of a trace, and the scheduler step that an operation belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints
from profilemate.parse.tables.base import Bools, flags, kept, numbers
from profilemate.parse.trace.kv_log import Slice
from profilemate.parse.trace.trace import Trace

UNKNOWN = -1
_CACHING_OPS = ("cache", "touch", "evict", "move")


@dataclass(frozen=True, slots=True)
class Pools:
    """The block pools of all processes, numbered as *streams*: one per (process, pool).

    Attributes:
        pids: Process of every stream.
        numbers: Pool number of every stream.
        total: Blocks of every stream without the null block, `UNKNOWN` if never said.
        caching: Whether prefix caching is on. Where no `kv.pool` event says it, an operation that
            only exists with prefix caching does.
        standard: The stream that the standard files are about, one per process: the pool that the
            scheduler's KV cache manager hands out, as it says itself. Where none says so it is the
            lowest pool number on the GPU. (CPU offloading and HiSparse make further pools.)
        further: Others on the GPU that were used, as of a second engine in the process.
    """

    pids: Ints
    numbers: Ints
    total: Ints
    caching: Bools
    standard: Bools
    further: Bools
    _pid: Ints  # the different ones
    _number: Ints

    def of(self, frame: pd.DataFrame) -> Ints:
        """Stream of each row of a frame with `pid` and `pool`."""
        return _stream(self._pid, self._number, *_place(frame))


def _place(frame: pd.DataFrame) -> tuple[Ints, Ints]:
    return frame["pid"].to_numpy(dtype=np.int64), numbers(frame["pool"], 0)


def _stream(pids: Ints, nums: Ints, pid: Ints, pool: Ints) -> Ints:
    return np.searchsorted(pids, pid) * len(nums) + np.searchsorted(nums, pool)


def pools(trace: Trace) -> Pools:
    """Find the pools in `kv.pool` events and in the operations themselves."""
    return kept(trace, "pools", (trace.kv, trace.frames["kv.pool"]), _pools)


def _pools(trace: Trace) -> Pools:
    said = trace.frames["kv.pool"]
    # (process, pool) -> whether an operation needs prefix caching; None where there is none
    seen: dict[tuple[int, int], bool | None] = dict.fromkeys(
        zip(*(v.tolist() for v in _place(said)), strict=True)
    )
    for _, part in trace.kv.slices(("pid", "pool", "op")):
        needs = part["op"].isin(_CACHING_OPS).to_numpy(dtype=bool)
        pid, pool = _place(part)
        for process, number in product(np.unique(pid).tolist(), np.unique(pool).tolist()):
            mine = (pid == process) & (pool == number)
            if mine.any():
                caches = bool((mine & needs).any())
                seen[process, number] = seen.get((process, number)) or caches
    pids = np.array(sorted({pid for pid, _ in seen}), dtype=np.int64)
    nums = np.array(sorted({pool for _, pool in seen}), dtype=np.int64)
    count = len(pids) * len(nums)
    exists, used, caching = (np.zeros(count, dtype=bool) for _ in range(3))
    for (process, number), found in seen.items():
        stream = _stream(pids, nums, np.array([process]), np.array([number]))
        exists[stream], used[stream], caching[stream] = True, found is not None, bool(found)
    # Repeated with every session: the last value that is known.
    of_said = _stream(pids, nums, *_place(said))
    facts = (
        said[["num_blocks", "caching", "medium", "owner"]]
        .groupby(of_said)
        .last()
        .reindex(range(count))
    )
    caching_said = facts["caching"].notna().to_numpy()
    caching[caching_said] = flags(facts["caching"])[caching_said]
    on_gpu = facts["medium"].isna() | (facts["medium"].str.upper() == "GPU")
    here = (exists & flags(on_gpu)).reshape(len(pids), len(nums))
    owned = (exists & flags(facts["owner"] == "scheduler")).reshape(here.shape)
    # A connector's own pool may come first, and need not say that it is no GPU's.
    here = np.where(owned.any(axis=1, keepdims=True), owned, here)
    lowest = (here & (np.cumsum(here, axis=1) == 1)).reshape(-1)
    return Pools(
        np.repeat(pids, len(nums)),
        np.tile(nums, len(pids)),
        numbers(facts["num_blocks"], UNKNOWN),
        caching,
        lowest,
        here.reshape(-1) & used & ~lowest,
        pids,
        nums,
    )


def usage(used: Ints, total: Ints) -> pd.Series:
    """Share of the pool in use, 0..1, to the last bit as `BlockPool.get_usage` computes it.

    Where the pool's size or the number is `UNKNOWN` the share is NA; a pool without blocks is
    never in use.
    """
    size = np.maximum(total, 1)
    share = np.where(total == 0, 0.0, 1.0 - (size - used) / size)
    return pd.Series(share, dtype="Float64").mask((total == UNKNOWN) | (used == UNKNOWN))


class SchedulerSteps:
    """For operations, a number that rises with each step, and the step's own number.

    An operation belongs to the `Scheduler.schedule` call that it lies in, or else to the next one:
    blocks that a finished step frees are counted with the step that can use them. It is found by
    time, within the process; what comes after the last call is one group without a step number
    (`UNKNOWN`). In a process without any `sched.step` event each operation is a group of its own.
    """

    def __init__(self, trace: Trace) -> None:
        steps = trace.frames["sched.step"]
        every = steps["ts"].to_numpy(dtype=np.int64) + numbers(steps["dur"], 0)
        pids, number = steps["pid"].to_numpy(dtype=np.int64), numbers(steps["step"], UNKNOWN)
        self._ends: dict[int, Ints] = {}
        self._numbers: dict[int, Ints] = {}
        self._reached: dict[int, int] = {}
        for process in np.unique(pids).tolist():
            mine = np.flatnonzero(pids == process)
            mine = mine[np.argsort(every[mine], kind="stable")]
            self._ends[process] = every[mine]
            self._numbers[process] = np.append(number[mine], UNKNOWN)

    def of(self, part: Slice) -> tuple[Ints, Ints]:
        """Group and step of each operation of a slice; the slices must come in their order."""
        ts, pid = (part.frame[name].to_numpy(dtype=np.int64) for name in ("ts", "pid"))
        group = part.first + np.arange(len(ts), dtype=np.int64)
        number = np.full(len(ts), UNKNOWN, dtype=np.int64)
        for process in np.unique(pid).tolist() if self._ends else ():
            if process not in self._ends:
                continue
            rows = np.flatnonzero(pid == process)
            index = np.searchsorted(self._ends[process], ts[rows])
            # The log's order is the truth where a time stamp within one call runs backwards.
            index[0] = max(index[0], self._reached.get(process, 0))
            index = np.maximum.accumulate(index)
            self._reached[process] = int(index[-1])
            group[rows] = index
            number[rows] = self._numbers[process][index]
        return group, number
