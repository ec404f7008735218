"""The block pools of a trace, and the scheduler step that an operation belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from profilemate.parse.tables.base import Bools, Ints, flags, numbers
from profilemate.parse.trace import Trace

UNKNOWN = -1
_CACHING_OPS = ("cache", "touch", "evict", "move")


@dataclass(frozen=True, slots=True)
class Pools:
    """The block pools of all processes, numbered as *streams*: one per (process, pool).

    Attributes:
        of_row: Stream of every row of the frame `kv`.
        pids: Process of every stream.
        numbers: Pool number of every stream.
        total: Blocks of every stream without the null block, `UNKNOWN` if never said.
        caching: Whether prefix caching is on. Where no `kv.pool` event says it, an operation that
            only exists with prefix caching does.
        standard: The stream that the standard files are about, one per process: the lowest pool
            number that is on the GPU. (CPU offloading and HiSparse make further pools.)
    """

    of_row: Ints
    pids: Ints
    numbers: Ints
    total: Ints
    caching: Bools
    standard: Bools

    def standard_rows(self) -> Bools:
        """Rows of the frame `kv` that the standard files are about."""
        return self.standard[self.of_row]


def pools(trace: Trace) -> Pools:
    """Find the pools in `kv.pool` events and in the operations themselves."""
    kv, said = trace.frames["kv"], trace.frames["kv.pool"]
    kv_pid, kv_pool = kv["pid"].to_numpy(dtype=np.int64), numbers(kv["pool"], 0)
    said_pid, said_pool = said["pid"].to_numpy(dtype=np.int64), numbers(said["pool"], 0)
    pids = np.unique(np.concatenate([kv_pid, said_pid]))
    nums = np.unique(np.concatenate([kv_pool, said_pool]))

    def stream(pid: Ints, pool: Ints) -> Ints:
        return np.searchsorted(pids, pid) * len(nums) + np.searchsorted(nums, pool)

    of_row, of_said = stream(kv_pid, kv_pool), stream(said_pid, said_pool)
    count = len(pids) * len(nums)
    exists = np.zeros(count, dtype=bool)
    exists[of_row] = exists[of_said] = True
    # Repeated with every session: the last value that is known.
    facts = said[["num_blocks", "caching", "medium"]].groupby(of_said).last().reindex(range(count))
    needs_caching = kv["op"].isin(_CACHING_OPS).to_numpy(dtype=bool)
    caching = np.bincount(of_row[needs_caching], minlength=count) > 0
    caching_said = facts["caching"].notna().to_numpy()
    caching[caching_said] = flags(facts["caching"])[caching_said]
    on_gpu = facts["medium"].isna() | (facts["medium"].str.upper() == "GPU")
    here = (exists & flags(on_gpu)).reshape(len(pids), len(nums))
    lowest = here & (np.cumsum(here, axis=1) == 1)
    return Pools(
        of_row,
        np.repeat(pids, len(nums)),
        np.tile(nums, len(pids)),
        numbers(facts["num_blocks"], UNKNOWN),
        caching,
        lowest.reshape(-1),
    )


def usage(used: Ints, total: Ints) -> pd.Series:
    """Share of the pool in use, 0..1, to the last bit as `BlockPool.get_usage` computes it.

    Where the pool's size or the number is `UNKNOWN` the share is NA; a pool without blocks is
    never in use.
    """
    size = np.maximum(total, 1)
    share = np.where(total == 0, 0.0, 1.0 - (size - used) / size)
    return pd.Series(share, dtype="Float64").mask((total == UNKNOWN) | (used == UNKNOWN))


def scheduler_steps(trace: Trace) -> tuple[Ints, Ints]:
    """For every row of `kv`, a number that rises with each step, and the step's own number.

    An operation belongs to the `Scheduler.schedule` call that it lies in, or else to the next one:
    blocks that a finished step frees are counted with the step that can use them. It is found by
    time, within the process; what comes after the last call is one group without a step number
    (`UNKNOWN`). In a process without any `sched.step` event each operation is a group of its own.
    """
    kv, steps = trace.frames["kv"], trace.frames["sched.step"]
    ts, pid = kv["ts"].to_numpy(dtype=np.int64), kv["pid"].to_numpy(dtype=np.int64)
    ends = steps["ts"].to_numpy(dtype=np.int64) + numbers(steps["dur"], 0)
    steps_pid, step = steps["pid"].to_numpy(dtype=np.int64), numbers(steps["step"], UNKNOWN)
    group = np.arange(len(kv), dtype=np.int64)
    number = np.full(len(kv), UNKNOWN, dtype=np.int64)
    for process in np.unique(steps_pid):
        rows = np.flatnonzero(pid == process)
        mine = np.flatnonzero(steps_pid == process)
        mine = mine[np.argsort(ends[mine], kind="stable")]
        # The log's order is the truth where a time stamp within one call runs backwards.
        index = np.maximum.accumulate(np.searchsorted(ends[mine], ts[rows]))
        group[rows] = index
        number[rows] = np.append(step[mine], UNKNOWN)[index]
    return group, number
