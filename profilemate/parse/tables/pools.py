"""The block pools of a trace, and the scheduler step that an operation belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.parse.columns.arrays import Ints, groups
from profilemate.parse.tables.base import Bools, flags, numbers
from profilemate.parse.trace.kv_log import KvSlice
from profilemate.parse.trace.trace import Trace, once_per_trace

UNKNOWN = -1
_CACHING_OPS = ("cache", "touch", "evict", "move")


@dataclass(frozen=True, slots=True)
class Pools:
    """The block pools of all processes, numbered as *streams*: one per (process, pool).

    Arrays have an element per stream. There are streams without a pool: each process has one for
    every pool number that any of them has.

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
    _pids: Ints  # the different ones, rising
    _numbers: Ints  # the same of pool numbers

    def of(self, part: KvSlice) -> Ints:
        """Stream of each operation; the slice needs the column `pool`."""
        return _stream(self._pids, self._numbers, part.pid, part.ints("pool", 0))


def _stream(pids: Ints, numbers: Ints, pid: Ints | int, pool: Ints | int) -> Ints:
    """Number of the stream of each (process, pool), whose different ones are `pids`, `numbers`."""
    return np.searchsorted(pids, pid) * len(numbers) + np.searchsorted(numbers, pool)


@once_per_trace
def pools(trace: Trace) -> Pools:
    """Find the pools in `kv.pool` events and in the operations themselves."""
    described = trace.frames["kv.pool"]
    described_pid = described["pid"].to_numpy(dtype=np.int64)
    described_number = numbers(described["pool"], 0)
    caches = _used_pools(trace)
    every = {*zip(described_pid.tolist(), described_number.tolist(), strict=True), *caches}
    pids = np.array(sorted({pid for pid, _ in every}), dtype=np.int64)
    pool_numbers = np.array(sorted({number for _, number in every}), dtype=np.int64)
    count = len(pids) * len(pool_numbers)
    # One element per stream: there is such a pool, operations used it, it caches prefixes.
    exists, used, caching = (np.zeros(count, dtype=bool) for _ in range(3))
    for pid, number in every:
        stream = _stream(pids, pool_numbers, pid, number)
        exists[stream], used[stream] = True, (pid, number) in caches
        caching[stream] = caches.get((pid, number), False)
    # Repeated with every session: the last value that is known.
    stream_of_row = _stream(pids, pool_numbers, described_pid, described_number)
    facts = described[["num_blocks", "caching", "medium", "owner"]]
    facts = facts.groupby(stream_of_row).last().reindex(range(count))
    says_caching = facts["caching"].notna().to_numpy()
    caching[says_caching] = flags(facts["caching"])[says_caching]
    # By process (line) and pool number (column): what no event describes is taken for the GPU's.
    on_gpu = facts["medium"].isna() | (facts["medium"].str.upper() == "GPU")
    on_gpu_here = (exists & flags(on_gpu)).reshape(len(pids), len(pool_numbers))
    owned = (exists & flags(facts["owner"] == "scheduler")).reshape(on_gpu_here.shape)
    # A connector's own pool may come first, and need not say that it is no GPU's.
    candidates = np.where(owned.any(axis=1, keepdims=True), owned, on_gpu_here)
    lowest = (candidates & (np.cumsum(candidates, axis=1) == 1)).reshape(-1)
    return Pools(
        pids=np.repeat(pids, len(pool_numbers)),
        numbers=np.tile(pool_numbers, len(pids)),
        total=numbers(facts["num_blocks"], UNKNOWN),
        caching=caching,
        standard=lowest,
        further=candidates.reshape(-1) & used & ~lowest,
        _pids=pids,
        _numbers=pool_numbers,
    )


def _used_pools(trace: Trace) -> dict[tuple[int, int], bool]:
    """The pools (pid, number) that operations used; whether one of these needs prefix caching."""
    used: dict[tuple[int, int], bool] = {}
    for part in trace.kv.slices(("pool", "op")):
        number, needs_caching = part.ints("pool", 0), part.is_op(*_CACHING_OPS)
        for pool in np.unique(number).tolist():
            caches = bool(needs_caching[number == pool].any())
            used[part.pid, pool] = used.get((part.pid, pool), False) or caches
    return used


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
        calls = trace.frames["sched.step"]
        end_ns = calls["ts"].to_numpy(dtype=np.int64) + numbers(calls["dur"], 0)
        step = numbers(calls["step"], UNKNOWN)
        self._ends: dict[int, Ints] = {}  # of each process: ends of its calls, ns, rising
        self._numbers: dict[int, Ints] = {}  # of each process: numbers of the same, then UNKNOWN
        self._reached: dict[int, int] = {}
        for process, rows in groups(calls["pid"].to_numpy(dtype=np.int64)):
            by_end = rows[np.argsort(end_ns[rows], kind="stable")]
            self._ends[process] = end_ns[by_end]
            self._numbers[process] = np.append(step[by_end], UNKNOWN)

    def of(self, part: KvSlice) -> tuple[Ints, Ints]:
        """Group and step of each operation of a slice; the slices must come in their order."""
        if part.pid not in self._ends:
            group = part.first + np.arange(len(part), dtype=np.int64)
            return group, np.full(len(part), UNKNOWN, dtype=np.int64)
        group = np.searchsorted(self._ends[part.pid], part.ints("ts"))
        # The log's order is the truth where a time stamp within one call runs backwards.
        group[0] = max(group[0], self._reached.get(part.pid, 0))
        group = np.maximum.accumulate(group)
        self._reached[part.pid] = int(group[-1])
        return group, self._numbers[part.pid][group]
