"""What cannot be in the log of block operations, nor in what pools and lookups say."""

from __future__ import annotations

import numpy as np

from profilemate.parse.columns.arrays import NONE, Ints
from profilemate.parse.tables.base import Bools, numbers
from profilemate.parse.tables.lives import lives
from profilemate.parse.tables.pools import UNKNOWN, pools
from profilemate.parse.tables.violations import Violations, seconds
from profilemate.parse.trace.kv_log import OPS, KvSlice
from profilemate.parse.trace.trace import Trace

_LISTS = ("ids", "subset", "dst")


def check_pools(trace: Trace, found: Violations) -> None:
    """No pool has fewer than no blocks."""
    described = trace.frames["kv.pool"]
    size = numbers(described["num_blocks"], 0)
    wrong = np.flatnonzero(size < 0)
    if len(wrong):
        number = numbers(described["pool"], 0)[wrong[0]]
        found.add("pool-negative", len(wrong), f"pool {number} has {size[wrong[0]]} blocks")


def check_lookups(trace: Trace, found: Violations) -> None:
    """No lookup finds more tokens than it asks for."""
    lookups = trace.frames["kv.lookup"]
    asked, hits = (numbers(lookups[name], NONE) for name in ("tokens", "hits"))
    wrong = np.flatnonzero((hits != NONE) & (asked != NONE) & ((hits > asked) | (hits < 0)))
    if len(wrong):
        example = f"{hits[wrong[0]]} of {asked[wrong[0]]} tokens"
        found.add("hits-above-asked", len(wrong), example)


def whole(trace: Trace, pid: int) -> bool:
    """Whether a recording has all operations of a process from some moment on.

    Where events were lost, or several recordings have a part each, a free may be missing between
    two allocations.
    """
    parts = len(trace.sources_of.get(pid, ()))
    return not (pid in trace.lost_batches or trace.broken or trace.unfinished or parts > 1)


def check_operations(trace: Trace, found: Violations) -> None:
    """Blocks in use and ids of blocks are within their pool."""
    streams = pools(trace)
    least = np.zeros(len(streams.pids), dtype=np.int64)  # blocks known to be in use, by stream
    for part in trace.kv.slices(("ts", "pool", "op", "used", *_LISTS)):
        stream, used = streams.of(part), part.ints("used")
        total = streams.total[stream]
        sized, says = total >= 0, used != NONE
        outside = says & ((used < 0) | (sized & (used > total)))
        _note(found, "used-outside-pool", part, outside, used, trace)
        ids = np.zeros(len(part), dtype=np.int64)  # how many are outside, by operation
        for name in _LISTS:
            lists = part.ids(name)
            row = np.repeat(np.arange(len(part)), lists.lengths)
            wrong = (lists.flat < 0) | (sized[row] & (lists.flat > total[row]))
            ids += np.bincount(row[wrong], minlength=len(part))
        _note(found, "ids-outside-pool", part, ids > 0, used, trace, count=int(ids.sum()))
        if whole(trace, part.pid):
            known = _in_use(part, stream, least)
            _note(found, "used-below-allocated", part, says & (used < known), used, trace)


def _in_use(part: KvSlice, stream: Ints, least: Ints) -> Ints:
    """How many blocks are in use after each operation, at least.

    Those that were in use when the recording began may be freed in it; nothing else is unknown.

    Args:
        part: The operations.
        stream: Their streams, see `Pools`.
        least: The same before the first of them, by stream; brought forward.
    """
    ids, subset = part.ids(), part.ids("subset")
    changed = subset.filled_from(ids)
    row = np.repeat(np.arange(len(part)), changed.lengths)
    count = np.bincount(row[changed.flat != 0], minlength=len(part))  # 0 is the null block
    change = np.where(part.is_op("alloc", "touch"), count, 0)
    change = np.where(part.is_op("free"), -count, change)
    known = np.zeros(len(part), dtype=np.int64)
    for number in np.unique(stream).tolist():
        rows = np.flatnonzero(stream == number)
        so_far = np.cumsum(change[rows])
        missing = np.maximum.accumulate(np.maximum(-so_far, least[number]))
        known[rows] = so_far + missing
        least[number] = known[rows[-1]]
    return known


def _note(
    found: Violations,
    name: str,
    part: KvSlice,
    wrong: Bools,
    used: Ints,
    trace: Trace,
    count: int | None = None,
) -> None:
    """Count operations that are wrong, with the first of them as the example."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        at, pid = int(rows[0]), trace.aliases.get(part.pid, part.pid)
        op = OPS[int(part.columns["op"][at])]
        ids = "" if (blocks := part.ids()[at]) is None else f" of {_ids(blocks)}"
        in_use = "" if used[at] == NONE else f", {used[at]} in use"
        example = f"kv.{op}{ids} in process {pid} at {seconds(int(part.ints('ts')[at]))}{in_use}"
        found.add(name, len(rows) if count is None else count, example)


def _ids(blocks: tuple[int, ...]) -> str:
    """Block ids as a sentence has them."""
    return f"block {blocks[0]}" if len(blocks) == 1 else f"{len(blocks)} blocks"


def check_blocks(trace: Trace, found: Violations) -> None:
    """No block is allocated while it is in use, nor freed while it is free."""
    every, streams = lives(trace), pools(trace)
    empty = _empty_at_first(trace)
    for name, cases in (
        ("allocated-twice", every.order.allocated_in_use),
        ("freed-unallocated", every.order.freed_while_free(empty)),
    ):
        for case in cases:
            pid = int(streams.pids[case.stream])
            if whole(trace, pid):
                when = seconds(int(every.operations.ts[case.row]))
                shown = trace.aliases.get(pid, pid)
                example = f"block {case.block} in process {shown} at {when}"
                found.add(name, case.count, example)


def _empty_at_first(trace: Trace) -> Bools:
    """Streams whose pool said, before their first operation, that none of its blocks is in use."""
    streams, said = pools(trace), trace.frames["kv.pool"]
    began: dict[tuple[int, int], int] = {}  # first operation of each pool, ns
    for part in trace.kv.slices(("ts", "pool")):
        number, ts = part.ints("pool", 0), part.ints("ts")
        for pool in np.unique(number).tolist():
            began.setdefault((part.pid, pool), int(ts[number == pool][0]))
    empty: dict[tuple[int, int], bool] = {}
    columns = (said["pid"].to_numpy(np.int64), numbers(said["pool"], 0), said["ts"].to_numpy())
    for pid, pool, ts, used in zip(*columns, numbers(said["used"], UNKNOWN), strict=True):
        key = int(pid), int(pool)
        if key in began and ts <= began[key]:
            empty.setdefault(key, bool(used == 0))
    keys = zip(streams.pids.tolist(), streams.numbers.tolist(), strict=True)
    return np.array([empty.get(key, False) for key in keys], dtype=np.bool_)
